"""The API document as a page to read and to try: open to all, as the document is."""

from starlette.requests import Request
from starlette.responses import Response

from producer.edge.entry import not_found
from producer.edge.operation import operation
from producer.edge.static_files import static_file
from schemas.errors import ErrorCode

# What the page loads. The explorer is as its makers publish it: openapi-explorer.json says what it is.
_PARTS = frozenset({"docs.js", "openapi-explorer.min.js"})
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        # The explorer writes style elements and attributes of its own, and so does the page.
        "style-src 'unsafe-inline'",
        "connect-src 'self'",
        # The empty icon, so that browsers ask for none.
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
# No page that opened this one may reach into it: it holds a key.
_HEADERS = {"content-security-policy": _POLICY, "cross-origin-opener-policy": "same-origin"}


@operation(summary="The API as a page to read and to try", returns="text/html")
async def api_docs(request: Request) -> Response:
    return static_file("docs.html").answer(request, _HEADERS)


@operation(summary="What that page loads", returns="text/javascript", errors=(ErrorCode.ROUTE_NOT_FOUND,))
async def api_docs_part(request: Request) -> Response:
    name = request.path_params["name"]
    if name not in _PARTS:
        raise not_found(request.url.path)
    return static_file(name).answer(request)
