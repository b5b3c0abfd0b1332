"""A delivered request with its duties: renew it while working, settle it at the end, or let it go to another worker."""

from collections.abc import Mapping

from broker.bodies import read_body
from broker.connection import Connection
from broker.delivered import Delivered
from broker.headers import EDGE, REQUEST_ID, RequestRef
from broker.subjects import is_valid_id, parse_request
from schemas.codec import CodecError, decode_request
from schemas.requests import GenerateRequest, PriorityClass


class Lease(Delivered):
    """One delivery of one request. Settled by `ack`, `nak` or `term`; left alone it is delivered again after ack_wait.

    Whether this worker still owns the request is not known here but by its Claim: renew and settle only after a
    conditional write of the claim was accepted.
    """

    def __init__(
        self, connection: Connection, subject: str, ack_subject: str, payload: bytes, headers: Mapping[str, str] | None
    ) -> None:
        super().__init__(connection, ack_subject)
        self.subject = subject
        self.payload = payload
        self.headers: Mapping[str, str] = headers or {}
        name = parse_request(subject)
        self.model: str = name.model
        self.priority: PriorityClass = name.priority

    def ref(self) -> RequestRef:
        """Journal of the request, from the headers. Raises CodecError: a message published by hand may have none."""
        return _checked(RequestRef(self.headers.get(EDGE, ""), self.headers.get(REQUEST_ID, "")))

    async def body(self) -> bytes:
        """The request's body, fetched if it was claim-checked. Raises CodecError, BlobMissing, BrokerUnavailable."""
        return await read_body(self._connection, self.headers, self.payload)

    async def request(self) -> GenerateRequest:
        """The decoded request. Raises as `body` does."""
        request = decode_request(await self.body())
        _checked(RequestRef(request.edge, request.request_id))
        return request


def _checked(ref: RequestRef) -> RequestRef:
    for name in ref:
        if not is_valid_id(name):
            raise CodecError(f"not a valid id: {name!r}")
    return ref
