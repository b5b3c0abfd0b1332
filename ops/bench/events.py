"""Server-sent events, pushed: bytes in as they arrive, payloads out as they become whole."""


class EventParser:
    """Reads one stream. Lines end with LF or CR LF, as all the servers under test write them.

    Unlike `ops.client.sse` it is fed instead of pulling, which spares the load generator a task switch per packet.
    """

    __slots__ = ("_data", "_rest")

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        """The data of every event that these bytes complete. Comments and events without data are skipped."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        payloads = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                payloads.append(b"\n".join(self._data))
                self._data.clear()
        return payloads
