"""Watching a training: `live` wraps its steps, shows them and passes them on unchanged.

    for step in live(train(run, data), run, data.floor):
        ...

In a notebook this is a panel with progress, curve, latest sample and a Stop button; at the end a picture and a line
take its place. If the page is reloaded while the training goes on, the panel's static twin stays and says how to go on.
In a terminal it is a bar. If output goes to a file, if GLASSBOX_PLAIN is set, or if a program executes the notebook
(nbclient, papermill), it is a plain line now and then, because nobody can press a button there.
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

from lab.display.kernel import has_reader, kernel, let_free_thread_answer

if TYPE_CHECKING:
    from lab.runs.run import Run
    from lab.training.step import Step

PLAIN_SECONDS, PLAIN_SHARE = 10, 0.05  # at least this time, and this share of it all, between two lines
DRAWING_SHARE = 0.05  # share of the time spent on drawing in the long run
FIRST_SHARE = 0.2  # at first, two pictures are this share of the time so far apart
TEXT_HEIGHT, CURVE_HEIGHT, SAMPLE_HEIGHT = "4.6em", "384px", "10em"  # of the panel's parts; longer content scrolls
RELOADED = (
    "This page was reloaded, or its kernel has ended. {name} may still be training. Run this cell again: it waits "
    "for the training, or goes on from its last checkpoint. To go on at once, interrupt the kernel (■) first."
)


def live(
    steps: Generator["Step"], run: "Run", floor: float | None = None, every_seconds: float = 1.0,
    stopping: threading.Event | None = None,
) -> Iterator["Step"]:
    """Yields `steps` unchanged and shows the progress of `run`: loss, time left, tokens per second, memory, samples,
    and between the steps what the training is doing (Run.tell).

    The Stop button ends the training after the current step. However it ends, `steps` is closed first, and so the run
    is stored. The curve is drawn from run.log(), so it shows the numbers on disk. It is drawn every `every_seconds`, or
    less often if drawing is slow. floor: the data's entropy in nats per token. stopping: the event that the button
    sets; with it a caller knows whether the training was stopped in its last step.
    """
    view, step = open_view(run, floor, every_seconds), None
    view.stopping = stopping or view.stopping
    run.listener = view.hear
    if run.remark:
        view.hear(run.remark)
    try:
        with closing(steps):
            for step in steps:
                view.show(step)
                yield step
                if view.stopping.is_set():
                    break
    finally:
        run.listener = None
        view.close(step)


def open_view(run: "Run", floor: float | None, every_seconds: float) -> "View":
    """The view for this place: notebook, terminal or file."""
    if not os.environ.get("GLASSBOX_PLAIN"):
        if has_reader():
            return Panel(run, floor, every_seconds)
        if sys.stderr.isatty():
            return Bar(run, floor)
    return Lines(run, floor)


def picture(run: "Run", floor: float | None):
    """The loss curve of the run so far."""
    from lab.display.plots import loss_curve

    return loss_curve(run.log(), floor, title=run.name)


class View(ABC):
    """The words about a training while it runs. Each subclass shows them in its own way."""

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

    def hear(self, what: str) -> None:
        """Shows what the training is doing; before the first step each message has its own line."""
        print(what, flush=True)

    @abstractmethod
    def draw(self, step: "Step") -> None:
        """Shows `step`, if the time has come."""

    def close(self, step: "Step | None") -> None:
        """Shows the summary that stays. step: the last one taken, None if there was none."""
        print(self.summary(step), flush=True)

    def seconds_left(self, step: "Step") -> float:
        """At the pace since the first step shown, whose time may include preparations. Infinite before the second."""
        taken = step.step - self.first_step
        return (self.total - step.step) * (monotonic() - self.first_time) / taken if taken else math.inf

    def facts(self, step: "Step") -> str:
        used = "" if step.mfu is None else f" (MFU {step.mfu:.0%})"
        return f"{self.losses(step)} · {step.tokens_per_second:,.0f} tokens/s{used} · {step.memory / 1e9:.2f} GB"

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
            return f"{self.run.name}: {self.run.status()}; no step was taken"
        stopped = f"stopped at step {step.step:,} of {self.total:,}"
        how = f"finished {self.total:,} steps" if step.step == self.total else stopped
        floor = "" if self.floor is None else f" · floor {self.floor:.3f}"
        time = tqdm.format_interval(step.seconds)
        return f"{self.run.name}: {how} · trained {time} · {self.losses(step)}{floor}"


class Lines(View):
    """A line at the first step and then now and then, about twenty in all."""

    last_line = 0.0

    def hear(self, what: str) -> None:
        if self.first_step is None:
            super().hear(what)

    def draw(self, step: "Step") -> None:
        now = monotonic()
        whole = now - self.first_time + self.seconds_left(step)
        if step.step == self.first_step or now - self.last_line >= max(PLAIN_SECONDS, PLAIN_SHARE * whole):
            print(self.line(step), flush=True)
            self.last_line = now
        if step.sample:
            print(self.sample_of(step), flush=True)

    def close(self, step: "Step | None") -> None:
        if self.run.steps_done() and kernel() is not None:
            from IPython.display import display

            display(picture(self.run, self.floor))
        super().close(step)


class Bar(View):
    """One line of a terminal that is updated in place."""

    bar = None

    def hear(self, what: str) -> None:
        if self.bar is None:
            print(what, file=sys.stderr, flush=True)
        else:
            self.bar.set_postfix_str(what)

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
    """Widgets below a notebook's cell. When it closes, a picture and a line take their place."""

    def __init__(self, run: "Run", floor: float | None, every_seconds: float):
        super().__init__(run, floor)
        import ipywidgets as widgets

        from lab.display.static_twin import WithTwin

        self.every, self.next_text, self.next_picture, self.heard = every_seconds, 0.0, 0.0, []
        self.progress = widgets.IntProgress(max=self.total, layout={"width": "auto", "flex": "1 1 auto"})
        self.button = widgets.Button(description="Stop", icon="stop", layout={"width": "auto"})
        let_free_thread_answer(self.button)
        self.button.tooltip = "Ends after this step and keeps the run. Interrupting the kernel (■) does the same"
        self.button.on_click(self.stop)
        # all heights are fixed: a part that grows would push the button out of view
        self.text = widgets.HTML(layout={"height": TEXT_HEIGHT, "overflow": "auto"})
        drawn = {"width": "100%", "height": CURVE_HEIGHT, "object_fit": "contain", "object_position": "left"}
        self.curve = widgets.Image(format="png", layout=drawn | {"visibility": "hidden"})
        self.sample = widgets.HTML(layout={"height": SAMPLE_HEIGHT, "overflow": "auto"})
        parts = [widgets.HBox([self.progress, self.button]), self.text, self.curve, self.sample]
        self.widgets = WithTwin(parts, self.twin(""), layout={"width": "100%", "max_width": "720px"})
        self.shown = self.widgets.show()

    def twin(self, picture: str):
        """What a page shows that was reloaded while the training goes on, or whose kernel has ended."""
        from lab.display.static_twin import Html

        name = self.run.name
        return Html(f"{picture}<div>{escape(RELOADED.format(name=name))}</div>", RELOADED.format(name=name))

    def stop(self, button) -> None:
        self.stopping.set()
        self.button.disabled, self.button.description = True, "stopping after this step"

    def hear(self, what: str) -> None:
        if self.first_step is None:
            self.heard.append(what)
        lines = self.heard if self.first_step is None else [*self.heard, what]
        self.text.value = as_lines(lines)

    def draw(self, step: "Step") -> None:
        if step.sample:
            self.sample.value = as_lines([self.sample_of(step)])
        now, last = monotonic(), step.step == self.total
        if now >= self.next_text or last:
            self.progress.value, self.heard = step.step, [self.line(step)]
            self.text.value = as_lines(self.heard)
            self.next_text = now + self.every
        if now >= self.next_picture:
            drawn = picture(self.run, self.floor)
            self.curve.value, self.curve.layout.visibility = drawn.png, "visible"
            self.widgets.keep(self.twin(drawn.html))
            done = monotonic()
            pause = min((done - now) / DRAWING_SHARE, (now - self.first_time) * FIRST_SHARE)
            self.next_picture = done + max(self.every, pause)

    def close(self, step: "Step | None") -> None:
        """The picture takes the place of the twin, the line takes the place of the widgets."""
        if self.run.steps_done():
            self.widgets.kept.update(picture(self.run, self.floor))
        else:
            self.widgets.kept.update({"text/plain": ""}, raw=True)
        self.shown.update({"text/plain": self.summary(step)}, raw=True)
        self.widgets.close_all()


def as_lines(texts: list[str]) -> str:
    """The texts as HTML, each on its own line."""
    lines = escape("\n".join(texts))
    return f'<div style="white-space:pre-wrap;line-height:1.5">{lines}</div>'
