"""Guardrails from the settings: taken over, or refused before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest

from ops.errors import CannotStart
from ops.serving.edge import edge_config
from ops.settings.loader import load
from schemas.policy import GuardrailsPolicy


def test_the_edge_is_told_what_the_settings_say(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("true")
    environ = {
        "INFERFLUX_GUARDRAIL_BLOCKLIST": "one word, Another phrase",
        "INFERFLUX_GUARDRAILS__PATTERNS": "a+b",
        "INFERFLUX_OPA_ENDPOINT": f"file://{tmp_path}/p.json",
        "INFERFLUX_GUARDRAILS__OPA_TIMEOUT_S": "2.5",
        "INFERFLUX_GUARDRAILS__FAIL_OPEN": "true",
    }
    assert edge_config(load(environ, {"--data-dir": str(tmp_path)}), "e").guardrails == GuardrailsPolicy(
        blocklist=("one word", "Another phrase"),
        patterns=("a+b",),
        opa_endpoint=f"file://{tmp_path}/p.json",
        opa_timeout_s=2.5,
        fail_open=True,
    )
    assert edge_config(load({}, {"--data-dir": str(tmp_path)}), "e").guardrails == GuardrailsPolicy()


@pytest.mark.parametrize(
    ("variable", "value", "why"),
    [
        ("INFERFLUX_GUARDRAILS__PATTERNS", "fine,(", "guardrails.patterns[1]: missing )"),
        ("INFERFLUX_GUARDRAILS__PATTERNS", "x*", "guardrails.patterns[0]: it matches an empty text"),
        ("INFERFLUX_GUARDRAIL_BLOCKLIST", "x" * 300, "guardrails.blocklist[0]: at most 256"),
        (
            "INFERFLUX_OPA_ENDPOINT",
            "file:///absent/policy.rego",
            "guardrails.opa_endpoint: /absent/policy.rego: No such",
        ),
        ("INFERFLUX_OPA_ENDPOINT", "policy.rego", "guardrails.opa_endpoint: must begin with"),
    ],
)
def test_what_cannot_be_used_stops_the_start(tmp_path: Path, variable: str, value: str, why: str) -> None:
    with pytest.raises(CannotStart) as refused:
        edge_config(load({variable: value}, {"--data-dir": str(tmp_path)}), "e")
    assert why in str(refused.value) and "\n" not in str(refused.value)


def test_a_bad_policy_ends_the_process_with_one_line(tmp_path: Path) -> None:
    rego = tmp_path / "policy.rego"
    rego.write_text("package inferflux\ndecision := nothing.like.this(1)\n")
    command = [sys.executable, "-m", "ops.cli.inferflux", "edge", "--data-dir", str(tmp_path)]
    done = subprocess.run(
        [*command, "--nats-url", "nats://127.0.0.1:1"],
        env={"PATH": "/usr/bin:/bin", "INFERFLUX_OPA_ENDPOINT": f"file://{rego}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3
    (line,) = [line for line in done.stderr.splitlines() if "guardrails" in line]
    assert "policy.rego, line 2: Unknown function: 'nothing.like.this'" in line
