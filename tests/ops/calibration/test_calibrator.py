"""When it is measured, by whom, and what a start makes of it."""

import logging
import multiprocessing
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from ops.calibration import lookup
from ops.calibration.calibrator import Calibrator
from ops.calibration.candidate import Limits, Stopped
from ops.calibration.choice import decide
from ops.calibration.estimates import Room, lacks_memory, seconds
from ops.calibration.key import key_of
from ops.calibration.machine_lock import Busy, machine_lock
from ops.calibration.request import Request
from ops.calibration.results import Results
from ops.calibration.verdict import Outcome
from ops.hub.hub import hub_from
from ops.serving.plan import PlannedModel, Planner
from ops.serving.sharing import on_one_of, share_process
from ops.serving.sources import Source, SourceKind
from ops.settings.loader import load
from ops.settings.models import model_from_source
from tests.ops.calibration.figures import failed, measured
from tests.ops.serving.machines import machine
from workers.runners.devices import Device

SLOW_LLAMA = {"llama_cpp": measured("llama_cpp", 184), "torch": measured("torch", 748)}


@dataclass
class Trials:
    """Stands in for the child processes: says what is prepared, and keeps who asked."""

    outcomes: dict[str, Outcome]
    asked: list[str] = field(default_factory=list)
    floors: list[float] = field(default_factory=list)

    def __call__(self, request: Request, limits: Limits, stop: threading.Event) -> Outcome:
        self.asked.append(request.backend)
        self.floors.append(request.floor)
        assert limits.measure_s > 0
        return self.outcomes[request.backend]


@dataclass
class Place:
    """A data directory with a model, on a machine with llama_cpp and torch."""

    folder: Path
    weights: Path

    def planner(self, **environ: str) -> Planner:
        settings = load({f"INFERFLUX_{name}": text for name, text in environ.items()}, {})
        hub = hub_from({}, self.folder / "models", allow_downloads=False)
        return Planner(settings.runtime, machine(obstacles={"mlx": "absent"}), hub, Results(self.folder))

    def plan(self, sequences: int | None = None, backend: str = "auto", **environ: str) -> PlannedModel:
        model = replace(model_from_source(str(self.weights)), sequences=sequences, backend=backend)
        return self.planner(**environ).plan(model)

    def calibrator(self, trials: Trials, load: float = 0.0, **environ: str) -> Calibrator:
        planner = self.planner(**environ)
        return Calibrator(
            planner.runtime,
            Device.CPU,
            planner.results,
            threading.Event(),
            run=trials,
            lock=self.folder / "lock",
            load=lambda: load,
        )


@pytest.fixture
def place(tmp_path: Path) -> Place:
    weights = tmp_path / "tiny.gguf"
    weights.write_bytes(b"GGUF" + bytes(20))
    return Place(tmp_path, weights)


def test_before_it_is_measured_the_preferred_one_serves_and_says_so(place: Place) -> None:
    model = place.plan()
    assert (model.backend, model.rivals, model.is_open) == ("llama_cpp", ("llama_cpp", "torch"), True)
    assert model.reason == "automatic: on the CPU; not measured yet"


def test_the_measured_one_serves_and_its_figures_are_the_reason(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    trials = Trials(SLOW_LLAMA)
    with caplog.at_level(logging.INFO, "inferflux.calibration"):
        place.calibrator(trials).calibrate(place.plan(sequences=8))
    assert trials.asked == ["llama_cpp", "torch"]
    assert trials.floors == [0, pytest.approx(0.95 / (1 / 184 + 1 / 1000))]
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == "calibrating tiny on 2 backends (llama_cpp, torch) at 8 sequences; this is done once"
    assert said[-1].endswith("torch 748 tok/s (prefill 1000), llama_cpp 184 tok/s (prefill 1000): torch; remembered")
    model = place.plan(sequences=8)
    assert (model.backend, model.is_open) == ("torch", False)
    assert model.reason == (
        "automatic: fastest here, at 8 sequences torch 748 tok/s (prefill 1000), llama_cpp 184 tok/s (prefill 1000)"
    )


def test_it_is_measured_once_unless_asked_again(place: Place) -> None:
    trials = Trials(SLOW_LLAMA)
    for _ in range(2):
        place.calibrator(trials).calibrate(place.plan())
    assert len(trials.asked) == 2
    place.calibrator(Trials({**SLOW_LLAMA, "torch": measured("torch", 10)})).calibrate(place.plan(), again=True)
    assert place.plan().backend == "llama_cpp"


def test_another_load_goes_by_what_is_known_until_it_is_measured(place: Place) -> None:
    place.calibrator(Trials(SLOW_LLAMA)).calibrate(place.plan(sequences=8))
    model = place.plan(sequences=1)
    assert (model.backend, model.is_open) == ("torch", True)
    assert model.reason.endswith("; not measured at 1 sequences")


def test_who_crashes_is_out_with_the_reason(place: Place) -> None:
    trials = Trials({**SLOW_LLAMA, "torch": failed("torch", "its process ended with SIGABRT")})
    place.calibrator(trials).calibrate(place.plan())
    model = place.plan()
    assert (model.backend, model.is_open) == ("llama_cpp", False)
    assert "torch: its process ended with SIGABRT" in model.reason


def test_when_nobody_can_be_measured_preference_decides_and_the_next_start_tries_again(place: Place) -> None:
    trials = Trials({"llama_cpp": failed("llama_cpp"), "torch": failed("torch")})
    for _ in range(2):
        place.calibrator(trials).calibrate(place.plan())
    assert len(trials.asked) == 4
    model = place.plan()
    assert (model.backend, model.is_open) == ("llama_cpp", True)
    assert "SIGSEGV" in model.reason


def test_a_busy_machine_is_measured_again_at_the_next_start(place: Place) -> None:
    busy = Trials({**SLOW_LLAMA, "llama_cpp": measured("llama_cpp", 5, waited=0.7)})
    place.calibrator(busy).calibrate(place.plan())
    assert (place.plan().backend, place.plan().is_open) == ("torch", True)
    place.calibrator(Trials({}), load=1.5).calibrate(place.plan())  # it would be no better now
    quiet = Trials(SLOW_LLAMA)
    place.calibrator(quiet).calibrate(place.plan())
    assert quiet.asked
    assert not place.plan().is_open


@pytest.mark.parametrize(
    ("environ", "backend", "reason"),
    [
        ({"CALIBRATE": "off"}, "llama_cpp", "automatic: on the CPU"),
        ({"BACKEND_PRIORITY": "llama_cpp,torch"}, "llama_cpp", "first of runtime.backend_priority"),
        ({"BACKEND_PREFER_NATIVE": "true"}, "torch", "native backends are preferred"),
        ({"BACKEND_ALLOW_LLAMA_FALLBACK": "false"}, "torch", "llama_cpp is not allowed"),
    ],
)
def test_settings_that_decide_leave_nothing_to_measure(
    place: Place, environ: dict[str, str], backend: str, reason: str
) -> None:
    place.calibrator(Trials({**SLOW_LLAMA, "torch": measured("torch", 1)})).calibrate(place.plan())
    trials, model = Trials({}), place.plan(**environ)
    assert (model.backend, model.rivals, model.is_open) == (backend, (), False)
    assert reason in model.reason
    assert place.calibrator(trials, **environ).calibrate(model, again=True) is None
    assert trials.asked == []


def test_neither_a_backend_that_was_asked_for_nor_echo_is_measured(place: Place) -> None:
    assert place.plan(backend="torch").rivals == ()
    assert place.planner().plan(model_from_source("echo")).rivals == ()


def test_a_model_too_large_for_the_limit_is_not_tried(place: Place) -> None:
    with place.weights.open("r+b") as file:
        file.truncate(2**33)  # of holes
    trials, model = Trials(SLOW_LLAMA), place.plan()
    assert not model.is_open
    assert "not measured: " in model.reason
    assert place.calibrator(trials).calibrate(model) is None
    assert trials.asked == []


def test_without_the_memory_for_it_a_backend_is_not_tried(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "available_bytes", lambda: 1)
    trials, model = Trials(SLOW_LLAMA), place.plan()
    assert "torch would need about" in model.reason
    assert place.calibrator(trials).calibrate(model) is None
    assert trials.asked == []


def test_estimates_grow_with_the_file_and_with_what_a_backend_makes_of_it(place: Place) -> None:
    with place.weights.open("r+b") as file:
        file.truncate(2**30)
    source, model = Source(SourceKind.GGUF, str(place.weights)), model_from_source(str(place.weights))
    room = Room(3 * 2**30, 2, is_gpu=False)
    assert lacks_memory("llama_cpp", model, source, room) is None
    assert lacks_memory("torch", model, source, room) is not None
    assert lacks_memory("torch", model, source, Room(0, 2, is_gpu=True)) is None
    alone, both = (seconds(backends, source, 8, room) for backends in (["llama_cpp"], ["llama_cpp", "torch"]))
    assert both > 2 * alone


def _hold(path: Path, held: "multiprocessing.synchronize.Event", done: "multiprocessing.synchronize.Event") -> None:
    with machine_lock(path, 60, threading.Event()):
        held.set()
        done.wait(60)


def test_two_processes_do_not_measure_at_once(place: Place) -> None:
    context = multiprocessing.get_context("spawn")
    held, done, lock = context.Event(), context.Event(), place.folder / "lock"
    other = context.Process(target=_hold, args=(lock, held, done))
    other.start()
    assert held.wait(60)
    with pytest.raises(Busy), machine_lock(lock, 0, threading.Event()):
        pass
    stopped = threading.Event()
    stopped.set()
    with pytest.raises(Stopped), machine_lock(lock, 60, stopped):
        pass
    trials, model, seen = Trials(SLOW_LLAMA), place.plan(), []
    waiting = threading.Thread(target=lambda: seen.append(place.calibrator(trials).calibrate(model)))
    waiting.start()
    # Meanwhile the other process finds it out: who waited takes that.
    key = key_of(model.settings, model.source, model.rivals, Device.CPU)
    place.planner().results.put(key, decide(list(SLOW_LLAMA.values()), 16))
    done.set()
    waiting.join(60)
    other.join(60)
    assert [verdict.backend for verdict in seen if verdict is not None] == ["torch"]
    assert trials.asked == []


def test_models_in_one_process_get_one_library(place: Place) -> None:
    torch, llama = (replace(place.plan(), backend=backend) for backend in ("torch", "llama_cpp"))
    fixed, echo = place.plan(backend="llama_cpp"), place.planner().plan(model_from_source("echo"))
    assert [model.backend for model in share_process([torch, torch])] == ["torch", "torch"]
    assert [model.backend for model in share_process([torch, llama, llama, echo])] == [*["llama_cpp"] * 3, "echo"]
    assert [model.backend for model in share_process([torch, fixed])] == ["llama_cpp", "llama_cpp"]
    assert [model.backend for model in share_process([place.plan(backend="torch"), fixed])] == ["torch", "llama_cpp"]
    assert "the library of the other models" in share_process([torch, fixed])[0].reason
    assert on_one_of(torch, set()) == torch
    assert on_one_of(fixed, {"torch"}) == fixed
