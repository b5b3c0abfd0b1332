"""The alphabet in which byte-level vocabularies are written: a printable character for each byte."""


def _alphabet() -> dict[str, int]:
    # The printable bytes of Latin-1 stand for themselves; the others take the code points from 256 on, in order.
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet.update({chr(256 + place): byte for place, byte in enumerate(others)})
    return alphabet


ALPHABET = _alphabet()


def to_bytes(text: str) -> bytes | None:
    """The bytes that a token's text is written for; None when a character is none of the alphabet."""
    try:
        return bytes([ALPHABET[character] for character in text])
    except KeyError:
        return None
