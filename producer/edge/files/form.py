"""A form of type multipart/form-data, taken apart as it comes."""

from collections.abc import Iterator
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from producer.edge.errors import invalid
from schemas.errors import ServingError

_MAX_VALUE_BYTES = 4096
_MAX_NAME = 255
_MAX_PARTS = 64


class FormField(NamedTuple):
    """A field that is no file, with its text."""

    name: str
    value: str


class FileBegins(NamedTuple):
    """A file; what it holds follows as bytes, until the next part."""

    name: str
    filename: str


Piece = FormField | FileBegins | bytes


class Form:
    """`feed` it the body and take what that brings. Holds one field, or one piece of the body, at a time."""

    def __init__(self, content_type: str) -> None:
        """Raises ServingError (400) for another type, or one without a boundary."""
        media_type, options = parse_options_header(content_type)
        boundary = options.get(b"boundary", b"")
        if media_type != b"multipart/form-data" or not boundary:
            raise invalid("The body must be a form, with Content-Type: multipart/form-data; boundary=….")
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._on_part_begin,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_header_field": self._on_header_name,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_end": self._on_end,
                },
            )
        except FormParserError as error:
            raise _malformed(error) from None
        self._pieces: list[Piece] = []
        self._header_name = b""
        self._header_value = b""
        self._disposition = b""
        self._name = ""
        self._value = bytearray()
        self._is_file = False
        self._num_parts = 0
        self.has_ended = False

    def feed(self, data: bytes) -> Iterator[Piece]:
        """Raises ServingError (400) for what is no form."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _malformed(error) from None
        pieces, self._pieces = self._pieces, []
        return iter(pieces)

    def _on_part_begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > _MAX_PARTS:
            raise invalid(f"The form has more than {_MAX_PARTS} parts.")
        self._disposition, self._header_name, self._header_value = b"", b"", b""

    def _on_header_name(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        if self._header_name.lower() == b"content-disposition":
            self._disposition = self._header_value
        self._header_name, self._header_value = b"", b""

    def _on_headers_finished(self) -> None:
        kind, options = parse_options_header(self._disposition)
        if kind != b"form-data" or b"name" not in options:
            raise invalid("A part of the form has no Content-Disposition: form-data; name=….")
        self._name = _text(options[b"name"])[:_MAX_NAME]
        self._value.clear()
        self._is_file = b"filename" in options
        if self._is_file:
            self._pieces.append(FileBegins(self._name, _text(options[b"filename"])))

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._is_file:
            self._pieces.append(data[start:end])
            return
        if len(self._value) + end - start > _MAX_VALUE_BYTES:
            raise invalid(f"The field {self._name!r} is longer than {_MAX_VALUE_BYTES} bytes.", self._name)
        self._value += data[start:end]

    def _on_part_end(self) -> None:
        if not self._is_file:
            self._pieces.append(FormField(self._name, _text(bytes(self._value))))

    def _on_end(self) -> None:
        self.has_ended = True


def _text(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _malformed(error: FormParserError) -> ServingError:
    return invalid(f"The body is no form: {error}.")
