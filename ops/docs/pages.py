"""All generated pages, by file name."""

from ops.docs.api_page import api_page
from ops.docs.cli_page import cli_page
from ops.docs.config_page import config_page


def pages() -> dict[str, str]:
    return {"config.md": config_page(), "cli.md": cli_page(), "openapi.json": api_page()}
