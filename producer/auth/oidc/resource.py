"""What this service tells about itself to programs that want a token for it (RFC 9728). Pure."""

import re

from schemas.oidc_policy import OidcPolicy

PATH = "/.well-known/oauth-protected-resource"
_HOST = re.compile(r"[A-Za-z0-9.-]{1,253}(:[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:[0-9]{1,5})?")


def resource_of(policy: OidcPolicy, scheme: str, host: str | None) -> str | None:
    """The service's address: as configured, else as a request came to it, by scheme and Host header; None when that
    is no host.
    """
    if policy.resource is not None:
        return policy.resource.rstrip("/")
    return f"{scheme}://{host}" if host is not None and _HOST.fullmatch(host) else None


def challenge(policy: OidcPolicy, scheme: str, host: str | None, *, is_bad_token: bool) -> str:
    """The WWW-Authenticate header of a refusal: where to read what to do about it."""
    parts = ['Bearer realm="inferflux"']
    if is_bad_token:
        parts.append('error="invalid_token"')
    resource = resource_of(policy, scheme, host)
    if resource is not None:
        parts.append(f'resource_metadata="{resource}{PATH}"')
    return ", ".join(parts)
