"""The sealed form of the policy document, in the bucket and in files alike.

    header (cleartext, authenticated) | AES-256-GCM of the compressed JSON, with its tag | SHA-256 of all before

The checksum tells damage from a wrong secret, and it protects nothing; the tag does. Of the header the tag binds every
byte: format, how the key is derived, the version of the document, salt and nonce. A key is used with one salt until the
secret changes, with a random nonce for each version, which is safe for more versions than anybody makes (2^32).
"""

import hashlib
import hmac
import secrets
import struct
import zlib
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from producer.policy.errors import Damaged, WrongSecret
from producer.policy.secret import Secret, SecretKind

MAGIC = b"IFXPOL"
FORMAT = 1
SALT_BYTES = 16
_NONCE_BYTES = 12
_CHECK_BYTES = 16
_TAG_BYTES = 16
_CHECKSUM_BYTES = 32
_KEY_BYTES = 32
# magic, format, kind of secret, scrypt's log2(n), r and p, version, salt, check value of the key, nonce
_HEADER = struct.Struct(f">6sBBBBBQ{SALT_BYTES}s{_CHECK_BYTES}s{_NONCE_BYTES}s")
_PURPOSE = b"inferflux policy document"
_MAX_PLAIN_BYTES = 256 * 1024 * 1024


class Derivation(NamedTuple):
    """How a key comes from a secret. The three costs are scrypt's, 0 for a key file, whose bytes are random."""

    kind: SecretKind
    log2_n: int
    r: int
    p: int
    salt: bytes

    @classmethod
    def fresh(cls, kind: SecretKind) -> "Derivation":
        # 32 MiB and a quarter of a second on one core.
        costs = (15, 8, 3) if kind is SecretKind.PASSPHRASE else (0, 0, 0)
        return cls(kind, *costs, secrets.token_bytes(SALT_BYTES))

    def key(self, secret: Secret) -> bytes:
        """Takes long for a passphrase. Raises WrongSecret when the secret is of the other kind."""
        if secret.kind is not self.kind:
            raise WrongSecret(f"it is encrypted with a {self.kind.title}, and a {secret.kind.title} was given")
        if self.kind is SecretKind.KEY_FILE:
            return hmac.digest(secret.value, _PURPOSE + b" key" + self.salt, hashlib.sha256)
        n = 1 << self.log2_n
        room = 256 * self.r * (n + self.p)
        return hashlib.scrypt(secret.value, salt=self.salt, n=n, r=self.r, p=self.p, maxmem=room, dklen=_KEY_BYTES)


class Header(NamedTuple):
    """What can be read without a key."""

    derivation: Derivation
    version: int
    check: bytes
    nonce: bytes


def seal(plaintext: bytes, version: int, derivation: Derivation, key: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    kind, log2_n, r, p, salt = derivation
    header = _HEADER.pack(MAGIC, FORMAT, kind, log2_n, r, p, version, salt, _check(key), nonce)
    sealed = AESGCM(key).encrypt(nonce, zlib.compress(plaintext), header + _PURPOSE)
    body = header + sealed
    return body + hashlib.sha256(body).digest()


def read_header(envelope: bytes) -> Header:
    """Raises Damaged, also when it is something else."""
    if envelope[: len(MAGIC)] != MAGIC:
        raise Damaged("it is not a policy document: its first bytes are others")
    if len(envelope) < _HEADER.size + _TAG_BYTES + _CHECKSUM_BYTES:
        raise Damaged("it is damaged: it ends too early")
    if not hmac.compare_digest(hashlib.sha256(envelope[:-_CHECKSUM_BYTES]).digest(), envelope[-_CHECKSUM_BYTES:]):
        raise Damaged("it is damaged: its checksum does not fit")
    _, form, kind, log2_n, r, p, version, salt, check, nonce = _HEADER.unpack_from(envelope)
    if form != FORMAT:
        raise Damaged(f"it is of format {form}, and this version reads format {FORMAT}")
    # Bounds, since what they cost is spent before anything is known to be genuine.
    costs_fit = log2_n <= 20 and r <= 32 and p <= 16 and (kind != SecretKind.PASSPHRASE or min(log2_n, r, p) > 0)
    if kind not in tuple(SecretKind) or not costs_fit:
        raise Damaged("it has been altered: no key is derived like that")
    return Header(Derivation(SecretKind(kind), log2_n, r, p, salt), version, check, nonce)


def unseal(envelope: bytes, header: Header, key: bytes) -> bytes:
    """The plaintext. Raises WrongSecret, or Damaged when somebody changed it."""
    if not hmac.compare_digest(header.check, _check(key)):
        raise WrongSecret(f"this {header.derivation.kind.title} does not open it")
    authenticated = envelope[: _HEADER.size] + _PURPOSE
    try:
        packed = AESGCM(key).decrypt(header.nonce, envelope[_HEADER.size : -_CHECKSUM_BYTES], authenticated)
    except InvalidTag:
        raise Damaged("it has been altered: its authentication tag does not fit") from None
    return _inflate(packed)


def _inflate(packed: bytes) -> bytes:
    inflating = zlib.decompressobj()
    try:
        plaintext = inflating.decompress(packed, _MAX_PLAIN_BYTES)
    except zlib.error:
        raise Damaged("it holds no document") from None
    if not inflating.eof:
        raise Damaged("it holds no document, or one that is too large")
    return plaintext


def _check(key: bytes) -> bytes:
    """Tells, without the key, whether a key is the right one."""
    return hmac.digest(key, _PURPOSE + b" check", hashlib.sha256)[:_CHECK_BYTES]
