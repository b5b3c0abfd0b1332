"""The sealed form of the document: whatever is changed in it is found, and said."""

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from producer.policy.envelope import Derivation, read_header, seal, unseal
from producer.policy.errors import Damaged, NoSecret, PolicyError, WrongSecret
from producer.policy.sealer import Sealer
from producer.policy.secret import Secret, SecretKind
from schemas.policy import LimitSet, LimitsPolicy, PolicyDocument

DOCUMENT = PolicyDocument(limits=LimitsPolicy(per_key=LimitSet(requests_per_minute=7)), changed_by="root")
KEY_FILE = Secret(SecretKind.KEY_FILE, bytes(range(32)))
# As strong as a test needs it.
CHEAP = Derivation(SecretKind.PASSPHRASE, 4, 8, 1, b"0123456789abcdef")


async def _sealed() -> bytes:
    return await Sealer(KEY_FILE).seal(DOCUMENT, 3, None)


async def test_what_is_sealed_is_opened_again() -> None:
    opened = await Sealer(KEY_FILE).open(await _sealed())
    assert (opened.document, opened.version) == (DOCUMENT, 3)


async def test_a_flipped_byte_anywhere_is_found_and_named() -> None:
    envelope, sealer = await _sealed(), Sealer(KEY_FILE)
    for place in range(len(envelope)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(envelope)
            changed[place] ^= flip
            with pytest.raises(Damaged, match=r"damaged|not a policy document"):
                await sealer.open(bytes(changed))


async def test_a_change_by_somebody_who_mends_the_checksum_is_found_too() -> None:
    """Every byte of header, text and tag is authenticated. What it is found by depends on the byte."""
    envelope, sealer = await _sealed(), Sealer(KEY_FILE)
    body = envelope[:-32]
    for place in range(len(body)):
        changed = bytearray(body)
        changed[place] ^= 0x01
        with pytest.raises((Damaged, WrongSecret)):
            await sealer.open(bytes(changed) + sha256(changed).digest())


@given(st.binary(max_size=300), st.integers(0, 2**64 - 1))
def test_any_text_and_version_survive(text: bytes, version: int) -> None:
    key = CHEAP.key(Secret.of_passphrase("a passphrase"))
    envelope = seal(text, version, CHEAP, key)
    header = read_header(envelope)
    assert (header.version, unseal(envelope, header, key)) == (version, text)


@given(st.binary(max_size=400))
def test_anything_else_is_refused(junk: bytes) -> None:
    for data in (junk, b"IFXPOL" + junk):
        with pytest.raises(Damaged):
            read_header(data)


async def test_a_cut_or_longer_file_is_damaged() -> None:
    envelope = await _sealed()
    for data in (*(envelope[:length] for length in range(len(envelope))), envelope + b"\n"):
        with pytest.raises(Damaged):
            await Sealer(KEY_FILE).open(data)


async def test_another_secret_is_told_from_damage() -> None:
    envelope = await _sealed()
    with pytest.raises(WrongSecret, match="this key file does not open it"):
        await Sealer(replace(KEY_FILE, value=bytes(32))).open(envelope)
    with pytest.raises(WrongSecret, match="encrypted with a key file, and a passphrase was given"):
        await Sealer(Secret.of_passphrase("x")).open(envelope)
    with pytest.raises(NoSecret, match="encrypted with a key file, and there is none here"):
        await Sealer(None).open(envelope)


async def test_costs_of_a_strange_header_are_not_paid() -> None:
    secret = Secret.of_passphrase("x")
    for costs in ((21, 8, 1), (15, 33, 1), (15, 8, 17), (0, 8, 1), (15, 0, 1)):
        envelope = seal(b"{}", 1, Derivation(SecretKind.PASSPHRASE, *costs, bytes(16)), bytes(32))
        with pytest.raises(Damaged, match="altered"):
            await Sealer(secret).open(envelope)


async def test_a_document_of_a_later_version_is_not_misread() -> None:
    sealer = Sealer(KEY_FILE)
    derivation = Derivation.fresh(SecretKind.KEY_FILE)
    envelope = seal(b'{"later": 1}', 1, derivation, derivation.key(KEY_FILE))
    with pytest.raises(PolicyError, match="does not understand it: later"):
        await sealer.open(envelope)


def test_no_secret_shows_in_a_repr() -> None:
    assert "planted" not in repr(Secret.of_passphrase("planted"))
