"""What no client should send, and what it must be answered."""

import json

from hypothesis import strategies as st

from schemas.requests import Endpoint

PATHS = {Endpoint.CHAT: "/v1/chat/completions", Endpoint.COMPLETIONS: "/v1/completions"}


def assert_refused(status: int, body: bytes) -> None:
    assert 400 <= status < 500, body[:500]
    error = json.loads(body)["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] and error["message"]


def post(body: bytes, *lines: str, key: str, path: str = "/v1/chat/completions", length: int | None = None) -> bytes:
    head = [
        f"POST {path} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {key}",
        "Connection: close",
        *lines,
    ]
    if not any(line.lower().startswith("transfer-encoding") for line in lines):
        head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


HUGE: list[tuple[str, bytes]] = [
    ("ten megabytes of text", b'{"messages":[{"role":"user","content":"' + b"x" * 10_000_000 + b'"}]}'),
    ("ten megabytes of label", b'{"user":"' + b"x" * 10_000_000 + b'","messages":[{"role":"user","content":"a"}]}'),
    ("a long label", b'{"user":"' + b"x" * 100_000 + b'","messages":[{"role":"user","content":"a"}]}'),
    ("a long model", b'{"model":"' + b"x" * 100_000 + b'","messages":[{"role":"user","content":"a"}]}'),
    ("a long name", b'{"' + b"x" * 100_000 + b'":1}'),
    ("more text than context", b'{"messages":[{"role":"user","content":"' + b"x" * 900_000 + b'"}]}'),
    ("deep lists", b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    ("deep lists in a part", b'{"messages":[{"role":"user","content":' + b"[" * 900 + b"]" * 900 + b"}]}"),
    ("deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    ("a huge integer", b'{"seed":' + b"9" * 400 + b"}"),
    ("an integer of 65 bits", b'{"seed":18446744073709551616,"messages":[{"role":"user","content":"a"}]}'),
    ("a huge float", b'{"temperature":1e400}'),
    ("a lone surrogate", b'{"messages":[{"role":"user","content":"\\ud83d"}]}'),
    ("bad UTF-8", b'{"messages":[{"role":"user","content":"\xff\xfe"}]}'),
    ("a NUL byte", b'{"messages":[{"role":"user","content":"\x00"}]}'),
    ("NaN", b'{"temperature":NaN}'),
    ("many stops", json.dumps({"messages": [{"role": "user", "content": "a"}], "stop": ["x"] * 100_000}).encode()),
    ("many prompts", json.dumps({"messages": [], "prompt": ["x"] * 100_000}).encode()),
    ("nothing", b""),
]


HEADER_TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=255), max_size=60)
HEADER_NAMES = st.sampled_from(
    [
        "authorization",
        "x-api-key",
        "content-type",
        "content-encoding",
        "idempotency-key",
        "x-request-id",
        "x-client-request-id",
        "x-request-timeout",
        "x-inferflux-on-disconnect",
        "x-inferflux-queue-updates",
        "x-inferflux-journal",
        "origin",
        "accept",
        "expect",
        "cookie",
        "last-event-id",
        "access-control-request-method",
    ]
)


MALFORMED = [
    b"GET / HTTP/9.9\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"G ET / HTTP/1.1\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/completions HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    b"POST /v1/completions HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nBad Header: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nX: " + b"x" * 100_000 + b"\r\n\r\n",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\n" + b"".join(b"X%d: y\r\n" % index for index in range(20_000)) + b"\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
]
