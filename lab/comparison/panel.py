"""The curves of a comparison under one's fingers: axes, scales, smoothing, and the values at any place.

The values appear where the mouse rests on the picture, without a line of JavaScript, and for keyboard and touch in a
table below, at the place of a slider.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from lab.comparison.plots import AXES, LOSSES, Line, curves
from lab.display.palette import INK
from lab.display.style import Picture
from settings.errors import GlassboxError

if TYPE_CHECKING:
    import ipywidgets

Bands = Sequence[tuple[Line, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]]  # as Line.band gives them

STRIPS = 100
PLACE = {
    "steps": "step {:,.0f}", "tokens": "{:,.0f} tokens", "seconds": "{:,.1f} s of training",
    "flops": "{:.3e} training FLOPs",
}  # fmt: skip


def curves_panel(
    lines_of: Callable[[str, int | None], list[Line]], floors: dict[str, float], unit: str
) -> "ipywidgets.VBox":
    """Choices above, the picture with a line at the slider's place, and the values there; or why it can't be drawn.

    lines_of: the lines for a kind of loss and a smoothing (None: the usual one).
    """
    import ipywidgets as widgets

    from lab.display.static_twin import Html, WithTwin

    style = {"description_width": "7em"}
    x = widgets.Dropdown(options=list(AXES), description="x", style=style)
    y = widgets.Dropdown(options=list(LOSSES), description="y", style=style)
    log_x = widgets.Checkbox(description="logarithmic x", indent=False)
    log_y = widgets.Checkbox(description="logarithmic y", indent=False)
    usual = widgets.Checkbox(True, description="usual smoothing", indent=False)
    smoothing = widgets.IntSlider(1, 1, 401, 2, description="median of", continuous_update=False, style=style)
    place = widgets.FloatSlider(100, min=0, max=100, step=0.5, description="values at (%)", continuous_update=False,
                                style=style)  # fmt: skip
    shown, values = widgets.HTML(), widgets.HTML()

    def draw(_) -> None:
        smoothing.disabled = usual.value
        try:
            lines = lines_of(y.value, None if usual.value else smoothing.value)
            bands = [(line, line.band(x.value)) for line in lines]
            mark = place_at(bands, place.value / 100)
            picture = curves(
                lines, floors, x.value, y.value, unit, log_x=log_x.value, log_y=log_y.value,
                mark=mark if place.value < 100 else None,
            )  # fmt: skip
        except GlassboxError as error:
            shown.value, values.value = "", f"<b>{escape(str(error))}</b>"
            panel.keep(Html(values.value, str(error)))
            return
        shown.value = hoverable(picture, bands, x.value, unit)
        values.value = as_table(bands, x.value, mark, unit)
        panel.keep(Html(shown.value + values.value, f"{picture!r}\n{as_text(bands, x.value, mark, unit)}"))

    choices = widgets.HBox([x, y]), widgets.HBox([log_x, log_y, usual]), smoothing, place
    panel = WithTwin([*choices, shown, values])
    for control in (x, y, log_x, log_y, usual, smoothing, place):
        control.observe(draw, "value")
    draw(None)
    return panel


def place_at(bands: Bands, share: float) -> float:
    """This share of the longest line, but not before the first value of any."""
    ends = [(at[0], at[-1]) for _, (at, *_) in bands if len(at)]
    return max(min((first for first, _ in ends), default=0.0), share * max((last for _, last in ends), default=0.0))


def values_at(bands: Bands, x: str, mark: float) -> list[tuple[float, str, str, str]]:
    """What each line says at `mark`, the lowest first: value, name, the span of its seeds, and where else this is, for
    a line that had begun later or ended before."""
    found = []
    for line, (at, mean, low, high) in bands:
        if not len(at):
            continue
        place = float(np.clip(mark, at[0], at[-1]))
        value, least, most = (float(np.interp(place, at, side)) for side in (mean, low, high))
        span = f"{least:.4f} to {most:.4f}" if len(line.members) > 1 else ""
        end = "last" if place < mark else "first"
        elsewhere = "" if np.isclose(place, mark) else f"{end}: {PLACE[x].format(place)}"
        found.append((value, line.name, span, elsewhere))
    return sorted(found)


def as_table(bands: Bands, x: str, mark: float, unit: str) -> str:
    """The values at `mark` as an HTML table."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{value:.4f}</td><td>{span}</td><td>{elsewhere}</td></tr>"
        for value, name, span, elsewhere in values_at(bands, x, mark)
    )
    heads = "".join(f"<th>{head}</th>" for head in (PLACE[x].format(mark), unit, "seeds", ""))
    return f"<table><tr>{heads}</tr>{rows}</table>"


def as_text(bands: Bands, x: str, mark: float, unit: str) -> str:
    """The values at `mark`, a line each, below the place and the unit."""
    rows = (
        f"{value:.4f}  {name}" + "".join(f"  ({more})" for more in (span, elsewhere) if more)
        for value, name, span, elsewhere in values_at(bands, x, mark)
    )
    return "\n".join([f"{PLACE[x].format(mark)}, {unit}", *rows])


def hoverable(picture: Picture, bands: Bands, x: str, unit: str) -> str:
    """The picture as HTML, STRIPS strips side by side over its axes: the mouse over one is told the values at its
    middle, which a thin line marks."""
    (plot,) = picture.figure.axes
    area = plot.get_position()  # in shares of the picture, so that the strips grow and shrink with it
    middles = np.stack([(np.arange(STRIPS) + 0.5) / STRIPS, np.full(STRIPS, 0.5)], axis=1)
    marks = (plot.transAxes - plot.transData).transform(middles)[:, 0]
    strips = "".join(f'<i style="flex:1" title="{escape(as_text(bands, x, mark, unit))}"></i>' for mark in marks)
    return (
        f"<style>.glassbox-strips>i:hover{{background:linear-gradient({INK},{INK}) center/1px 100% no-repeat}}</style>"
        f'<div style="position:relative;max-width:{picture.width}px">{picture.html}'
        f'<div class="glassbox-strips" style="position:absolute;display:flex;left:{area.x0:.3%};top:{1 - area.y1:.3%};'
        f'width:{area.width:.3%};height:{area.height:.3%}">{strips}</div></div>'
    )
