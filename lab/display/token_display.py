"""A text with its tokens side by side in colours, for a notebook or a terminal."""

import os
import sys
import unicodedata
from dataclasses import dataclass
from html import escape

# Okabe and Ito's colours, which colour-blind readers can tell apart; translucent, for light and dark pages.
HUES = ("230,159,0", "86,180,233", "204,121,167", "0,158,115", "240,228,66")
TERMINAL_HUES = (215, 117, 218, 115, 228)  # much the same among xterm's 256 colours, pale under black letters
MOST_SHOWN = 5_000  # tokens; a browser is slow with many more

BOX = (
    "border:1px solid rgba(128,128,128,.65);border-radius:3px;padding:1px 0;"
    "box-decoration-break:clone;-webkit-box-decoration-break:clone"
)
CONTROLS = {chr(code): chr(0x2400 + code) for code in range(32)}  # Unicode's pictures of them: ␀ ␁ ␂
MARKS = CONTROLS | {" ": "·", "\n": "⏎", "\t": "⇥", "\x7f": "␡"}


@dataclass(frozen=True)
class TokenDisplay:
    """The tokens of a text: boxes in a notebook, colours in a terminal, bars where there are no colours."""

    tokenizer: str
    ids: tuple[int, ...]
    tokens: tuple[bytes, ...]

    @property
    def header(self) -> str:
        count, size = len(self.ids), sum(map(len, self.tokens))
        parts = [self.tokenizer, f"{count:,} token{'s' * (count != 1)}", f"{size:,} byte{'s' * (size != 1)}"]
        if count:
            parts.append(f"{size / count:.2f} bytes per token")
        if count > MOST_SHOWN:
            parts.append(f"the first {MOST_SHOWN:,} tokens shown")
        return " · ".join(parts)

    def _repr_html_(self) -> str:
        shown = zip(self.ids[:MOST_SHOWN], self.tokens)
        boxes = "".join(_box(id, token, HUES[i % len(HUES)]) for i, (id, token) in enumerate(shown))
        return (
            f'<div style="line-height:1.9"><div style="opacity:.75">{escape(self.header)}</div>'
            '<div style="font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere">'
            f"{boxes}</div></div>"
        )

    def __str__(self) -> str:
        shown = [readable(token) for token in self.tokens[:MOST_SHOWN]]
        if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
            return f"{self.header}\n" + "".join(f"│{text}" for text in shown) + "│" * bool(shown)
        colours = (TERMINAL_HUES[i % len(TERMINAL_HUES)] for i in range(len(shown)))
        return f"{self.header}\n" + "".join(map(_paint, shown, colours))


def show_tokens(text: str, tokenizer) -> TokenDisplay:
    """`text` as `tokenizer` cuts it, with the counts of tokens and bytes. Raises what `encode` raises."""
    ids = tuple(tokenizer.encode(text))
    return TokenDisplay(tokenizer.name, ids, tuple(map(tokenizer.token_bytes, ids)))


def readable(token: bytes) -> str:
    """A token's text with visible marks for spaces and controls; bytes that form no character as ⟨E2 80⟩.

    A newline is marked and kept."""
    try:
        text = token.decode("utf-8")
    except UnicodeDecodeError:
        return f"⟨{token.hex(' ').upper()}⟩"
    return "".join(map(_mark, text))


def _mark(character: str) -> str:
    if character == "\n":
        return MARKS[character] + "\n"
    if character in MARKS:
        return MARKS[character]
    if not character.isprintable():
        return f"⟨U+{ord(character):04X}⟩"
    return f"◌{character}" if unicodedata.combining(character) else character


def _box(id: int, token: bytes, hue: str) -> str:
    text = readable(token)
    inside = text.removesuffix("\n")  # a line break at the end would draw an empty box on the next line
    can_wrap = "<wbr>" if inside.startswith(MARKS[" "]) else ""
    title = escape(f"id {id}: {token!r}")
    box = f'<span title="{title}" style="background:rgba({hue},.3);{BOX}">{escape(inside)}</span>'
    return can_wrap + box + text[len(inside) :]


def _paint(text: str, colour: int) -> str:
    inside = text.removesuffix("\n")  # nor would the colour stop at a line's end
    return f"\x1b[48;5;{colour}m\x1b[38;5;16m{inside}\x1b[0m" + text[len(inside) :]
