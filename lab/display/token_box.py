"""A token as text that people can read, and as a coloured box in HTML."""

import unicodedata
from html import escape

from lab.display.palette import GREY, translucent

# Unicode's pictures of control characters: ␀ ␁ ␂
CONTROLS = {chr(code): chr(0x2400 + code) for code in range(32)}
MARKS = CONTROLS | {" ": "·", "\n": "⏎", "\t": "⇥", "\x7f": "␡"}
STYLE = (
    f"border:1px solid {translucent(GREY, 0.65)};border-radius:3px;padding:1px 0;"
    "box-decoration-break:clone;-webkit-box-decoration-break:clone"
)


def readable(token: bytes) -> str:
    """A token's text with visible marks for spaces and controls; bytes that form no character as ⟨E2 80⟩.

    A newline is marked and kept.
    """
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return f"⟨{token.hex(' ').upper()}⟩"
    return "".join(map(_mark, text))


def visible(piece: str) -> str:
    """A token's text with its controls marked and its spaces left as they are, so that it reads as text."""
    return " ".join(readable(part.encode()) for part in piece.split(" "))


def split_end(text: str) -> tuple[str, str]:
    """The text and the line break at its end, "" where there is none.

    Colours, boxes and marks go around the text alone. A box around the line break would draw an empty box on the next
    line.
    """
    inside = text.removesuffix("\n")
    return inside, text[len(inside) :]


def token_box(text: str, title: str, background: str = "", *, note: str = "", style: str = "") -> str:
    """`text` in a box on a translucent colour, as HTML; the title shows when the pointer is over it.

    note: small text after it. style: more CSS.
    """
    inside, end = split_end(text)
    css = ";".join(filter(None, [f"background:{background}" if background else "", STYLE, style]))
    below = f"<sub>{escape(note)}</sub>" if note else ""
    return f'<span title="{escape(title)}" style="{css}">{escape(inside)}{below}</span>{end}'


def _mark(character: str) -> str:
    if character == "\n":
        return MARKS[character] + "\n"
    if character in MARKS:
        return MARKS[character]
    if not character.isprintable():
        return f"⟨U+{ord(character):04X}⟩"
    return f"◌{character}" if unicodedata.combining(character) else character
