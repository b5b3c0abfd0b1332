"""The url of a broker: where it is, and the login that it may hold."""

from urllib.parse import urlsplit


def bare_url(url: str) -> str:
    """The url without logins, for messages."""
    return ",".join(
        part.split("://")[0] + "://" + part.rpartition("@")[2].rpartition("://")[2] for part in url.split(",")
    )


def login_in(url: str) -> dict[str, str]:
    """The first login of the url: user and password, or a token."""
    for part in map(urlsplit, url.split(",")):
        if part.username is not None and part.password is not None:
            return {"user": part.username, "password": part.password}
        if part.username is not None:
            return {"token": part.username}
    return {}
