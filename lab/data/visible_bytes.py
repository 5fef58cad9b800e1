"""GPT-2's visible alphabet: each byte as one character, in which tokens are written to files.

The visible characters of Latin-1 are kept; the other bytes are numbered from U+0100 on. So a space is "Ġ" and a newline
"Ċ".
"""

_KEPT = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(256) if byte not in _KEPT]
VISIBLE = {byte: chr(byte) for byte in _KEPT} | {byte: chr(256 + i) for i, byte in enumerate(_OTHERS)}
BYTE_OF = {character: byte for byte, character in VISIBLE.items()}


def to_visible(token: bytes) -> str:
    """Bytes in GPT-2's visible alphabet: b" the" is "Ġthe"."""
    return "".join(map(VISIBLE.__getitem__, token))


def from_visible(text: str) -> bytes:
    """The bytes that `to_visible` wrote. Raises KeyError for a character outside of the alphabet."""
    return bytes(map(BYTE_OF.__getitem__, text))
