"""The body of a request's message: in it, or claim-checked and elsewhere."""

from collections.abc import Mapping

from broker.blobs import BlobRef, get_blob
from broker.connection import Connection
from broker.headers import BLOB
from schemas.codec import CodecError


async def read_body(connection: Connection, headers: Mapping[str, str], payload: bytes) -> bytes:
    """The body of a message with these headers and payload. Raises CodecError, BlobMissing, BrokerUnavailable."""
    if BLOB not in headers:
        return payload
    try:
        blob = BlobRef.parse(headers[BLOB])
    except ValueError as error:
        raise CodecError(f"header {BLOB}: {error}") from error
    return await get_blob(connection, blob)
