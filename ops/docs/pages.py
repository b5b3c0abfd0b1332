"""All generated pages, by file name in docs/."""

from ops.docs.api_page import api_page
from ops.docs.cli_page import cli_page
from ops.docs.config_page import config_page
from ops.docs.dashboard import dashboard
from ops.docs.nats_accounts import nats_accounts


def pages() -> dict[str, str]:
    return {
        "config.md": config_page(),
        "cli.md": cli_page(),
        "openapi.json": api_page(),
        "../ops/deploy/nats/accounts.conf": nats_accounts(),
        "../ops/monitoring/grafana/dashboards/overview.json": dashboard(),
    }
