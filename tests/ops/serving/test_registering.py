"""Cards from settings: the same ranges, nothing lost, and who has the last word."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ops.calibration.choice import decide
from ops.calibration.key import key_of
from ops.calibration.results import Results
from ops.errors import CannotStart
from ops.serving.plan import PlannedModel, Planner
from ops.serving.registering import is_left_over, merged, model_card
from ops.serving.sources import hub_of
from ops.serving.worker_models import CardPlanner, model_settings
from ops.settings.errors import SettingsError
from ops.settings.loader import load
from ops.settings.models import model_from_source
from ops.settings.setting import Given, Origin, read
from ops.settings.table import MODEL_FIELDS
from schemas.control import ModelCard
from tests.ops.calibration.figures import measured
from tests.ops.serving.machines import machine
from workers.config import NotForThisWorker
from workers.runners.base import RunnerError
from workers.runners.devices import Device

MODEL = replace(model_from_source("echo:repeat"), context=128, sequences=3, aliases=("other",), default=False)
CARD = model_card(MODEL, now=1)
NUMBERS = ("context", "sequences", "threads", "gpu_layers", "batch_tokens", "max_output_tokens", "queue_max")
EDGES = st.sampled_from([-2, -1, 0, 1, 15, 16, 1024, 1025, 65_536, 65_537, 100_000, 100_001, 2**20, 2**24, 2**24 + 1])

WORDS = st.sampled_from(["auto", "llama_cpp", "torch", "mlx", "echo", "f16", "q8_0", "q4_1", "refuse", "queue", "no"])


@given(st.sampled_from([*NUMBERS, "queue_max_tokens"]), st.one_of(EDGES, st.integers()))
def test_a_card_takes_the_numbers_that_the_settings_take(name: str, number: int) -> None:
    assert _card_takes({name: number}) == _settings_take(name, number)


@pytest.mark.parametrize("name", ["backend", "kv_type", "no_worker"])
@given(
    word=st.sampled_from(["auto", "llama_cpp", "torch", "mlx", "echo", "f16", "q8_0", "q4_1", "refuse", "queue", "no"])
)
def test_a_card_takes_the_words_that_the_settings_take(name: str, word: str) -> None:
    assert _card_takes({name: word}) == _settings_take(name, word)


def test_a_card_has_every_setting_of_a_model() -> None:
    assert set(MODEL_FIELDS) <= set(ModelCard.model_fields)


def test_settings_come_out_of_a_card_as_they_went_in() -> None:
    assert model_settings(CARD) == MODEL


def test_what_administrators_changed_stays_until_the_configuration_changes() -> None:
    changed = CARD.model_copy(update={"context": 64, "origin": "admin"})
    assert merged(CARD, None, {}) == CARD
    assert merged(CARD, changed, {}) == changed
    assert merged(CARD, None, {CARD.id: CARD.configured}) is None
    newer = model_card(replace(MODEL, context=256), now=9)
    won = merged(newer, changed, {})
    assert won is not None
    assert (won.context, won.origin, won.created) == (256, "config", 1)
    assert merged(newer, None, {CARD.id: CARD.configured}) == newer


def test_what_left_the_configuration_goes_and_what_was_added_stays() -> None:
    added = CARD.model_copy(update={"id": "x", "origin": "admin", "configured": ""})
    assert is_left_over(CARD, set())
    assert is_left_over(CARD.model_copy(update={"origin": "admin"}), set())
    assert not is_left_over(CARD, {CARD.id})
    assert not is_left_over(added, set())
    assert not is_left_over(CARD.model_copy(update={"origin": "manifest"}), set())


def test_only_what_is_loaded_makes_another_load() -> None:
    for same in ({"default": True}, {"aliases": ()}, {"queue_max": 1}, {"no_worker": "queue"}, {"origin": "admin"}):
        assert CARD.model_copy(update=same).load_key() == CARD.load_key()
    for other in ({"source": "echo"}, {"context": 64}, {"chat_template": "{{x}}"}, {"load_count": 1}):
        assert CARD.model_copy(update=other).load_key() != CARD.load_key()


def planner(
    *,
    is_bound: bool = False,
    data_dir: Path = Path("/nowhere"),
    own: tuple[PlannedModel, ...] = (),
    calibrate: Callable[[PlannedModel], object] | None = None,
) -> CardPlanner:
    settings = load({}, {})
    found = Planner(settings.runtime, machine(), hub_of(settings), Results(data_dir))
    return CardPlanner(lambda: found, own, is_bound=is_bound, calibrate=calibrate)


def test_a_worker_measures_for_its_first_model_and_never_while_it_serves(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(20))
    asked: list[str] = []

    def calibrate(model: PlannedModel) -> None:
        asked.append(model.settings.id)
        key = key_of(model.settings, model.source, model.rivals, Device.CPU)
        verdict = decide([measured("llama_cpp", 100), measured("torch", 900), measured("mlx", 1)], 8)
        Results(tmp_path).put(key, verdict)

    gguf = CARD.model_copy(update={"id": "one", "source": str(tmp_path / "m.gguf")})
    alone = planner(data_dir=tmp_path, calibrate=calibrate)
    first = alone(gguf, _ignore)
    assert (first.backend, asked) == ("torch", ["one"])
    assert "torch 900 tok/s" in first.reason
    # another model, of which nothing is known
    (tmp_path / "n.gguf").write_bytes(b"GGUF" + bytes(21))
    second = alone(gguf.model_copy(update={"id": "two", "source": str(tmp_path / "n.gguf")}), _ignore)
    assert (second.backend, asked) == ("torch", ["one"])
    assert "the library of the other models in its process; else llama_cpp" in second.reason
    assert "not measured yet" in second.reason
    # and one process of `up`, which goes by what that has found out
    assert planner(is_bound=True, data_dir=tmp_path)(gguf, _ignore).backend == "torch"


def test_one_process_keeps_to_libraries_that_can_share_it(tmp_path: Any) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(20))
    gguf = CARD.model_copy(update={"id": "gguf", "source": str(tmp_path / "m.gguf")})
    as_torch = gguf.model_copy(update={"backend": "torch"})
    free, bound = planner(), planner(is_bound=True)
    assert [free(card, _ignore).backend for card in (CARD, gguf)] == ["echo", "llama_cpp"]
    with pytest.raises(NotForThisWorker, match="needs torch"):
        free(as_torch, _ignore)
    assert bound(CARD, _ignore).backend == "echo"
    with pytest.raises(NotForThisWorker):
        bound(gguf, _ignore)


def test_a_file_that_is_not_there_is_one_line() -> None:
    with pytest.raises(RunnerError, match=r"^model /nowhere/m.gguf: No such file or directory$"):
        planner()(CARD.model_copy(update={"source": "/nowhere/m.gguf"}), _ignore)


def test_the_estimate_grows_with_what_is_asked_for(tmp_path: Any) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF" + bytes(996))
    gguf = CARD.model_copy(update={"source": str(tmp_path / "m.gguf")})
    assert planner()(gguf, _ignore).memory_bytes == 1000
    sizes = [planner()(CARD.model_copy(update={"sequences": number}), _ignore).memory_bytes for number in (1, 4)]
    assert sizes == [128 * 4, 128 * 16]


def _ignore(stage: str, fraction: float | None) -> None:
    """Nobody watches."""


def _card_takes(fields: Mapping[str, object]) -> bool:
    try:
        ModelCard.model_validate({"id": "m", "source": "echo", "created": 1, **fields})
    except ValidationError:
        return False
    return True


def _settings_take(name: str, value: object) -> bool:
    try:
        read(MODEL_FIELDS[name], Given(value, Origin("here")))
    except (SettingsError, CannotStart):
        return False
    return True
