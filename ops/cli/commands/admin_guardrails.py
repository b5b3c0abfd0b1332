"""`inferctl admin guardrails`."""

from typing import TYPE_CHECKING, Any

import click

from ops.cli.answers import print_json
from ops.cli.client_options import client_options

if TYPE_CHECKING:
    from ops.client.client import Client

_PATH = "/v1/admin/guardrails"
_CLEARED: dict[str, Any] = {"blocklist": [], "patterns": [], "opa_endpoint": None}
COLUMNS = ("guardrail", "value", "source")


@click.command()
@click.option("--list", "lists", is_flag=True, help="Show what holds. Also without any option.")
@click.option("--set", "words", metavar="A,B", help="The blocklist: words and phrases with commas between them.")
@click.option("--pattern", "patterns", multiple=True, metavar="RE2", help="The patterns; once for each.")
@click.option("--opa", "opa_endpoint", metavar="URL", help="Who decides on requests; empty for nobody.")
@click.option("--opa-timeout", "opa_timeout_s", type=click.FloatRange(0, 60, min_open=True), metavar="SECONDS")
@click.option("--fail-open/--fail-closed", default=None, help="Whether requests pass that nobody could decide on.")
@click.option("--clear", is_flag=True, help="Nothing is blocked and nobody asked.")
@client_options
def command(client: "Client", as_json: bool, lists: bool, clear: bool, **given: Any) -> None:
    """Show or change what prompts and answers may not hold, for all edges at once.

    \b
      inferctl admin guardrails --list
      inferctl admin guardrails --set "internal only,project x" --pattern '\\b\\d{3}-\\d{2}-\\d{4}\\b'
      inferctl admin guardrails --opa file:///etc/inferflux/policy.rego
      inferctl admin guardrails --clear

    What no option names stays as it is.
    """
    change = _change(**given)
    if sum((lists, clear, bool(change))) > 1:
        raise click.UsageError("--list, --clear and changes exclude each other.")
    changed = _CLEARED if clear else change
    shown = client.put(_PATH, changed) if changed else client.get(_PATH)
    if as_json:
        print_json(shown)
        return
    from ops.cli.tables import print_table

    fields = ("blocklist", "patterns", "opa_endpoint", "opa_timeout_s", "fail_open")
    print_table(COLUMNS, [(name, _text(shown[name]), shown["source"]) for name in fields])


def _change(
    words: str | None,
    patterns: tuple[str, ...],
    opa_endpoint: str | None,
    opa_timeout_s: float | None,
    fail_open: bool | None,
) -> dict[str, Any]:
    change: dict[str, Any] = {}
    if words is not None:
        change["blocklist"] = [word.strip() for word in words.split(",") if word.strip()]
    if patterns:
        change["patterns"] = list(patterns)
    if opa_endpoint is not None:
        change["opa_endpoint"] = opa_endpoint or None
    if opa_timeout_s is not None:
        change["opa_timeout_s"] = opa_timeout_s
    if fail_open is not None:
        change["fail_open"] = fail_open
    return change


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(value)
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
