"""A text with its tokens side by side in colours, for a notebook or a terminal."""

import os
import sys
from dataclasses import dataclass

from lab.display.html import render
from lab.display.palette import NEIGHBOURS, translucent
from lab.display.token_box import MARKS, readable, split_end, token_box

TERMINAL_COLOURS = (215, 117, 218, 115, 228)  # the nearest to NEIGHBOURS among xterm's 256, pale under black letters
MOST_SHOWN = 5_000  # tokens; more make a browser slow
PAGE = """
<div style="line-height:1.9"><div style="opacity:.75">{{ header }}</div>
<div style="font-family:monospace;white-space:pre-wrap;overflow-wrap:anywhere">{{ boxes|safe }}</div></div>
"""


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
        boxes = (_box(id, token, NEIGHBOURS[i % len(NEIGHBOURS)]) for i, (id, token) in enumerate(shown))
        return render(PAGE, header=self.header, boxes="".join(boxes))

    def __str__(self) -> str:
        shown = [readable(token) for token in self.tokens[:MOST_SHOWN]]
        if os.environ.get("NO_COLOR") or not sys.stdout.isatty():
            return f"{self.header}\n" + "".join(f"│{text}" for text in shown) + "│" * bool(shown)
        colours = (TERMINAL_COLOURS[i % len(TERMINAL_COLOURS)] for i in range(len(shown)))
        return f"{self.header}\n" + "".join(map(_paint, shown, colours))


def show_tokens(text: str, tokenizer) -> TokenDisplay:
    """`text` as `tokenizer` cuts it, with the counts of tokens and bytes. Raises what `encode` raises."""
    ids = tuple(tokenizer.encode(text))
    return TokenDisplay(tokenizer.name, ids, tuple(map(tokenizer.token_bytes, ids)))


def _box(id: int, token: bytes, colour: str) -> str:
    text = readable(token)
    can_wrap = "<wbr>" if text.startswith(MARKS[" "]) else ""
    return can_wrap + token_box(text, f"id {id}: {token!r}", translucent(colour, 0.3))


def _paint(text: str, colour: int) -> str:
    inside, end = split_end(text)
    return f"\x1b[48;5;{colour}m\x1b[38;5;16m{inside}\x1b[0m{end}"
