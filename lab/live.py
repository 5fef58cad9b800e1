"""Watching a training: `live` wraps its steps, shows them and passes them on unchanged.

    for step in live(train(run, data), run, data.floor):
        ...

In a notebook that is a panel with progress, curve, latest sample and a Stop button; at the end one picture and one
line are left. In a terminal it is a bar. It is a plain line now and then where output goes to a file, where
GLASSBOX_PLAIN is set, and in a notebook that a program executes (nbclient, papermill): nobody can press a button there.
"""

import math
import os
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from contextlib import closing
from html import escape
from time import monotonic
from typing import TYPE_CHECKING

from tqdm import tqdm

if TYPE_CHECKING:
    from lab.runs import Run
    from lab.training import Step

PLAIN_SECONDS, PLAIN_SHARE = 10, 0.05  # between two plain lines: at least so long, and so much of the training
DRAWING_SHARE = 0.05  # of the time goes into pictures in the long run
FIRST_SHARE = 0.2  # of the time so far passes between two pictures at first, when there is most to see


def live(
    steps: Generator["Step"], run: "Run", floor: float | None = None, every_seconds: float = 1.0,
    stopping: threading.Event | None = None,
) -> Iterator["Step"]:  # fmt: skip
    """Yields `steps` as they are, while showing how far `run` is: loss, time left, tokens per second, memory, samples.

    The Stop button ends it after the current step. However it ends, `steps` is closed before anything else, and so the
    run is kept. The curve is drawn from run.log(): it shows what is on disk. It is drawn every `every_seconds`, or less
    often where drawing is slow. floor: the data's entropy in nats per token. stopping: what the button sets, so that
    the caller can tell a stop in the last step from an end.
    """
    view, step = open_view(run, floor, every_seconds), None
    view.stopping = stopping or view.stopping
    try:
        with closing(steps):
            for step in steps:
                view.show(step)
                yield step
                if view.stopping.is_set():
                    break
    finally:
        view.close(step)


def open_view(run: "Run", floor: float | None, every_seconds: float) -> "View":
    """The view that suits whoever looks on."""
    if not os.environ.get("GLASSBOX_PLAIN"):
        if has_reader():
            return Panel(run, floor, every_seconds)
        if sys.stderr.isatty():
            return Bar(run, floor)
    return Lines(run, floor)


def kernel():
    """The Jupyter kernel this runs in, or None."""
    ipython = sys.modules.get("IPython")  # where there is a kernel, it is loaded
    return getattr(ipython.get_ipython(), "kernel", None) if ipython else None


def has_reader() -> bool:
    """Whether a person runs this cell: programs that execute notebooks say that they can't answer questions."""
    return kernel() is not None and kernel().get_parent("shell")["content"].get("allow_stdin", False)


def picture(run: "Run", floor: float | None):
    from lab.plots import loss_curve

    return loss_curve(run.log(), floor, title=run.name)


class View(ABC):
    """What can be said of a training while it runs; how it is shown is the subclasses' matter."""

    def __init__(self, run: "Run", floor: float | None):
        self.run, self.floor, self.total = run, floor, run.train_config.steps
        self.stopping = threading.Event()
        self.first_step, self.first_time, self.validation_loss = None, 0.0, None

    def show(self, step: "Step") -> None:
        if self.first_step is None:
            self.first_step, self.first_time = step.step, monotonic()
        if step.validation_loss is not None:
            self.validation_loss = step.validation_loss
        self.draw(step)

    @abstractmethod
    def draw(self, step: "Step") -> None:
        """Shows `step`, if it is time to."""

    def close(self, step: "Step | None") -> None:
        """Leaves what stays. `step` is the last one taken, None where there was none."""
        print(self.summary(step), flush=True)

    def seconds_left(self, step: "Step") -> float:
        """At the pace since the first step seen, whose own time may hold preparations; infinite until then."""
        taken = step.step - self.first_step
        return (self.total - step.step) * (monotonic() - self.first_time) / taken if taken else math.inf

    def facts(self, step: "Step") -> str:
        return f"{self.losses(step)} · {step.tokens_per_second:,.0f} tokens/s · {step.memory / 1e9:.2f} GB"

    def losses(self, step: "Step") -> str:
        validation = "" if self.validation_loss is None else f" · validation {self.validation_loss:.3f}"
        return f"loss {step.loss:.3f}{validation}"

    def line(self, step: "Step") -> str:
        left = self.seconds_left(step)
        time = "" if left == math.inf else f" · {tqdm.format_interval(left)} left"
        return f"step {step.step:,}/{self.total:,} ({step.step / self.total:.0%}){time} · {self.facts(step)}"

    def sample_of(self, step: "Step") -> str:
        return f"sample at step {step.step:,}: {step.sample}"

    def summary(self, step: "Step | None") -> str:
        if step is None:
            return f"{self.run.name}: no step was taken"
        stopped = f"stopped at step {step.step:,} of {self.total:,}"
        how = f"finished {self.total:,} steps" if step.step == self.total else stopped
        floor = "" if self.floor is None else f" · floor {self.floor:.3f}"
        time = tqdm.format_interval(step.seconds)
        return f"{self.run.name}: {how} · trained {time} · {self.losses(step)}{floor}"


class Lines(View):
    """A line at the first step and then now and then: twenty of them at most, however long it takes."""

    last_line = 0.0

    def draw(self, step: "Step") -> None:
        now = monotonic()
        whole = now - self.first_time + self.seconds_left(step)
        if step.step == self.first_step or now - self.last_line >= max(PLAIN_SECONDS, PLAIN_SHARE * whole):
            print(self.line(step), flush=True)
            self.last_line = now
        if step.sample:
            print(self.sample_of(step), flush=True)

    def close(self, step: "Step | None") -> None:
        if step is not None and kernel() is not None:
            from IPython.display import display

            display(picture(self.run, self.floor))
        super().close(step)


class Bar(View):
    """One line of a terminal, always up to date."""

    bar = None

    def draw(self, step: "Step") -> None:
        if self.bar is None:
            self.bar = tqdm(total=self.total, initial=step.step, unit="step", dynamic_ncols=True)
        if step.sample:
            self.bar.write(self.sample_of(step))
        self.bar.set_postfix_str(self.facts(step), refresh=False)
        self.bar.update(step.step - self.bar.n)

    def close(self, step: "Step | None") -> None:
        if self.bar is not None:
            self.bar.close()
        super().close(step)


class Panel(View):
    """Widgets below a notebook's cell; when it closes, a picture takes their place, and no widget state is left."""

    def __init__(self, run: "Run", floor: float | None, every_seconds: float):
        super().__init__(run, floor)
        import ipywidgets as widgets
        from IPython.display import display

        self.every, self.next_text, self.next_picture = every_seconds, 0.0, 0.0
        wide = {"width": "100%", "max_width": "720px"}
        self.progress = widgets.IntProgress(max=self.total, layout={"width": "auto", "flex": "1 1 auto"})
        self.button = widgets.Button(description="Stop", icon="stop", layout={"width": "auto"})
        self.button.tooltip = "Ends after this step and keeps the run. Interrupting the kernel (■) does the same"
        self.button.on_click(self.stop)
        self.text = widgets.HTML("the first step is on its way …")
        self.curve = widgets.Image(format="png", layout={"display": "none", "width": "100%"})
        self.sample = widgets.HTML()
        top = widgets.HBox([self.progress, self.button])
        self.widgets = [top, self.progress, self.button, self.text, self.curve, self.sample]
        self.widgets.append(widgets.VBox([top, self.text, self.curve, self.sample], layout=wide))
        # ipykernel 7.4 hands a widget's messages to the shell that last wrote to it, which is busy with this very loop;
        # JupyterLab addresses them to another shell, whose thread is free. Let its address stand.
        self.button.comm._reply_subshell_for = lambda data, address: address
        self.shown = display(self.widgets[-1], display_id=True)

    def stop(self, button) -> None:
        self.stopping.set()
        self.button.disabled, self.button.description = True, "stopping after this step"

    def draw(self, step: "Step") -> None:
        if step.sample:
            text = escape(self.sample_of(step))
            self.sample.value = f'<div style="white-space:pre-wrap;line-height:1.5">{text}</div>'
        now, last = monotonic(), step.step == self.total
        if now >= self.next_text or last:
            self.progress.value, self.text.value = step.step, self.line(step)
            self.next_text = now + self.every
        if now >= self.next_picture:
            self.curve.value = picture(self.run, self.floor).png
            self.curve.layout.display = ""
            done = monotonic()
            pause = min((done - now) / DRAWING_SHARE, (now - self.first_time) * FIRST_SHARE)
            self.next_picture = done + max(self.every, pause)

    def close(self, step: "Step | None") -> None:
        if step is None:
            self.shown.update({"text/plain": ""}, raw=True)
        else:
            self.shown.update(picture(self.run, self.floor))
        for widget in self.widgets:
            for part in (widget, widget.layout, getattr(widget, "style", None)):
                if part is not None:
                    part.close()
        super().close(step)
