"""A real OpenID provider (npm's oidc-provider) for tests, and tokens that it did not make."""

import base64
import contextlib
import hmac
import html
import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from tests.support.npm import node_modules

FOLDER = Path(__file__).parent / "oidc_provider"
AUDIENCE = "https://llm.test"
ALGORITHMS = {AUDIENCE: "RS256", f"{AUDIENCE}/ec": "ES256", f"{AUDIENCE}/ed": "EdDSA"}
SERVICE, SERVICE_SECRET = "service", "not-a-secret"
CLI = "inferctl"
CLIENTS = [
    {
        "client_id": SERVICE,
        "client_secret": SERVICE_SECRET,
        "grant_types": ["client_credentials"],
        "redirect_uris": [],
        "response_types": [],
    },
    {
        "client_id": CLI,
        "application_type": "native",
        "token_endpoint_auth_method": "none",
        "grant_types": ["urn:ietf:params:oauth:grant-type:device_code", "refresh_token"],
        "redirect_uris": [],
        "response_types": [],
    },
]

Key = RSAKey | ECKey | OKPKey


class Keys:
    """The private keys of an issuer, by algorithm."""

    def __init__(self, generation: int = 1) -> None:
        def named(algorithm: str) -> dict[str, Any]:
            return {"kid": f"{algorithm}-{generation}", "alg": algorithm, "use": "sig"}

        self.by_algorithm: dict[str, Key] = {
            "RS256": RSAKey.generate_key(2048, named("RS256")),
            "ES256": ECKey.generate_key("P-256", named("ES256")),
            "EdDSA": OKPKey.generate_key("Ed25519", named("EdDSA")),
        }

    def jwks(self, *, private: bool = True) -> dict[str, Any]:
        return {"keys": [key.as_dict(private=private) for key in self.by_algorithm.values()]}


def sign(key: Key, claims: dict[str, Any], algorithm: str = "RS256", **header: Any) -> str:
    """A token of these claims. `header` changes the usual one; None leaves a field out."""
    fields = {"alg": algorithm, "typ": "at+jwt", "kid": key.kid, **header}
    fields = {name: value for name, value in fields.items() if value is not None}
    text = _unsigned(fields, claims)
    return f"{text}.{_encode(JWSRegistry.algorithms[algorithm].sign(text.encode(), key))}"


def sign_with_secret(secret: bytes, claims: dict[str, Any], kid: str) -> str:
    """A token with a signature that whoever has `secret` can make (HS256)."""
    text = _unsigned({"alg": "HS256", "typ": "JWT", "kid": kid}, claims)
    return f"{text}.{_encode(hmac.digest(secret, text.encode(), 'sha256'))}"


def unsigned(claims: dict[str, Any], kid: str, algorithm: str = "none") -> str:
    """A token that says that nobody signed it."""
    return _unsigned({"alg": algorithm, "typ": "JWT", "kid": kid}, claims) + "."


def _unsigned(header: dict[str, Any], claims: dict[str, Any]) -> str:
    return ".".join(_encode(json.dumps(part).encode("utf-8", "surrogatepass")) for part in (header, claims))


def _encode(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def claims(issuer: str, **changes: Any) -> dict[str, Any]:
    """Those of a good token, changed; None leaves one out."""
    now = int(time.time())
    fields = {"iss": issuer, "aud": AUDIENCE, "sub": "alice", "exp": now + 600, "iat": now, "scope": "generate read"}
    return {name: value for name, value in {**fields, **changes}.items() if value is not None}


class Provider:
    """The provider in a process of its own. It forgets all but its keys when it is started again."""

    def __init__(self, folder: Path, keys: Keys, *, port: int = 0, ttl_s: int = 600) -> None:
        self.keys = keys
        self._ttl_s = ttl_s
        self._modules = node_modules(FOLDER)
        self._port = port
        self._log = folder / "provider.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.issuer = ""
        # Of all tokens it makes.
        self.claims: dict[str, Any] = {"tenant": "acme", "models": ["ec*"]}

    def start(self) -> None:
        settings = {
            "port": self._port,
            "jwks": self.keys.jwks(),
            "audiences": ALGORITHMS,
            "clients": CLIENTS,
            "claims": self.claims,
            "interval_s": 1,
            "ttl_s": self._ttl_s,
        }
        environ = {**os.environ, "PROVIDER_MODULES": str(self._modules), "NODE_NO_WARNINGS": "1"}
        with self._log.open("ab") as log:
            command = ["node", str(FOLDER / "server.mjs"), json.dumps(settings)]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, env=environ)
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # It has something to say about versions and development settings first.
            if line.startswith(b'{"issuer"'):
                self.issuer = json.loads(line)["issuer"]
                self._port = int(self.issuer.rpartition(":")[2])
                return
        raise AssertionError(f"the provider did not start:\n{self._log.read_text()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def token(self, audience: str = AUDIENCE, scope: str = "generate read") -> str:
        """An access token for the service client."""
        answer = httpx2.post(
            f"{self.issuer}/token",
            data={"grant_type": "client_credentials", "resource": audience, "scope": scope},
            auth=(SERVICE, SERVICE_SECRET),
            trust_env=False,
        )
        token: str = answer.raise_for_status().json()["access_token"]
        return token

    def sign(self, algorithm: str = "RS256", *, header: dict[str, Any] | None = None, **changes: Any) -> str:
        """A token signed with one of its keys that it would not make."""
        return sign(self.keys.by_algorithm[algorithm], claims(self.issuer, **changes), algorithm, **(header or {}))

    def confirm(self, url: str, account: str = "alice", *, is_refused: bool = False) -> None:
        """What a person does with the address that a login shows: confirm the code, log in, agree; or refuse."""
        with httpx2.Client(follow_redirects=True, trust_env=False) as browser:
            page = _submit(browser, browser.get(url))  # the code, from the address
            page = _submit(browser, page, **({"abort": "yes"} if is_refused else {"confirm": "yes"}))
            while "<form" in page.text and not is_refused:
                page = _submit(browser, page, login=account, password="x")

    def rotate(self, keys: Keys) -> None:
        """Sign with and publish other keys from now on."""
        self.keys = keys
        httpx2.post(f"{self.issuer}/test/jwks", json=keys.jwks(), trust_env=False).raise_for_status()

    def num_requests(self, path: str = "/jwks") -> int:
        """How often it was asked for `path` since it started."""
        counts = httpx2.get(f"{self.issuer}/test/counts", trust_env=False).json()
        return int(counts.get(path, 0))


def _submit(browser: httpx2.Client, page: httpx2.Response, **more: str) -> httpx2.Response:
    """Send the first form of a page with its hidden fields and `more`."""
    page.raise_for_status()
    action = re.search(r'<form[^>]*action="([^"]+)"', page.text)
    assert action is not None, page.text
    hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page.text)
    return browser.post(page.url.join(html.unescape(action[1])), data={**dict(hidden), **more})


@contextlib.contextmanager
def running_provider(folder: Path, keys: Keys, *, port: int = 0, ttl_s: int = 600) -> Iterator[Provider]:
    """`ttl_s`: how long its access tokens are valid."""
    provider = Provider(folder, keys, port=port, ttl_s=ttl_s)
    try:
        provider.start()
        yield provider
    finally:
        provider.stop()
