"""What the broker can say no with.

BrokerError
├── BrokerUnavailable   nothing answers, or not in time; trying later can help
│   └── StreamMissing   connected, but the stream is not there: the topology is not applied yet
├── BrokerUnsuitable    it answers, but cannot serve us: too old, no JetStream
│   └── Refused         the role lacks a permission, or the credentials are wrong
├── BrokerTimeout       one request got no answer: its outcome is unknown
│   └── NotConnected    it was not sent
├── NoResponders        nobody listens on the subject
├── WrongSequence       a conditional write lost: another record came first
├── StreamFull          a cap of the stream or the server was reached
├── PayloadTooLarge     above the server's max_payload
├── BlobMissing         a claim-checked body is gone or incomplete
└── ApiError            any other refusal by JetStream, with its codes
"""


class BrokerError(Exception):
    """Base of all broker faults. The text is one line, fit for a terminal."""


class BrokerUnavailable(BrokerError):
    """Nothing answers, or not within the limit."""


class StreamMissing(BrokerUnavailable):
    """The broker answers but the stream does not exist, or has no leader."""


class BrokerUnsuitable(BrokerError):
    """The broker answers but cannot serve us; trying again does not help."""


class Refused(BrokerUnsuitable):
    """Credentials or permissions of the role do not allow it."""


class BrokerTimeout(BrokerError):
    """No answer to one request. Whether it took effect is unknown."""


class NotConnected(BrokerTimeout):
    """The connection is down; nothing was sent, or it was sent and the answer is lost."""


class NoResponders(BrokerError):
    """Nobody listens on the subject."""


class PayloadTooLarge(BrokerError):
    """The message is above the server's `max_payload`."""


class BlobMissing(BrokerError):
    """A claim-checked body is no longer complete in the blob stream."""


class ApiError(BrokerError):
    """JetStream said no. `err_code` is the exact reason, `code` its HTTP-like class."""

    def __init__(self, code: int, err_code: int, description: str) -> None:
        super().__init__(f"{description} (JetStream error {err_code})")
        self.code = code
        self.err_code = err_code
        self.description = description


class WrongSequence(ApiError):
    """A compare-and-set lost; the message was not stored."""


class StreamFull(ApiError):
    """A message, byte or storage cap was reached; the message was not stored."""

    @property
    def is_cap_of_subject(self) -> bool:
        """Whether it is this subject's own cap, and not that the storage is full."""
        return "per subject" in self.description
