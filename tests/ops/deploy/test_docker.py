"""Images and the compose file: linted, and what they start is understood."""

import json
import os
import re
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops.settings.table import DRAIN_TIMEOUT_S, HTTP_PORT
from producer.config import MetricsConfig
from tests.ops.deploy.commands import DEPLOY, ROOT, broker_variables, read_command
from workers.metrics import FIRST_PORT

DOCKERFILES = sorted((DEPLOY / "docker").glob("*.Dockerfile"))
COMPOSE = DEPLOY / "compose"
FAREWELL_S = 3
HEALTH_PORTS = {MetricsConfig().port}


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Instructions of the last stage, continued lines joined."""
    text = re.sub(r"^#.*\n", "", dockerfile.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    last = text[text.rindex("\nFROM ") + 1 :]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in last.splitlines() if line]


def variables(dockerfile: Path) -> dict[str, str]:
    text = " ".join(value for name, value in instructions(dockerfile) if name == "ENV")
    return {name: value for name, _, value in (word.partition("=") for word in text.split())}


def ours(environ: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name.startswith("INFERFLUX_")}


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_passes_the_linter(dockerfile: Path) -> None:
    hadolint = Path(sysconfig.get_path("scripts")) / "hadolint"
    done = subprocess.run([hadolint, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_an_image_starts_what_there_is_as_nobody_special(dockerfile: Path) -> None:
    steps = dict(instructions(dockerfile))
    words = [*json.loads(steps["ENTRYPOINT"]), *json.loads(steps["CMD"])]
    started = read_command(words, ours(variables(dockerfile)) | {"INFERFLUX_API_KEYS": "key"}, {})
    assert started.path == (dockerfile.stem.partition("-")[0],)
    assert started.settings.metrics_host == "0.0.0.0"
    assert started.settings.logging.format == "json"
    assert f"-o inferflux -g inferflux -m 0750 {started.settings.data_dir}" in dict(instructions(dockerfile))["RUN"]
    assert steps["USER"] == "10001:10001" and "--uid 10001" in steps["RUN"]
    ports = {int(port) for port in steps["EXPOSE"].split()}
    assert ports == ({HTTP_PORT.default, MetricsConfig().port} if started.path == ("edge",) else {FIRST_PORT})
    health = json.loads(steps["HEALTHCHECK"].partition("CMD ")[2])
    if started.path == ("edge",):
        assert f"http://127.0.0.1:{MetricsConfig().port}/metrics" in health[2]
    else:
        assert health == ["test", "-f", str(started.params["ready_file"])]


@pytest.mark.parametrize("dockerfile", DOCKERFILES, ids=lambda path: path.stem)
def test_every_stage_is_pinned_and_built_from_what_the_context_has(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    bases = re.findall(r"^FROM (\S+)", text, re.MULTILINE)
    assert len(bases) == 2 and all(re.search(r":\d+\.\d+\.\d+", base) for base in bases)
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    kept = {line.removeprefix("!") for line in ignored if line.startswith("!")}
    assert ignored[0] == "*" and all((ROOT / name).exists() for name in kept)
    packages = re.search(r"^packages = (\[.*\])$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert packages is not None
    assert {*json.loads(packages[1]), "constraints.txt", "pyproject.toml", "README.md", "LICENSE"} == kept


def example() -> dict[str, str]:
    lines = (COMPOSE / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def filled_in(service: dict[str, Any]) -> dict[str, str]:
    """A service's variables, with those of `.env`."""
    return {
        name: re.sub(r"\$\{(\w+):\?[^}]*\}", lambda found: example()[found[1]], str(value))
        for name, value in service.get("environment", {}).items()
    }


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text())
    return document


def test_compose_starts_what_there_is(compose: dict[str, Any]) -> None:
    services = compose["services"]
    images = {path.stem: path for path in DOCKERFILES}
    commands = {}
    for name, service in services.items():
        dockerfile = images[service["image"].removeprefix("inferflux/").partition(":")[0]]
        assert service["build"]["dockerfile"] == str(dockerfile.relative_to(ROOT))
        assert (COMPOSE / service["build"]["context"]).resolve() == ROOT
        assert set(service.get("depends_on", ())) <= set(services)
        assert service["cap_drop"] == ["ALL"] and service["read_only"]
        if "entrypoint" in service:
            continue
        environ = ours(variables(dockerfile)) | filled_in(service)
        files = {"/etc/inferflux/server.yaml": COMPOSE / "server.yaml"}
        commands[name] = read_command(["inferflux", *service["command"]], environ, files)
    assert {name: command.path[0] for name, command in commands.items()} == {
        "logins": "topology",
        "topology": "topology",
        "edge-1": "edge",
        "edge-2": "edge",
        "worker": "worker",
    }
    out = commands["logins"].params["out"]
    for name in ("topology", "edge-1", "edge-2", "worker"):
        assert str(commands[name].settings.nats.credentials) == out
        assert commands[name].settings.nats.url == f"nats://nats:{services['nats']['environment']['NATS_LISTEN'][-4:]}"
    for name in ("edge-1", "edge-2"):
        assert services[name]["ports"][0].endswith(f":{HTTP_PORT.default}")
        assert int(services[name]["stop_grace_period"].rstrip("s")) >= DRAIN_TIMEOUT_S.default + FAREWELL_S
    assert services["worker"]["healthcheck"]["test"] == [
        "CMD",
        "test",
        "-f",
        str(commands["worker"].params["ready_file"]),
    ]


def test_compose_mounts_files_and_volumes_that_exist(compose: dict[str, Any]) -> None:
    mounted = set()
    for service in compose["services"].values():
        for mount in service.get("volumes", ()):
            source = mount.partition(":")[0]
            mounted.add(source)
            assert (COMPOSE / source).is_file() if source.startswith(".") else source in compose["volumes"]
    assert set(compose["volumes"]) <= mounted


def test_the_example_of_variables_names_all_that_compose_asks_for() -> None:
    asked = set(re.findall(r"\$\{(\w+):\?", (COMPOSE / "compose.yaml").read_text()))
    assert set(example()) == asked
    read_command(["inferflux", "edge", "--host", "0.0.0.0"], example(), {})


def test_compose_tells_its_broker_all_that_the_configuration_reads(compose: dict[str, Any]) -> None:
    nats = compose["services"]["nats"]
    assert broker_variables(DEPLOY / "nats" / "server.conf") == set(nats["environment"])
    assert os.path.basename(nats["command"][-1]) == "server.conf"
