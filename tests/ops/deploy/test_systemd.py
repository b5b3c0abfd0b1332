"""The systemd units: verified where systemd is, and what they start is understood."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker.roles import Role
from ops.settings.table import DRAIN_TIMEOUT_S
from tests.ops.deploy.commands import DEPLOY, broker_variables, read_command

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
PROGRAMS = "/opt/inferflux/bin"
FAREWELL_S = 3
# Of 10; what systemd itself calls OK.
MAX_EXPOSURE = 2.5


def directives(unit: Path) -> dict[str, str]:
    lines = unit.read_text().replace("\\\n", " ").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def words(unit: Path) -> list[str]:
    command = directives(unit)["ExecStart"].replace("%i", "smollm2-135m")
    return command.split()


def environment(name: str) -> dict[str, str]:
    lines = (DEPLOY / "systemd" / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def test_units_pass_the_verifier(tmp_path: Path) -> None:
    """With our own programs in the place of those that a target machine has."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed: apt-get install systemd")
    here = Path(sys.executable).parent
    copies = []
    for unit in UNITS:
        copies.append(tmp_path / unit.name.replace("@.", "@smollm2-135m."))
        copies[-1].write_text(unit.read_text().replace(PROGRAMS, str(here)))
    done = subprocess.run([analyze, "verify", *copies], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    for copy in copies:
        rated = subprocess.run(
            [analyze, "security", "--offline=yes", copy], capture_output=True, text=True, check=False
        )
        found = re.search(r"exposure level for \S+: ([\d.]+)", rated.stdout)
        assert found is not None, rated.stdout + rated.stderr
        assert float(found[1]) <= MAX_EXPOSURE, copy.name


@pytest.mark.parametrize("role", [Role.EDGE, Role.WORKER])
def test_a_unit_starts_what_there_is_with_its_roles_login(role: Role) -> None:
    (unit,) = [each for each in UNITS if each.name.startswith(f"inferflux-{role}")]
    found = directives(unit)
    variable, _, value = found["Environment"].partition("=")
    secrets = environment("edge.env.example") if role is Role.EDGE else {}
    assert ("EnvironmentFile" in found) is bool(secrets)
    files = {"/etc/inferflux/server.yaml": DEPLOY / "systemd" / "server.yaml"}
    started = read_command(words(unit), {variable: value, **secrets}, files)
    assert started.path == (str(role),)
    assert started.settings.nats.credentials == Path(f"/etc/inferflux/creds/{role}")
    assert started.settings.data_dir == Path("/var/lib") / found["StateDirectory"]
    if role is Role.EDGE:
        assert int(found["TimeoutStopSec"]) >= started.settings.server.drain_timeout_s + FAREWELL_S
        assert started.settings.server.drain_timeout_s == DRAIN_TIMEOUT_S.default
    else:
        assert started.params["only"] == ("smollm2-135m",)
        assert "smollm2-135m" in {model.id for model in started.settings.models}


def test_the_brokers_unit_tells_it_all_that_its_configuration_reads() -> None:
    (unit,) = [each for each in UNITS if "nats" in each.name]
    told = environment("nats.env.example")
    assert broker_variables(DEPLOY / "nats" / "server.conf") == set(told)
    assert told["NATS_STORE"] == f"/var/lib/{directives(unit)['StateDirectory']}"
    assert words(unit)[0] == f"{PROGRAMS}/nats-server"


def test_whoever_is_named_by_another_exists() -> None:
    names = {unit.name for unit in UNITS}
    for unit in UNITS:
        after = directives(unit)["After"].split()
        assert {name for name in after if name.startswith("inferflux")} <= names
