"""Sends the token of `inferctl login` with every request, and renews it before it expires."""

import time
from collections.abc import Generator

import httpx2

from ops.client.login.credentials import Credentials, Login
from ops.client.login.issuer import Issuer, NoAnswer, login_of, post
from ops.errors import Failure

# So long before its end a token is renewed: it must outlive its way to the server, and the clocks' difference.
AHEAD_S = 30.0


class StoredToken(httpx2.Auth):
    """The token of one server, as it stands in the file at the moment."""

    def __init__(self, credentials: Credentials, server: str) -> None:
        self._credentials = credentials
        self._server = server

    def auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Raises Failure: there is no token any more, and there will be none without another login."""
        request.headers["authorization"] = f"Bearer {self._token()}"
        yield request

    def _token(self) -> str:
        login = self._credentials.get(self._server)
        if login is not None and not _is_ending(login):
            return login.access_token
        with self._credentials.changing():
            login = self._credentials.get(self._server)
            if login is None:
                raise Failure(f"not logged in to {self._server}; run inferctl login")
            if _is_ending(login) and login.refresh_token is not None:
                login = self._renew(login)
        if _is_over(login):
            raise Failure(f"the login to {self._server} has expired; run inferctl login")
        return login.access_token

    def _renew(self, login: Login) -> Login:
        fields = {
            "grant_type": "refresh_token",
            "refresh_token": login.refresh_token or "",
            "client_id": login.client_id,
        }
        try:
            is_granted, answer = post(login.token_endpoint, fields)
        except NoAnswer as error:
            if _is_over(login):
                raise Failure(f"the token for {self._server} has expired and cannot be renewed: {error}") from None
            return login
        if not is_granted:
            return login
        issuer = Issuer(login.issuer, login.token_endpoint, None, login.revocation_endpoint)
        renewed = login_of(issuer, login.client_id, answer, login.refresh_token)
        self._credentials.put(self._server, renewed)
        return renewed


def _is_ending(login: Login) -> bool:
    return login.expires_at is not None and time.time() >= login.expires_at - AHEAD_S


def _is_over(login: Login) -> bool:
    return login.expires_at is not None and time.time() >= login.expires_at
