"""The file of logins, and what is sent from it."""

import json
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ops.client.client import Client
from ops.client.login.credentials import Credentials, Login, server_name, user_credentials
from ops.client.login.stored_token import StoredToken
from ops.errors import Failure
from tests.support.ports import free_port

SERVER = "localhost:8080"


def login(**changes: Any) -> Login:
    fields = {"issuer": "https://i.test", "client_id": "cli", "token_endpoint": f"http://127.0.0.1:{free_port()}/token"}
    return Login(**{**fields, "access_token": "secret-access", **changes})


@pytest.fixture
def credentials(tmp_path: Path) -> Credentials:
    return user_credentials({"XDG_CONFIG_HOME": str(tmp_path)})


def keep(credentials: Credentials, login: Login | None, server: str = SERVER) -> None:
    with credentials.changing():
        credentials.put(server, login)


def sent(credentials: Credentials) -> str:
    """The header that a request would carry."""
    request = httpx2.Request("GET", "http://localhost:8080/")
    return next(StoredToken(credentials, SERVER).auth_flow(request)).headers["authorization"]


def test_each_server_has_its_own(credentials: Credentials) -> None:
    assert credentials.get(SERVER) is None
    keep(credentials, login())
    keep(credentials, login(access_token="other"), "b:1")
    first, other = credentials.get(SERVER), credentials.get("b:1")
    assert first is not None and other is not None
    assert (first.access_token, other.access_token) == ("secret-access", "other")
    keep(credentials, None)
    assert (credentials.get(SERVER), credentials.get("b:1")) == (None, other)
    assert server_name("LocalHost", 8080) == SERVER


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"servers": 1}', '{"servers": {"a": 1}}', "\xff"])
def test_a_damaged_file_is_one_line(credentials: Credentials, text: str) -> None:
    credentials.path.parent.mkdir()
    credentials.path.write_bytes(text.encode("latin-1"))
    with pytest.raises(Failure, match="is damaged"):
        credentials.get(SERVER)


def test_without_a_home_there_is_no_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    homeless = user_credentials({})
    assert homeless.get(SERVER) is None
    with pytest.raises(Failure, match="XDG_CONFIG_HOME"), homeless.changing():
        pass
    (tmp_path / "inferflux").touch()
    assert user_credentials({"XDG_CONFIG_HOME": str(tmp_path)}).get(SERVER) is None


def test_an_entry_of_another_version(credentials: Credentials) -> None:
    keep(credentials, login())
    document = json.loads(credentials.path.read_text())
    document["servers"][SERVER]["surprise"] = 1
    credentials.path.write_text(json.dumps(document))
    assert credentials.get(SERVER) is not None
    del document["servers"][SERVER]["issuer"]
    credentials.path.write_text(json.dumps(document))
    with pytest.raises(Failure, match="not complete"):
        credentials.get(SERVER)


def test_a_token_is_sent_while_it_is_valid(credentials: Credentials) -> None:
    for expires_at in (None, time.time() + 600):
        keep(credentials, login(expires_at=expires_at))
        assert sent(credentials) == "Bearer secret-access"
    # It is about to expire and its issuer is away: it may do once more.
    keep(credentials, login(expires_at=time.time() + 20, refresh_token="r"))
    assert sent(credentials) == "Bearer secret-access"


@pytest.mark.parametrize(
    ("stored", "words"),
    [
        (login(expires_at=1.0), "has expired; run inferctl login"),
        (login(expires_at=1.0, refresh_token="secret-refresh"), "cannot be renewed"),
        (None, "not logged in"),
    ],
)
def test_a_token_that_is_over_is_not_sent(credentials: Credentials, stored: Login | None, words: str) -> None:
    keep(credentials, stored)
    with pytest.raises(Failure, match=words) as raised:
        sent(credentials)
    assert "secret" not in str(raised.value)


def test_the_known_key_is_not_sent_beside_a_token(credentials: Credentials) -> None:
    keep(credentials, login())
    with Client("localhost", 8080, None, auth=StoredToken(credentials, SERVER)) as client:
        assert "authorization" not in client._http.headers
