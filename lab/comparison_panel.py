"""The curves of a comparison under one's fingers: axes, scales, smoothing, and the values at any place."""

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from config import GlassboxError
from lab.comparison_plots import AXES, LOSSES, Line, curves

if TYPE_CHECKING:
    import ipywidgets

    from lab.comparison import Comparison


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
    shown, values = widgets.Image(format="png"), widgets.HTML()

    def draw(_) -> None:
        smoothing.disabled = usual.value
        try:
            lines = comparison.lines(y.value, None if usual.value else smoothing.value)
            end = max((at[-1] for line in lines if len(at := line.band(x.value)[0])), default=0.0)
            mark = end * place.value / 100
            picture = curves(
                lines, comparison.floors(), x.value, y.value, comparison.unit, log_x=log_x.value, log_y=log_y.value,
                mark=mark if place.value < 100 and (mark > 0 or not log_x.value) else None,
            )  # fmt: skip
        except GlassboxError as error:
            values.value = f"<b>{escape(str(error))}</b>"
            return
        shown.value, shown.width = picture.png, str(picture.width)
        values.value = values_at(lines, x.value, mark, comparison.unit)

    for control in (x, y, log_x, log_y, usual, smoothing, place):
        control.observe(draw, "value")
    draw(None)
    choices = widgets.HBox([x, y]), widgets.HBox([log_x, log_y, usual]), smoothing, place
    return widgets.VBox([*choices, shown, values])


def values_at(lines: list[Line], x: str, mark: float, unit: str) -> str:
    """An HTML table: what each line says at `mark`, the lowest first; nothing where a run has not been."""
    found = []
    for line in lines:
        at, mean, low, high = line.band(x)
        if len(at) and at[0] <= mark <= at[-1] * (1 + 1e-9):
            value, least, most = (float(np.interp(mark, at, side)) for side in (mean, low, high))
            spread = f"{least:.4f} to {most:.4f}" if len(line.members) > 1 else ""
            found.append((value, line.name, spread))
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{value:.4f}</td><td>{spread}</td></tr>"
        for value, name, spread in sorted(found)
    )
    title = f"{AXES[x]} {mark:,.0f}"
    return f"<table><tr><th>{title}</th><th>{unit}</th><th>seeds</th></tr>{rows}</table>"
