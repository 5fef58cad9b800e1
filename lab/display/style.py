"""The look of all pictures: a light card, the same on light and dark pages.

A figure is drawn in this style whatever the user's own rcParams say, and leaves those as they were.
"""

import base64
import functools
import io
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from pathlib import Path

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.ticker import LogFormatter, LogFormatterMathtext
from PIL import Image

from lab.display.palette import CARD, FAINT, INK, LINES
from lab.files.atomic import atomic_write_bytes
from settings.errors import GlassboxError

DASHES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D", "v", "X", "P")
MOST_LINES = 60  # of one picture: more can't be told apart
FONT = "DejaVu Sans"  # comes with matplotlib, so every machine draws the same picture
STYLE = {
    "font.family": FONT, "font.size": 10, "text.parse_math": False,
    "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left",
    "figure.constrained_layout.w_pad": 0.12, "figure.constrained_layout.h_pad": 0.06,
    "figure.facecolor": CARD, "axes.facecolor": CARD, "savefig.facecolor": CARD, "axes.edgecolor": INK,
    "text.color": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": FAINT, "grid.linewidth": 0.7,
    "legend.frameon": False, "legend.fontsize": 9,
}
WIDTH = 7.2  # inches: fits a notebook's column without shrinking
CSS_DPI = 96  # pixels per inch of an HTML page
SHARPNESS = 2  # drawn pixels per pixel of the page, for fine screens
PNG_COLOURS = 64  # a third of the size of full colour, without a visible difference


class PlotError(GlassboxError, ValueError):
    """Numbers that can't be drawn."""


class Picture:
    """A drawn figure: one PNG in a notebook, its description everywhere else."""

    def __init__(self, figure: Figure, description: str):
        self.figure, self.description = figure, description
        _write_plain_ticks(figure)
        figure.set_dpi(CSS_DPI * SHARPNESS)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
        buffer = io.BytesIO()
        self.width, self.height = pixels.width // SHARPNESS, pixels.height // SHARPNESS
        pixels.quantize(PNG_COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(buffer, "PNG")
        self.png = buffer.getvalue()

    def __repr__(self) -> str:
        return self.description

    def _repr_png_(self) -> tuple[bytes, dict]:
        return self.png, {"width": self.width, "height": self.height, "alt": self.description}

    @property
    def html(self) -> str:
        """An HTML image with the PNG inside, as wide as it was drawn, or narrower where there is less room."""
        source = f"data:image/png;base64,{base64.b64encode(self.png).decode()}"
        style = f"display:block;width:100%;max-width:{self.width}px"
        return f'<img src="{source}" alt="{escape(self.description)}" style="{style}">'

    def save(self, path: Path | str) -> None:
        """Writes the PNG atomically."""
        atomic_write_bytes(path, self.png)


class PlainLog(LogFormatter):
    """Writes 0.2 and 3000, at the ticks that LogFormatter labels."""

    def __call__(self, value: float, position: int | None = None) -> str:
        return f"{value:g}" if super().__call__(value, position) else ""


def _write_plain_ticks(figure: Figure) -> None:
    """Labels logarithmic axes with plain digits. matplotlib's own labels are formulas, and STYLE turns formulas off."""
    for axis in (axis for plot in figure.axes for axis in (plot.xaxis, plot.yaxis)):
        for formatter, set_formatter in (
            (axis.get_major_formatter(), axis.set_major_formatter),
            (axis.get_minor_formatter(), axis.set_minor_formatter),
        ):
            if isinstance(formatter, LogFormatterMathtext):
                same = dict(labelOnlyBase=formatter.labelOnlyBase, minor_thresholds=formatter.minor_thresholds)
                set_formatter(PlainLog(axis.get_transform().base, **same))


@contextmanager
def panels(
    height: float, columns: int, margins: dict[str, float] | None = None, rows: int = 1
) -> Iterator[list[Axes]]:
    """Yields empty axes, row by row, in a figure `height` inches high. Make the Picture inside the `with`.

    margins: where the sides of the axes are, as shares of the figure; None fits them to the labels and takes twice as
    long.
    """
    with matplotlib.style.context(["default", STYLE]):
        figure = Figure(figsize=(WIDTH, height), layout=None if margins else "constrained")
        if margins:
            figure.subplots_adjust(**margins)
        yield list(figure.subplots(rows, columns, squeeze=False).flat)


@contextmanager
def axes(height: float, title: str, margins: dict[str, float] | None = None) -> Iterator[Axes]:
    """Yields the axes of a figure with one panel and a title."""
    with panels(height, 1, margins) as (drawn,):
        drawn.set_title(drawable(title))
        yield drawn


def series(i: int) -> dict:
    """Colour, dash and marker of line i: no two of the first 63 share both colour and marker."""
    return dict(color=LINES[i % len(LINES)], linestyle=DASHES[i % len(DASHES)], marker=MARKERS[i % len(MARKERS)])


def drawable(text: str, most: int = 76) -> str:
    """`text` cut to `most` characters. Control characters and those that the font lacks become ⟨U+4E2D⟩."""
    known = _characters()
    text = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() and ord(c) in known else f"⟨U+{ord(c):04X}⟩" for c in text)


@functools.cache
def _characters() -> dict[int, int]:
    """The characters that the font can draw, each with its glyph."""
    return get_font(findfont(FONT)).get_charmap()
