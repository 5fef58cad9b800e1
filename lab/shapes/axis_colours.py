"""Axes in colours: each letter has a hue of its own, and always stands there as a letter too."""

from html import escape

from tracing.axes import ELLIPSIS, Axes
from tracing.glossary import GLOSSARY

# Okabe and Ito's colours, which colour-blind readers can tell apart; translucent, behind letters in the page's own
# colour, for light and dark pages
BLUE, ORANGE, GREEN, PINK = "0,114,178", "230,159,0", "0,158,115", "204,121,167"
VERMILLION, SKY, YELLOW, GREY = "213,94,0", "86,180,233", "240,228,66", "128,128,128"
AXIS_HUE = {  # letters that share one are no neighbours
    "B": BLUE, "T": GREEN, "S": SKY, "C": ORANGE, "H": PINK, "G": YELLOW, "D": VERMILLION, "E": VERMILLION,
    "F": YELLOW, "V": GREY, "N": SKY, "K": PINK, "P": GREEN, "I": ORANGE, "O": GREY,
    "W": SKY, "J": PINK,
}  # fmt: skip
OPACITY = 0.34


def axis_texts(axes: Axes, shape: tuple[int, ...]) -> list[tuple[str, str]]:
    """The pieces of `(B=3, T=17)`, each with the letter that gives it its colour, or ""."""
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


def coloured(axes: Axes, shape: tuple[int, ...]) -> str:
    """`(B=3, T=17, C=40)` as HTML; a letter's meaning shows when it is pointed at."""
    parts = []
    for text, letter in axis_texts(axes, shape):
        style = f"background:rgba({AXIS_HUE[letter]},{OPACITY});border-radius:3px" if letter else ""
        mark = f'<span style="{style}" title="{escape(GLOSSARY[letter])}">{escape(text)}</span>' if letter else ""
        parts.append(mark or escape(text))
    return "".join(parts)
