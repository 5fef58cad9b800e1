"""Axes in colours. Each letter has its own colour, and is always written too."""

from html import escape

from lab.display.palette import BLUE, GREEN, GREY, ORANGE, PINK, SKY, VERMILLION, YELLOW, translucent
from tracing.axes import ELLIPSIS, Axes
from tracing.glossary import GLOSSARY

# Letters that share a colour do not stand side by side in a shape
AXIS_COLOURS = {
    "B": BLUE, "T": GREEN, "S": SKY, "C": ORANGE, "H": PINK, "G": YELLOW, "D": VERMILLION, "E": VERMILLION,
    "F": YELLOW, "V": GREY, "N": SKY, "K": PINK, "P": GREEN, "I": ORANGE, "O": GREY, "A": YELLOW, "W": SKY, "J": PINK,
}
OPACITY = 0.34


def axis_texts(axes: Axes, shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """The pieces of `(B=3, T=17)`, each with the letter that decides its colour, "" for none."""
    if axes and axes[0] == ELLIPSIS:
        axes = ("",) * (len(shape) - len(axes) + 1) + axes[1:]
    if len(axes) != len(shape):
        axes = ("",) * len(shape)
    pieces = [("(", "")]
    for index, (axis, n) in enumerate(zip(axes, shape)):
        letter = next((character for character in axis if character in GLOSSARY), "")
        shown = str(n) if not axis or axis.isdigit() else f"{axis}={n}"
        pieces += [(", ", "")] * bool(index) + [(shown, letter)]
    return [*pieces, (")", "")]


def axis_colour(letter: str) -> str:
    return translucent(AXIS_COLOURS[letter], OPACITY)


def axes_html(axes: Axes, shape: tuple[int, ...]) -> str:
    """`(B=3, T=17, C=40)` as HTML. A letter's meaning shows when the pointer is over it."""
    parts = []
    for text, letter in axis_texts(axes, shape):
        style = f"background:{axis_colour(letter)};border-radius:3px" if letter else ""
        mark = f'<span style="{style}" title="{escape(GLOSSARY[letter])}">{escape(text)}</span>' if letter else ""
        parts.append(mark or escape(text))
    return "".join(parts)
