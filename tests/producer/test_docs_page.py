"""The API as a page: what it loads is here, what it may do is written down, and nothing comes from elsewhere."""

import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import httpx2
import pytest

from producer.edge import static_files
from tests.producer.conftest import Edge
from tests.producer.test_browsers import HEADERS

STATIC = Path(static_files.__file__).with_name("static")
OURS = ("docs.html", "docs.js")
ADDRESS = re.compile(r"""(?:\w+:)?//[^\s"'`<>)]+""")


class Page(HTMLParser):
    """What a page loads, what scripts stand in it, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.elements: dict[str, dict[str, str | None]] = {}
        self.inline_scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.elements[given.get("id") or tag] = given
        self.inline_scripts += (tag == "script" and "src" not in given) + sum(name.startswith("on") for name in given)
        if tag in ("script", "link", "openapi-explorer"):
            self.loaded.append(given.get("src") or given.get("href") or given.get("spec-url") or "")


@pytest.fixture
async def stranger(edge: Edge) -> httpx2.AsyncClient:
    del edge.client.headers["authorization"]
    return edge.client


def directives(answer: httpx2.Response) -> dict[str, list[str]]:
    words = [each.split() for each in answer.headers["content-security-policy"].split(";")]
    return {name: sources for name, *sources in words}


@pytest.mark.nats
async def test_the_page_and_all_that_it_loads_are_there_without_a_key(stranger: httpx2.AsyncClient) -> None:
    answer = await stranger.get("/docs")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.text == (await stranger.get("/docs/")).text
    loaded = [each for each in Page(answer.text).loaded if not each.startswith("data:")]
    assert "/openapi.json" in loaded and len(loaded) == 3
    for address in loaded:
        part = await stranger.get(address)
        assert part.status_code == 200
        if address.endswith(".js"):
            assert part.headers["content-type"] == "text/javascript; charset=utf-8"
            assert part.content == (STATIC / address.removeprefix("/docs/")).read_bytes()
    assert (await stranger.get("/")).json()["docs"] == "/docs"


@pytest.mark.nats
async def test_a_page_may_run_our_scripts_and_talk_to_us_alone(stranger: httpx2.AsyncClient) -> None:
    answer = await stranger.get("/docs")
    policy = directives(answer)
    assert policy.pop("style-src") == ["'unsafe-inline'"]  # what the explorer draws with; nothing is fetched by it
    assert policy.pop("img-src") == ["data:"]
    assert policy.pop("script-src") == policy.pop("connect-src") == ["'self'"]
    assert policy == {name: ["'none'"] for name in ("default-src", "base-uri", "form-action", "frame-ancestors")}
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    # Everything else as everywhere; the parts are no pages.
    for path in ("/docs", "/docs/docs.js", "/docs/openapi-explorer.min.js"):
        headers = (await stranger.get(path)).headers
        expected = {**HEADERS, "cache-control": "no-cache"}
        if path == "/docs":
            expected["content-security-policy"] = answer.headers["content-security-policy"]
        assert expected.items() <= dict(headers).items()
        assert all(len(headers.get_list(name)) == 1 for name in expected)


@pytest.mark.nats
async def test_who_has_a_file_is_not_sent_it_again(stranger: httpx2.AsyncClient) -> None:
    for path in ("/docs", "/docs/openapi-explorer.min.js"):
        full = await stranger.get(path)
        tag = full.headers["etag"]
        for known in (tag, f'"other", W/{tag}', "*"):
            again = await stranger.get(path, headers={"if-none-match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
            assert again.headers["cache-control"] == "no-cache"
        for unknown in ("", '"other"', tag.strip('"')):
            assert (await stranger.get(path, headers={"if-none-match": unknown})).content == full.content
        head = await stranger.head(path)
        assert (head.status_code, head.content) == (200, b"")
        assert int(head.headers["content-length"]) == len(full.content)


@pytest.mark.nats
async def test_nothing_else_can_be_had_from_there(stranger: httpx2.AsyncClient) -> None:
    for name in ("nope", "docs.html", "openapi-explorer.json", "..%2Fapp.py", "%2e%2e%2fapp.py", "%00", "docs.js%00"):
        answer = await stranger.get(f"/docs/{name}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "route_not_found")


def test_our_own_part_names_no_other_host_and_keeps_no_key() -> None:
    texts = {name: (STATIC / name).read_text() for name in OURS}
    for name, text in texts.items():
        assert not ADDRESS.findall(text), name
        assert not re.search(r"localStorage|sessionStorage|cookie|indexedDB", text), name
    page = Page(texts["docs.html"])
    assert page.inline_scripts == 0
    assert page.elements["key"]["autocomplete"] == "off" and "name" not in page.elements["key"]
    # Its own fields for keys would be remembered by browsers.
    assert "hide-authentication" in page.elements["openapi-explorer"]


def test_the_explorer_is_the_one_on_record() -> None:
    record = json.loads((STATIC / "openapi-explorer.json").read_text())
    content = (STATIC / record["file"]).read_bytes()
    assert hashlib.sha256(content).hexdigest() == record["sha256"]
    assert f"OpenAPI Explorer {record['version']} ".encode() in content[:200]
    licences = (STATIC / record["license_file"]).read_text()
    assert "Apache License" in licences and record["name"] in licences
    # Examples that it shows, and where a comment or an error message sends a programmer: nothing that is loaded.
    assert set(re.findall(rb"https?://[\w.-]+", content)) == {
        b"http://localhost", b"https://example.com", b"https://github.com", b"https://marked.js.org",
    }  # fmt: skip
