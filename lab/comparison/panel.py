"""The curves of a comparison with controls: axes, scales, smoothing, and the values at any place.

Resting the mouse on the picture shows the values there, without JavaScript. For keyboard and touch they stand in a
table below, at the place of a slider.
"""

from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING

import numpy as np

from lab.comparison.plots import AXES, LOSSES, CurveData, CurveView, Line, curves
from lab.display.palette import INK
from lab.display.style import Picture
from settings.errors import GlassboxError

if TYPE_CHECKING:
    import ipywidgets

STRIPS = 100
PLACE = {
    "steps": "step {:,.0f}", "tokens": "{:,.0f} tokens", "seconds": "{:,.1f} s of training",
    "flops": "{:.3e} training FLOPs",
}


def curves_panel(data_for: Callable[[CurveView], CurveData]) -> "ipywidgets.VBox":
    """Controls above, the picture with a line at the slider's place, and the values there; or why it can't be drawn.

    data_for: what to draw in a view.
    """
    import ipywidgets as widgets

    from lab.display.static_twin import Html, WithTwin

    style = {"description_width": "7em"}
    slow = {"continuous_update": False, "style": style}
    x = widgets.Dropdown(options=list(AXES), description="x", style=style)
    y = widgets.Dropdown(options=list(LOSSES), description="y", style=style)
    log_x = widgets.Checkbox(description="logarithmic x", indent=False)
    log_y = widgets.Checkbox(description="logarithmic y", indent=False)
    usual = widgets.Checkbox(True, description="usual smoothing", indent=False)
    smoothing = widgets.IntSlider(1, 1, 401, 2, description="median of", **slow)
    place = widgets.FloatSlider(100, min=0, max=100, step=0.5, description="values at (%)", **slow)
    shown, values = widgets.HTML(), widgets.HTML()

    def update(_) -> None:
        smoothing.disabled = usual.value
        view = CurveView(x=x.value, y=y.value, log_x=log_x.value, log_y=log_y.value,
                         smoothing=None if usual.value else smoothing.value)
        try:
            data = data_for(view)
            mark = place_at(data.lines, place.value / 100)
            picture = curves(data, view, mark if place.value < 100 else None)
        except GlassboxError as error:
            shown.value, values.value = "", f"<b>{escape(str(error))}</b>"
            panel.keep(Html(values.value, str(error)))
            return
        shown.value = hoverable(picture, data, view.x)
        values.value = values_html(data, view.x, mark)
        panel.keep(Html(shown.value + values.value, f"{picture!r}\n{values_text(data, view.x, mark)}"))

    choices = widgets.HBox([x, y]), widgets.HBox([log_x, log_y, usual]), smoothing, place
    panel = WithTwin([*choices, shown, values])
    for control in (x, y, log_x, log_y, usual, smoothing, place):
        control.observe(update, "value")
    update(None)
    return panel


def place_at(lines: Sequence[Line], share: float) -> float:
    """This share of the longest line, but not before the first value of any."""
    ends = [(line.band.at[0], line.band.at[-1]) for line in lines if len(line.band.at)]
    return max(min((first for first, _ in ends), default=0.0), share * max((last for _, last in ends), default=0.0))


def values_at(lines: Sequence[Line], x: str, mark: float) -> list[tuple[float, str, str, str]]:
    """The values of all lines at `mark`, the lowest first: value, name, the span of its seeds, and the place of the
    value where the line begins later or ends before."""
    found = []
    for line in lines:
        at, *sides = line.band
        if not len(at):
            continue
        place = float(np.clip(mark, at[0], at[-1]))
        value, least, most = (float(np.interp(place, at, side)) for side in sides)
        span = f"{least:.4f} to {most:.4f}" if len(line.runs) > 1 else ""
        end = "last" if place < mark else "first"
        elsewhere = "" if np.isclose(place, mark) else f"{end}: {PLACE[x].format(place)}"
        found.append((value, line.name, span, elsewhere))
    return sorted(found)


def values_html(data: CurveData, x: str, mark: float) -> str:
    """The values at `mark` as an HTML table."""
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{value:.4f}</td><td>{span}</td><td>{elsewhere}</td></tr>"
        for value, name, span, elsewhere in values_at(data.lines, x, mark)
    )
    heads = "".join(f"<th>{head}</th>" for head in (PLACE[x].format(mark), data.unit, "seeds", ""))
    return f"<table><tr>{heads}</tr>{rows}</table>"


def values_text(data: CurveData, x: str, mark: float) -> str:
    """The values at `mark`, a line each, below the place and the unit."""
    rows = (
        f"{value:.4f}  {name}" + "".join(f"  ({more})" for more in (span, elsewhere) if more)
        for value, name, span, elsewhere in values_at(data.lines, x, mark)
    )
    return "\n".join([f"{PLACE[x].format(mark)}, {data.unit}", *rows])


def hoverable(picture: Picture, data: CurveData, x: str) -> str:
    """The picture as HTML, with STRIPS strips side by side over its axes. Under the mouse, a strip shows the values at
    its middle and marks it by a thin line."""
    (plot,) = picture.figure.axes
    area = plot.get_position()  # in shares of the picture, so that the strips grow and shrink with it
    middles = np.stack([(np.arange(STRIPS) + 0.5) / STRIPS, np.full(STRIPS, 0.5)], axis=1)
    marks = (plot.transAxes - plot.transData).transform(middles)[:, 0]
    strips = "".join(f'<i style="flex:1" title="{escape(values_text(data, x, mark))}"></i>' for mark in marks)
    return (
        f"<style>.glassbox-strips>i:hover{{background:linear-gradient({INK},{INK}) center/1px 100% no-repeat}}</style>"
        f'<div style="position:relative;max-width:{picture.width}px">{picture.html}'
        f'<div class="glassbox-strips" style="position:absolute;display:flex;left:{area.x0:.3%};top:{1 - area.y1:.3%};'
        f'width:{area.width:.3%};height:{area.height:.3%}">{strips}</div></div>'
    )
