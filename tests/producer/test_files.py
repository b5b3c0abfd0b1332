"""/v1/files: forms however they come, what is refused, and that nothing of it stays."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.files import CHUNK_BYTES, FileWriter
from broker.subjects import STREAM_FILES
from producer.edge.files.form import FileBegins, Form, FormField
from producer.edge.ids import mint_ordered_id
from schemas.errors import ServingError
from tests.conftest import Broker
from tests.producer.conftest import CONFIG, Edge, running_edge
from tests.support.waiting import until

pytestmark = pytest.mark.nats

BOUNDARY = "frontier"
TYPE = f"multipart/form-data; boundary={BOUNDARY}"
MOST = 1_000_000


@pytest.fixture
async def edge(broker: Broker) -> AsyncIterator[Edge]:
    async with running_edge(broker, replace(CONFIG, max_upload_bytes=MOST)) as edge:
        yield edge


def part(name: str, value: bytes, filename: str | None = None) -> bytes:
    file = f'; filename="{filename}"' if filename is not None else ""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
    return head.encode() + value + b"\r\n"


END = f"--{BOUNDARY}--\r\n".encode()
PURPOSE = part("purpose", b"batch")
FILE = part("file", b"content", "lines.jsonl")


async def send(edge: Edge, body: Any, content_type: str = TYPE) -> httpx2.Response:
    return await edge.client.post("/v1/files", content=body, headers={"content-type": content_type})


async def num_stored(broker: Broker) -> int:
    number: int = (await broker.topology.api(f"STREAM.INFO.{STREAM_FILES}"))["state"]["messages"]
    return number


async def test_a_file_comes_back_as_it_was(edge: Edge) -> None:
    """Of several chunks, its purpose behind it, and with a name that is no plain text."""
    data = bytes(range(256)) * 3000
    sent = await send(edge, part("file", data, "zwölf.jsonl") + PURPOSE + END)
    assert sent.status_code == 200, sent.text
    file = sent.json()
    assert (file["object"], file["bytes"], file["filename"], file["purpose"]) == (
        "file", len(data), "zwölf.jsonl", "batch",
    )  # fmt: skip
    assert file["expires_at"] - file["created_at"] == 7 * 86400
    assert (await edge.client.get(f"/v1/files/{file['id']}")).json() == file
    content = await edge.client.get(f"/v1/files/{file['id']}/content")
    assert content.content == data
    assert content.headers["content-type"].startswith("application/jsonl")


@pytest.mark.parametrize(
    ("body", "says", "param"),
    [
        (FILE + part("purpose", b"fine-tune") + END, "'purpose' must be 'batch'", "purpose"),
        (FILE + END, "'purpose' is required", "purpose"),
        (PURPOSE + END, "'file' is required", "file"),
        (PURPOSE + part("file", b"x") + END, "must be a file", "file"),
        (PURPOSE + part("file", b"", "x") + END, "empty", "file"),
        (PURPOSE + FILE + FILE + END, "twice", "file"),
        (PURPOSE + FILE + part("more", b"x") + END, "known are file, purpose", "more"),
        (PURPOSE + part("expires_after[seconds]", b"3600") + FILE + END, "kept for 7 days", "expires_after"),
        (PURPOSE + FILE, "before its last boundary", None),
        (b"nothing of a form", "no form", None),
        (part("purpose", b"x" * 5000) + END, "longer than 4096", "purpose"),
    ],
)
async def test_what_is_wrong_with_a_form_is_said(
    broker: Broker, edge: Edge, body: bytes, says: str, param: str | None
) -> None:
    told = await send(edge, body)
    assert (told.status_code, told.json()["error"]["param"]) == (400, param)
    assert says in told.json()["error"]["message"]
    assert await num_stored(broker) == 0


async def test_no_form_is_refused(edge: Edge) -> None:
    for content_type in ("application/json", "multipart/form-data", "text/plain"):
        told = await send(edge, FILE, content_type)
        assert told.status_code == 400 and "multipart/form-data" in told.json()["error"]["message"]


async def test_a_file_that_is_too_large_is_refused_and_not_kept(broker: Broker, edge: Edge) -> None:
    """Its size told beforehand, or only seen; one that is just as large as may be is taken."""

    async def unannounced() -> AsyncIterator[bytes]:
        yield PURPOSE
        yield part("file", bytes(MOST + 1), "x")
        yield END

    for body in (PURPOSE + part("file", bytes(2 * MOST), "x") + END, unannounced()):
        told = await send(edge, body)
        assert (told.status_code, told.json()["error"]["code"]) == (413, "payload_too_large")
        assert str(MOST) in told.json()["error"]["message"]
    assert await num_stored(broker) == 0
    assert (await send(edge, PURPOSE + part("file", bytes(MOST), "x") + END)).status_code == 200


async def test_a_client_that_pauses_is_not_waited_for(broker: Broker) -> None:
    async with running_edge(broker, replace(CONFIG, max_upload_bytes=MOST, body_timeout_s=0.5)) as edge:
        reader, writer = await begun(edge)
        told = await reader.read()
        writer.close()
    assert told.startswith(b"HTTP/1.1 400 ") and b"too slowly" in told
    assert await num_stored(broker) == 0


async def begun(edge: Edge) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A client that has sent the first 700,000 bytes of a file, and owes some."""
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.address.port)
    head = f"POST /v1/files HTTP/1.1\r\nhost: x\r\nauthorization: {edge.client.headers['authorization']}\r\n"
    head += f"content-type: {TYPE}\r\ncontent-length: 900000\r\n\r\n"
    writer.write(head.encode() + PURPOSE + part("file", bytes(700_000), "x"))
    return reader, writer


async def test_a_client_that_leaves_leaves_nothing(broker: Broker, edge: Edge) -> None:
    _, writer = await begun(edge)
    await until(lambda: num_stored_is(broker, 2))
    writer.transport.abort()
    await until(lambda: num_stored_is(broker, 0))


async def num_stored_is(broker: Broker, number: int) -> bool:
    return await num_stored(broker) == number


async def test_without_room_a_file_is_refused_and_not_kept(broker: Broker, edge: Edge) -> None:
    config = (await broker.topology.api(f"STREAM.INFO.{STREAM_FILES}"))["config"]
    await broker.topology.api(f"STREAM.UPDATE.{STREAM_FILES}", {**config, "max_bytes": 500_000})
    told = await send(edge, PURPOSE + part("file", bytes(900_000), "x") + END)
    assert (told.status_code, told.json()["error"]["code"]) == (507, "storage_full")
    assert told.headers["x-should-retry"] == "false"
    assert await num_stored(broker) == 0


async def test_what_a_dead_edge_left_of_a_file_makes_room(broker: Broker, edge: Edge) -> None:
    """Not at once: it may be on its way through another edge."""
    for age_s in (3600, 3 * 86400):
        await FileWriter(broker.edge, "default", mint_ordered_id("file-", age_s)).write(bytes(CHUNK_BYTES))
    await until(lambda: num_stored_is(broker, 2))
    config = (await broker.topology.api(f"STREAM.INFO.{STREAM_FILES}"))["config"]
    await broker.topology.api(f"STREAM.UPDATE.{STREAM_FILES}", {**config, "max_bytes": 600_000})
    assert (await send(edge, PURPOSE + part("file", bytes(300_000), "x") + END)).status_code == 507
    await until(lambda: num_stored_is(broker, 1))
    assert (await send(edge, PURPOSE + part("file", bytes(200_000), "x") + END)).status_code == 200


async def test_pages_of_files(edge: Edge) -> None:
    ids = [(await send(edge, PURPOSE + FILE + END)).json()["id"] for _ in range(3)]

    async def listed(query: str) -> dict[str, Any]:
        page: dict[str, Any] = (await edge.client.get(f"/v1/files?{query}")).json()
        return page

    assert [each["id"] for each in (await listed(""))["data"]] == ids[::-1]
    page = await listed("limit=2")
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[2], ids[1]], True)
    page = await listed(f"limit=2&after={page['last_id']}")
    assert ([each["id"] for each in page["data"]], page["has_more"]) == ([ids[0]], False)
    assert [each["id"] for each in (await listed("order=asc&limit=1"))["data"]] == ids[:1]
    assert (await listed("purpose=assistants"))["data"] == []
    for query in ("limit=0", "limit=10001", "order=up", "colour=red"):
        assert (await edge.client.get(f"/v1/files?{query}")).status_code == 400, query
    deleted = await edge.client.delete(f"/v1/files/{ids[1]}")
    assert deleted.json() == {"id": ids[1], "object": "file", "deleted": True}
    assert [each["id"] for each in (await listed(""))["data"]] == [ids[2], ids[0]]
    assert (await edge.client.get(f"/v1/files/{ids[1]}/content")).status_code == 404


@given(st.binary(max_size=200), st.integers(1, 50))
def test_a_form_is_the_same_however_it_is_cut(data: bytes, size: int) -> None:
    body = PURPOSE + part("file", data, "a") + END
    form, content, others = Form(TYPE), b"", list[Any]()
    for start in range(0, len(body), size):
        for piece in form.feed(body[start : start + size]):
            if isinstance(piece, bytes):
                content += piece
            else:
                others.append(piece)
    assert form.has_ended
    if f"\r\n--{BOUNDARY}".encode() not in data:
        assert (content, others) == (data, [FormField("purpose", "batch"), FileBegins("file", "a")])


@given(st.binary(max_size=200))
def test_anything_is_a_form_or_is_refused(data: bytes) -> None:
    for body in (data, f"--{BOUNDARY}\r\n".encode() + data, json.dumps(data.hex()).encode()):
        try:
            list(Form(TYPE).feed(body))
        except ServingError as error:
            assert error.status == 400
