"""`inferctl admin`."""

import click

from ops.cli.program import Entry, LazyGroup

_COMMANDS = "ops.cli.commands"
ENTRIES = {
    "api-keys": Entry(f"{_COMMANDS}.admin_api_keys", "API keys: list, issue, rotate, update, revoke."),
    "models": Entry(f"{_COMMANDS}.admin_models", "Which models are served: load, unload, set the default, list."),
    "policy": Entry(f"{_COMMANDS}.admin_policy", "What is allowed: show, versions, roll back, reset, export, import."),
    "rate-limit": Entry(f"{_COMMANDS}.admin_rate_limit", "What keys, tenants and models may use."),
    "guardrails": Entry(f"{_COMMANDS}.admin_guardrails", "What prompts and answers may not hold."),
    "autoscale": Entry(f"{_COMMANDS}.admin_autoscale", "How many workers models should have, and why."),
    "workers": Entry(f"{_COMMANDS}.admin_workers", "Workers: list, cordon, uncordon, drain."),
    "queues": Entry(f"{_COMMANDS}.admin_queues", "What waits and runs of each model and class."),
    "requests": Entry(f"{_COMMANDS}.admin_requests", "Requests that wait or run: list, cancel."),
    "cache": Entry(f"{_COMMANDS}.admin_cache", "KV of earlier prompts: status, clear, warm."),
    "oidc": Entry(f"{_COMMANDS}.admin_oidc", "Whose tokens are taken, and what they open."),
    "routing": Entry(f"{_COMMANDS}.admin_routing", "The default model, and other names of models."),
    "audit": Entry(f"{_COMMANDS}.admin_audit", "Who did what: list, verify, export."),
}


@click.group(cls=LazyGroup, entries=ENTRIES)
def command() -> None:
    """Administer a running InferFlux, with a key of the scope admin.

    \b
      inferctl admin api-keys issue NAME --scope generate
      inferctl admin api-keys revoke NAME
      inferctl admin models --load ./model.gguf --default
      inferctl admin policy show
      inferctl admin rate-limit --set 60
      inferctl admin autoscale
      inferctl admin audit list

    What is changed here holds for all edges at once, and over restarts.
    """
