"""Who decides on requests: a file evaluated here, or a server that is asked."""

from pathlib import Path
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from producer.guardrails.decision import Decision
from producer.guardrails.errors import InvalidGuardrails
from producer.guardrails.fixed import FixedDecision
from producer.guardrails.opa_server import OpaServer
from producer.guardrails.rego import DEFAULT_RULE, RegoPolicy

MAX_FILE_BYTES = 10 * 2**20


class PolicyEngine(Protocol):
    async def decide(self, request: dict[str, Any]) -> Decision:
        """Raises NoDecision: asked in vain, or what came back is no decision."""

    async def close(self) -> None: ...


def open_engine(endpoint: str, timeout_s: float) -> PolicyEngine:
    """The engine that an endpoint names. Files are read now. Raises InvalidGuardrails."""
    parts = urlsplit(endpoint)
    if parts.scheme in ("http", "https"):
        return OpaServer(endpoint, timeout_s)
    if parts.scheme != "file":
        raise InvalidGuardrails("opa_endpoint", "must begin with file://, http:// or https://")
    if parts.netloc not in ("", "localhost"):
        raise InvalidGuardrails("opa_endpoint", "a file is file:///path, with three slashes")
    path = Path(unquote(parts.path))
    if path.suffix == ".rego":
        data = _options(parts.query).get("data")
        return RegoPolicy(
            path.name,
            _read(path).decode("utf-8", "replace"),
            parts.fragment or DEFAULT_RULE,
            _read(path.parent / data).decode("utf-8", "replace") if data else "{}",
        )
    if path.suffix == ".json" and not parts.query and not parts.fragment:
        return FixedDecision(_read(path))
    raise InvalidGuardrails("opa_endpoint", "a file must end with .rego or .json")


def _options(query: str) -> dict[str, str]:
    options = dict(parse_qsl(query, keep_blank_values=True))
    if options.keys() - {"data"}:
        raise InvalidGuardrails("opa_endpoint", "a file takes no other option than data=FILE")
    return options


def _read(path: Path) -> bytes:
    """Raises InvalidGuardrails with the path."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise InvalidGuardrails("opa_endpoint", f"{path}: {reason}") from None
    if len(content) > MAX_FILE_BYTES:
        raise InvalidGuardrails("opa_endpoint", f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB")
    return content
