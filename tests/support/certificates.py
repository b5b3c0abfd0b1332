"""Certificates of an authority of the test's own, as files."""

from pathlib import Path
from typing import NamedTuple

import trustme


class Certificate(NamedTuple):
    """PEM files; `both` holds certificate and key."""

    cert: Path
    key: Path
    both: Path


class Authority:
    """Signs for 127.0.0.1 and localhost, unless told otherwise. `ca` is its own certificate."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self._name = name
        self._authority = trustme.CA()
        self.ca = directory / f"{name}.pem"
        self._authority.cert_pem.write_to_path(self.ca)

    def issue(self, name: str, *hosts: str) -> Certificate:
        """A certificate in `<name>.pem` and its key in `<name>-key.pem`, put in place of what is there."""
        issued = self._authority.issue_cert(*(hosts or ("127.0.0.1", "localhost", "::1")))
        found = Certificate(*(self._directory / f"{name}{end}.pem" for end in ("", "-key", "-both")))
        chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
        _put(found.key, issued.private_key_pem.bytes())
        _put(found.both, issued.private_key_pem.bytes() + chain)
        _put(found.cert, chain)
        return found


def _put(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_bytes(data)
    temporary.replace(path)
