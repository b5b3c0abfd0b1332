"""Where an issuer publishes its keys, and the keys."""

from urllib.parse import urlsplit

from producer.auth.oidc.fetching import IssuerUnavailable, fetch_json
from producer.auth.oidc.key_set import KeySet
from schemas.oidc_rules import is_trustworthy

PATH = "/.well-known/openid-configuration"


class Issuer:
    """Asks the issuer, and remembers where its keys are until they are not there."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self._jwks_uri: str | None = None

    async def load_keys(self) -> KeySet:
        """The keys as published now. Raises IssuerUnavailable, also when none of them is of use."""
        jwks_uri, self._jwks_uri = self._jwks_uri, None
        if jwks_uri is None:
            jwks_uri = await self._discover()
        keys = KeySet(await fetch_json(jwks_uri))
        if not len(keys):
            raise IssuerUnavailable(f"{jwks_uri} has no key that can verify a signature")
        self._jwks_uri = jwks_uri
        return keys

    async def _discover(self) -> str:
        document = await fetch_json(self.issuer.rstrip("/") + PATH)
        if document.get("issuer") != self.issuer:
            raise IssuerUnavailable(f"{self.issuer} says that it is another issuer: {document.get('issuer')!r:.200}")
        jwks_uri = document.get("jwks_uri")
        if not isinstance(jwks_uri, str) or not is_trustworthy(jwks_uri):
            raise IssuerUnavailable(f"{self.issuer} names no trustworthy jwks_uri: {jwks_uri!r:.200}")
        if urlsplit(self.issuer).scheme == "https" and urlsplit(jwks_uri).scheme != "https":
            raise IssuerUnavailable(f"{self.issuer} names a jwks_uri without https: {jwks_uri!r:.200}")
        return jwks_uri
