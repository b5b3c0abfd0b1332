"""docs/openapi.json: what a running edge answers at /openapi.json."""

import json

from ops.version import installed_version
from producer.edge.openapi import openapi_document
from producer.edge.routes.table import ROUTES


def api_page() -> str:
    document = openapi_document(ROUTES, installed_version())
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
