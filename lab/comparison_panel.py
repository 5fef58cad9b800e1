"""The curves of a comparison under one's fingers: axes, scales, smoothing, and the values at any place.

The values appear where the mouse rests on the picture, without a line of JavaScript, and for keyboard and touch in a
table below, at the place of a slider.
"""

import base64
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from config import GlassboxError
from lab.comparison_plots import AXES, LOSSES, Line, curves
from lab.plot_style import INK, Picture

if TYPE_CHECKING:
    import ipywidgets

    from lab.comparison import Comparison

Bands = Sequence[tuple[Line, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]]  # as Line.band gives them

STRIPS = 100
PLACE = {
    "steps": "step {:,.0f}", "tokens": "{:,.0f} tokens", "seconds": "{:,.1f} s of training",
    "flops": "{:.3e} training FLOPs",
}  # fmt: skip


def curves_panel(comparison: "Comparison") -> "ipywidgets.VBox":
    """Choices above, the picture with a line at the slider's place, and the values there; or why it can't be drawn."""
    import ipywidgets as widgets

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
            lines = comparison.lines(y.value, None if usual.value else smoothing.value)
            bands = [(line, line.band(x.value)) for line in lines]
            end = max((at[-1] for _, (at, *_) in bands if len(at)), default=0.0)
            mark = end * place.value / 100
            picture = curves(
                lines, comparison.floors(), x.value, y.value, comparison.unit, log_x=log_x.value, log_y=log_y.value,
                mark=mark if place.value < 100 and (mark > 0 or not log_x.value) else None,
            )  # fmt: skip
        except GlassboxError as error:
            shown.value, values.value = "", f"<b>{escape(str(error))}</b>"
            return
        shown.value = hoverable(picture, bands, x.value, comparison.unit)
        values.value = as_table(bands, x.value, mark, comparison.unit)

    for control in (x, y, log_x, log_y, usual, smoothing, place):
        control.observe(draw, "value")
    draw(None)
    choices = widgets.HBox([x, y]), widgets.HBox([log_x, log_y, usual]), smoothing, place
    return widgets.VBox([*choices, shown, values])


def values_at(bands: Bands, mark: float) -> list[tuple[float, str, str]]:
    """What each line says at `mark`, the lowest first: value, name, the span of its seeds. A line that has not been
    there is not among them."""
    found = []
    for line, (at, mean, low, high) in bands:
        if len(at) and at[0] <= mark <= at[-1] * (1 + 1e-9):
            value, least, most = (float(np.interp(mark, at, side)) for side in (mean, low, high))
            found.append((value, line.name, f"{least:.4f} to {most:.4f}" if len(line.members) > 1 else ""))
    return sorted(found)


def as_table(bands: Bands, x: str, mark: float, unit: str) -> str:
    """The values at `mark` as an HTML table."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{value:.4f}</td><td>{span}</td></tr>"
        for value, name, span in values_at(bands, mark)
    )
    return f"<table><tr><th>{PLACE[x].format(mark)}</th><th>{unit}</th><th>seeds</th></tr>{rows}</table>"


def as_text(bands: Bands, x: str, mark: float, unit: str) -> str:
    """The values at `mark`, a line each, below the place and the unit."""
    rows = (f"{value:.4f}  {name}" + f"  ({span})" * bool(span) for value, name, span in values_at(bands, mark))
    return "\n".join([f"{PLACE[x].format(mark)}, {unit}", *rows])


def hoverable(picture: Picture, bands: Bands, x: str, unit: str) -> str:
    """The picture as HTML, STRIPS strips side by side over its axes: the mouse over one is told the values at its
    middle, which a thin line marks."""
    (plot,) = picture.figure.axes
    area = plot.get_position()  # in shares of the picture, so that the strips grow and shrink with it
    middles = np.stack([(np.arange(STRIPS) + 0.5) / STRIPS, np.full(STRIPS, 0.5)], axis=1)
    marks = (plot.transAxes - plot.transData).transform(middles)[:, 0]
    strips = "".join(f'<i style="flex:1" title="{escape(as_text(bands, x, mark, unit))}"></i>' for mark in marks)
    png = base64.b64encode(picture.png).decode()
    return (
        f"<style>.glassbox-strips>i:hover{{background:linear-gradient({INK},{INK}) center/1px 100% no-repeat}}</style>"
        f'<div style="position:relative;max-width:{picture.width}px">'
        f'<img src="data:image/png;base64,{png}" alt="{escape(picture.description)}" style="display:block;width:100%">'
        f'<div class="glassbox-strips" style="position:absolute;display:flex;left:{area.x0:.3%};top:{1 - area.y1:.3%};'
        f'width:{area.width:.3%};height:{area.height:.3%}">{strips}</div></div>'
    )
