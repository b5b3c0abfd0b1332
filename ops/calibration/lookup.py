"""What is known about the backends of a model without measuring anything."""

from collections.abc import Sequence
from typing import NamedTuple

from ops.calibration.estimates import Room, lacks_memory, seconds
from ops.calibration.key import key_of, sequences_of
from ops.calibration.results import Results
from ops.calibration.verdict import Verdict
from ops.serving.sources import Source
from ops.settings.settings import ModelSettings
from workers.runners.devices import Device
from workers.runners.machine import available_bytes, num_processors


class Finding(NamedTuple):
    """`note` says why there is no verdict, or that it is about another load; empty when there is nothing to say.
    `is_open`: measuring would tell.
    """

    verdict: Verdict | None
    note: str
    is_open: bool


NOTHING = Finding(None, "", False)


def look_up(
    results: Results, model: ModelSettings, source: Source, backends: Sequence[str], limit_s: float, device: Device
) -> Finding:
    """About these backends, of which there is more than one."""
    try:
        key = key_of(model, source, backends, device)
        exact = results.exact(key)
        if exact is not None:
            return Finding(exact, "", not exact.is_final)
        why_not = obstacle(model, source, backends, limit_s, device)
    except OSError:
        return NOTHING  # whoever loads the files has a better word for that
    if (similar := results.similar(key)) is not None:
        return Finding(similar, f"not measured at {sequences_of(model, device)} sequences", why_not is None)
    return Finding(None, f"not measured{' yet' if why_not is None else f': {why_not}'}", why_not is None)


def room_here(device: Device) -> Room:
    return Room(available_bytes(), num_processors(), device is not Device.CPU)


def obstacle(
    model: ModelSettings, source: Source, backends: Sequence[str], limit_s: float, device: Device
) -> str | None:
    """Why these are not measured here; None when nothing stands in the way. Raises OSError."""
    room = room_here(device)
    short = {backend: lacks_memory(backend, model, source, room) for backend in backends}
    fitting = [backend for backend, reason in short.items() if reason is None]
    if len(fitting) < 2:
        return "; ".join(f"{backend} {reason}" for backend, reason in short.items() if reason is not None)
    takes_s = seconds(fitting, source, sequences_of(model, device), room)
    if takes_s > limit_s:
        return f"it would take about {takes_s:.0f} s, and runtime.calibrate_limit_s is {limit_s:.0f}"
    return None
