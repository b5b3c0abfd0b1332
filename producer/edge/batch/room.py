"""What of a message is left for a line."""

# Its headers and subject.
_ENVELOPE_BYTES = 4096


def max_line_bytes(max_payload: int) -> int:
    return max_payload - _ENVELOPE_BYTES
