"""Every alert fires when what it is about happens, and clears when that is over; promtool is the judge."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.docs.pages import ROOT, anchors

MONITORING = ROOT / "ops" / "monitoring"
RULES = [MONITORING / "recording.yml", MONITORING / "alerts.yml"]
TTFT = 'inferflux_time_to_first_token_seconds_{}model="m",priority="normal"'
EDGE = 'instance="e1",job="inferflux-edge"'


class Scenario(NamedTuple):
    """Series a minute apart, in promtool's notation, and when the alert is looked at."""

    series: dict[str, str]
    labels: dict[str, str]
    fires_at: str
    clears_at: str


def ttft(late: str, all_of_them: str) -> dict[str, str]:
    """First tokens: those within 5 s, and all."""
    return {TTFT.format('bucket{le="5.0",') + "}": late, TTFT.format("count{") + "}": all_of_them}


MODEL = {"model": "m"}
INSTANCE = {"instance": "e1"}
SCENARIOS = {
    "InferFluxEdgeDown": Scenario(
        {f"up{{{EDGE}}}": "1x5 0x10 1x10"}, {**INSTANCE, "job": "inferflux-edge"}, "8m", "20m"
    ),
    "InferFluxNoEdge": Scenario({f"up{{{EDGE}}}": "_x10 1x20"}, {"job": "inferflux-edge"}, "5m", "15m"),
    "InferFluxBrokerUnavailable": Scenario(
        {'inferflux_broker_up{instance="e1"}': "1x5 0x10 1x10"}, INSTANCE, "8m", "20m"
    ),
    "InferFluxNoWorker": Scenario(
        {'inferflux_workers_desired{model="m"}': "1x30", 'inferflux_workers{model="m"}': "1x5 0x10 1x10"},
        MODEL,
        "10m",
        "20m",
    ),
    "InferFluxTooFewWorkers": Scenario(
        {'inferflux_workers_desired{model="m"}': "3x60", 'inferflux_workers{model="m"}': "1x30 3x30"},
        MODEL,
        "20m",
        "40m",
    ),
    "InferFluxQueueOld": Scenario(
        {'inferflux_queue_oldest_age_seconds{model="m",priority="normal"}': "0x5 90x15 0x10"}, MODEL, "15m", "25m"
    ),
    "InferFluxQueueFull": Scenario(
        {'inferflux_requests_total{model="m",code="queue_full"}': "0+30x20 600x20"}, MODEL, "15m", "35m"
    ),
    "InferFluxFirstTokenSlow": Scenario(ttft("0x20 0+60x40", "0+60x60"), MODEL, "15m", "40m"),
    "InferFluxFirstTokenLate": Scenario(ttft("0+54x90 4860+60x120", "0+60x210"), MODEL, "80m", "200m"),
    "InferFluxFailures": Scenario(
        {
            'inferflux_requests_total{model="m",code="ok"}': "0+60x60",
            'inferflux_requests_total{model="m",code="internal"}': "0+6x20 120x40",
        },
        MODEL,
        "15m",
        "40m",
    ),
    "InferFluxDeadLetters": Scenario(
        {'inferflux_dlq_total{model="m",reason="poisoned"}': "0x5 1x60"}, {**MODEL, "reason": "poisoned"}, "10m", "40m"
    ),
    "InferFluxRedeliveries": Scenario({'inferflux_redeliveries_total{model="m"}': "0+3x10 30x30"}, MODEL, "9m", "30m"),
    "InferFluxKvPressure": Scenario(
        {
            'inferflux_kv_pages{model="m",state="reserved"}': "990x30 100x30",
            'inferflux_kv_pages{model="m",state="cached"}': "0x60",
            'inferflux_kv_pages{model="m",state="free"}': "10x30 900x30",
            'inferflux_queue_depth{model="m",priority="normal"}': "4x60",
        },
        MODEL,
        "20m",
        "40m",
    ),
    "InferFluxAuditFailing": Scenario({'inferflux_audit_lost_total{instance="e1"}': "0x5 4x60"}, INSTANCE, "8m", "40m"),
    "InferFluxPolicyFailing": Scenario(
        {'inferflux_guardrail_decisions_total{instance="e1",outcome="failed"}': "0+3x10 30x40"}, INSTANCE, "8m", "40m"
    ),
    "InferFluxKeysGuessed": Scenario(
        {'inferflux_auth_failures_total{instance="e1",reason="invalid_api_key"}': "0+120x20 2400x20"},
        INSTANCE,
        "15m",
        "35m",
    ),
    "InferFluxTracesLost": Scenario(
        {'inferflux_trace_spans_total{instance="e1",outcome="dropped"}': "0+5x30 150x30"}, INSTANCE, "25m", "50m"
    ),
}


def alerts() -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"]}


def test_every_alert_has_a_scenario_and_a_section_of_the_runbook() -> None:
    assert set(alerts()) == set(SCENARIOS)
    for name, rule in alerts().items():
        page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
        assert anchor in anchors(ROOT / page), name
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


@pytest.mark.promtool
def test_every_alert_fires_and_clears(tmp_path: Path) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    document = {
        "rule_files": [str(path) for path in RULES],
        "evaluation_interval": "1m",
        "tests": [promtool_test(name, rule, SCENARIOS[name]) for name, rule in alerts().items()],
    }
    tests = tmp_path / "tests.yml"
    tests.write_text(yaml.safe_dump(document))
    for command in (["check", "rules", *map(str, RULES)], ["test", "rules", str(tests)]):
        done = subprocess.run([promtool, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    config = str(MONITORING / "prometheus.yml")
    subprocess.run([promtool, "check", "config", config], capture_output=True, check=True)


def promtool_test(name: str, rule: dict[str, Any], scenario: Scenario) -> dict[str, Any]:
    annotations = {
        key: re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: scenario.labels[match[1]], text)
        for key, text in rule["annotations"].items()
    }
    fired = {"exp_labels": {**rule["labels"], **scenario.labels}, "exp_annotations": annotations}
    return {
        "name": name,
        "interval": "1m",
        "input_series": [{"series": series, "values": values} for series, values in scenario.series.items()],
        "alert_rule_test": [
            {"eval_time": scenario.fires_at, "alertname": name, "exp_alerts": [fired]},
            {"eval_time": scenario.clears_at, "alertname": name, "exp_alerts": []},
        ],
    }


def expressions() -> dict[str, str]:
    """What dashboards and rules ask Prometheus for, by where it stands."""
    found = {}
    for path in RULES:
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                found[rule.get("alert") or rule["record"]] = rule["expr"]
    for path in sorted((MONITORING / "grafana" / "dashboards").glob("*.json")):
        document = json.loads(path.read_text())
        for panel in document["panels"]:
            for target in panel.get("targets", ()):
                found[f"{path.name}: {panel['title']} {target['refId']}"] = target["expr"]
        for variable in document["templating"]["list"]:
            if variable["type"] == "query":
                found[f"{path.name}: ${variable['name']}"] = variable["query"]["query"]
    return found
