"""Widgets with a static twin: a notebook shows the twin where the widgets do not work.

When the kernel is busy or gone, JupyterLab writes "Loading widget..." or "model not found" in place of the output with
the widget. So the twin is a separate output above the widgets. While the widgets work, a style that comes with them
hides the twin. While they do not, a style that comes with the twin hides JupyterLab's message.
"""

from dataclasses import dataclass
from html import escape

import ipywidgets as widgets
from IPython.display import DisplayHandle, display

from lab.display.kernel import has_reader
from lab.display.style import Picture

# JupyterLab reads letters and arrows as commands, such as cutting a cell, even while one of our sliders or lists has
# the focus. This attribute of the focused element stops it.
KEYS = """
window.glassboxKeys ??= window.addEventListener('keydown', event => {
  if (!event.target.closest('.glassbox-widgets')) return
  const command = event.ctrlKey || event.metaKey || event.altKey || event.key === 'Escape'
  const run = event.shiftKey && event.key === 'Enter'
  event.target.toggleAttribute('data-lm-suppress-shortcuts', !(command || run))
}, true) ?? true
"""


@dataclass(frozen=True, repr=False)
class Html:
    """HTML, and a text for places that show no HTML."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


class WithTwin(widgets.VBox):
    """The widgets `children` in a column, with a static twin.

    twin: a Picture or an object with an HTML form. `keep` replaces it when the widgets change. If no twin is given
    here, `keep` must be called before the widgets are shown.
    """

    def __init__(self, children: list[widgets.Widget], twin: object = None, **traits):
        page = widgets.HTML(layout={"display": "none"})
        super().__init__([page, *children], **traits)
        self.add_class("glassbox-widgets").add_class(self.mark("widgets"))
        hidden = "{display:none}"
        rules = f".{self.mark('twin')}{hidden}.jp-OutputArea-child:has(.{self.mark('twin')}){hidden}"
        page.value = f'<style onload="{escape(KEYS)}">{rules}</style>'
        self.twin, self.kept = twin, None

    def mark(self, part: str) -> str:
        """The CSS class of the "twin" or of the "widgets"."""
        return f"glassbox-{part}-{self.model_id}"

    def keep(self, twin: object) -> None:
        """Replaces the static twin."""
        self.twin = twin
        if self.kept is not None:
            self.kept.update(self._twin_bundle(), raw=True)

    def show(self) -> DisplayHandle:
        """Shows the twin and the widgets as two outputs. Returns the handle of the second."""
        self.kept = display(self._twin_bundle(), raw=True, display_id=True)
        return display(self._repr_mimebundle_(), raw=True, display_id=True)

    def _ipython_display_(self) -> None:
        """Shows the twin alone to a program that executes the notebook, because the twin is what it stores."""
        if has_reader():
            self.show()
        else:
            display(self.twin)

    def _twin_bundle(self) -> dict[str, str]:
        output = ".jp-OutputArea-child"
        empty = f"{output}:has(.{self.mark('twin')})+{output}:not(:has(.{self.mark('widgets')})){{display:none}}"
        shown = self.twin.html if isinstance(self.twin, Picture) else self.twin._repr_html_()
        return {
            "text/html": f'<style>{empty}</style><div class="{self.mark("twin")}">{shown}</div>',
            "text/plain": str(self.twin),
        }

    def close_all(self) -> None:
        """Closes all widgets with their layouts and styles, so that none of their state is left."""
        _close(self)


def _close(widget: widgets.Widget) -> None:
    for child in getattr(widget, "children", ()):
        _close(child)
    for part in (widget, widget.layout, getattr(widget, "style", None)):
        if part is not None:
            part.close()
