"""What a worker has to do so that it serves what it is wanted to: a comparison, without any doing."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

FIRST_RETRY_S = 10.0
MAX_RETRY_S = 600.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A load that failed: of which `key`, with the file as it was then (`stamp`), and how often in a row.

    `retry_at` is of `time.monotonic()`. `lacks_memory`: the model may fit once another is gone.
    """

    key: str
    reason: str
    stamp: object
    times: int
    retry_at: float
    lacks_memory: bool = False

    @staticmethod
    def backoff_s(times: int) -> float:
        return min(MAX_RETRY_S, FIRST_RETRY_S * 2.0 ** min(times - 1, 10))


class Differences(NamedTuple):
    """Models to load, anew or for the first time, to close, and those of which nothing needs to be remembered."""

    load: tuple[str, ...]
    close: tuple[str, ...]
    forget: tuple[str, ...]


def compare(
    wanted: Mapping[str, str],
    serving: Mapping[str, str],
    failed: Mapping[str, Failure],
    skipped: Mapping[str, str],
    stamps: Mapping[str, object],
    now: float,
) -> Differences:
    """`wanted` and `serving` are load keys by model, `skipped` those that another process has to serve.

    What failed is tried again when its key or its file is another one, or after a while. Nothing is closed because its
    successor does not load.
    """
    load = []
    for model_id, key in wanted.items():
        if serving.get(model_id) == key or skipped.get(model_id) == key:
            continue
        failure = failed.get(model_id)
        if failure is None or failure.key != key or failure.stamp != stamps.get(model_id) or now >= failure.retry_at:
            load.append(model_id)
    done = {model_id for model_id, key in serving.items() if wanted.get(model_id) == key}
    return Differences(
        load=tuple(load),
        close=tuple(model_id for model_id in serving if model_id not in wanted),
        forget=tuple(model_id for model_id in {**failed, **skipped} if model_id not in wanted or model_id in done),
    )
