"""The colours of all pictures and of all HTML, each written once.

Most are Okabe and Ito's (jfly.uni-koeln.de/color), which colour-blind readers can tell apart. Nothing relies on colour
alone. matplotlib takes the hex form; HTML takes `translucent`, which suits light and dark pages.
"""

BLUE, VERMILLION, SKY, GREEN = "#0072B2", "#D55E00", "#56B4E9", "#009E73"
PINK, ORANGE, YELLOW, GREY = "#CC79A7", "#E69F00", "#F0E442", "#808080"
WINE, INDIGO = "#882255", "#332288"  # Paul Tol's, for pictures with more lines

INK, FAINT, CARD = "#222222", "#d4d4d0", "#f5f5f2"  # text and lines, grid and missing cells, background of a picture
PROBABLE = "#288CD2"  # behind a token, the stronger the more probable
FOR, AGAINST = PROBABLE, VERMILLION  # behind a token that raises a logit, or lowers it
FIRST, SECOND = BLUE, VERMILLION  # of two models that are compared
WRONG = VERMILLION
NEIGHBOURS = (ORANGE, SKY, PINK, GREEN, YELLOW)  # tokens side by side, in turn
LINES = (BLUE, VERMILLION, SKY, GREEN, PINK, INK, ORANGE, WINE, INDIGO)  # lines of one picture, in turn
# Words of source code. They are mixed with the page's text colour: no single colour is readable on light and dark.
SYNTAX = {
    "keyword": "#9b5de5", "comment": "#777777", "string": "#2e8540", "number": "#c4570f", "definition": "#3177c9",
    "decorator": "#b5589a", "builtin": "#1f8080",
}


def translucent(colour: str, opacity: float) -> str:
    """`#0072B2` as `rgba(0,114,178,0.3)`, for HTML and SVG."""
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity:g})"
