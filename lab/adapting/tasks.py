"""The labelled tasks that every installation has, made from tales and from Python's own prose and source."""

import ast
from collections.abc import Callable, Iterator
from functools import cache
from typing import NamedTuple

from config import DataConfig
from lab.adapting.labelled import LABEL_FIELD, LabelledTask, LabelledText, make_task, own_task
from lab.data.paths import find_files
from lab.data.sources import DEFAULT_TALES, load_documents
from lab.data.splitting import held_out_place
from lab.data.tales import Story
from lab.data.tales.choices import Sampler
from lab.data.tales.plots import PLOTS
from lab.data.tales.telling import tell_story
from settings.errors import DataError
from settings.messages import suggest

PASSAGE = 80  # characters of a passage of prose or code
PASSAGES = 2500  # of each class
TALES = 5000
WORDS, PRONOUN_WORDS = 12, 40  # of a tale, up to the answer of a probe


class BuiltInTask(NamedTuple):
    """A task made from what we ship."""

    about: str
    read: Callable[[], Iterator[LabelledText]]


def load_task(name: str, text_field: str | None = None, label_field: str = LABEL_FIELD) -> LabelledTask:
    """The built-in task of that name (`list_tasks`), or that of one's own table with a text and a label in each row.

    Raises DataError for an unknown task, and for a table that makes none.
    """
    if name in TASKS:
        if text_field is not None or label_field != LABEL_FIELD:
            raise DataError(f"{name!r} has no columns: leave text_field and label_field out")
        return load_built_in(name)
    if find_files(name) is None:
        raise DataError(
            f"unknown task {name[:80]!r}; {suggest(name, TASKS)}, or give a table of your own (jsonl, csv, tsv, "
            "parquet) with a text and a label in each row"
        )
    return own_task(name, text_field, label_field)


def list_tasks() -> dict[str, str]:
    """The names of the built-in tasks, each with a description."""
    return {name: task.about for name, task in TASKS.items()}


@cache  # reading the standard library takes seconds
def load_built_in(name: str) -> LabelledTask:
    return make_task(name, TASKS[name].about, TASKS[name].read())


# --- prose or code ----------------------------------------------------------------------------------------------


def prose_or_code() -> Iterator[LabelledText]:
    """Passages of PASSAGE characters of `pydocs` and of `pycode`, as many of each, so that no length tells the class.

    Code is read without its docstrings: they are the prose of `pydocs`.
    """
    for label, source, prepare in (("prose", "pydocs", str), ("code", "pycode", without_docstrings)):
        found: dict[str, str] = {}
        for document in load_documents(DataConfig(source=source)):
            text = prepare(document)
            for start in range(0, len(text) - PASSAGE + 1, PASSAGE):
                found.setdefault(text[start : start + PASSAGE], document)
        chosen = sorted((passage for passage in found if not passage.isspace()), key=held_out_place)[:PASSAGES]
        yield from (LabelledText(passage, label, found[passage]) for passage in chosen)


def without_docstrings(source: str) -> str:
    """Python source without the lines of its docstrings."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and (
            ast.get_docstring(node, clean=False) is not None
        ):
            docstring = node.body[0]
            lines[docstring.lineno - 1 : docstring.end_lineno] = [None] * (docstring.end_lineno - docstring.lineno + 1)
    return "\n".join(line for line in lines if line is not None)


# --- tales ------------------------------------------------------------------------------------------------------


class PlotSampler(Sampler):
    """Tells a story and remembers which plot it picked."""

    plot: Callable

    def pick(self, options, *used):
        picked = super().pick(options, *used)
        if options is PLOTS:
            self.plot = picked
        return picked


def told_stories() -> Iterator[tuple[Story, str]]:
    """Stories behind those that runs are trained on by default, each with the name of its plot."""
    for index in range(DEFAULT_TALES, DEFAULT_TALES + TALES):
        tell = PlotSampler(index)
        tell_story(tell)
        yield Story(tell.text, tell.log_probability, tuple(tell.marks)), tell.plot.__name__


def tale_of_probe() -> Iterator[LabelledText]:
    """One probe of each story, its last WORDS words with the right answer; the class is the plot of the story."""
    for story, plot in told_stories():
        probe = one_of(story.probes, story)
        yield LabelledText(last_words(probe.prompt + probe.right, WORDS), plot, story.text)


def pronoun_in_tale() -> Iterator[LabelledText]:
    """The PRONOUN_WORDS words up to a pronoun that a probe asks for: the right one, or its opposite ("he" for "she").

    Which of them is right depends on who is meant, and not on which words there are.
    """
    for story, _ in told_stories():
        probes = [probe for probe in story.probes if probe.skill == "pronoun"]
        if probes:
            probe = one_of(probes, story)
            right = one_of((True, False), story, part=1)
            text = last_words(probe.prompt + (probe.right if right else probe.wrong), PRONOUN_WORDS)
            yield LabelledText(text, "right" if right else "wrong", story.text)


def last_words(text: str, count: int) -> str:
    return " ".join(text.split(" ")[-count:])


def one_of(options, story: Story, part: int = 0):
    """One of the options, chosen by the story's hash; other parts of the hash choose independently."""
    return options[int(held_out_place(f"{part} {story.text}") * len(options))]


TASKS: dict[str, BuiltInTask] = {
    "prose-or-code": BuiltInTask(f"{PASSAGE} characters of Python's prose or of its source", prose_or_code),
    "tale-of-probe": BuiltInTask(f"the last {WORDS} words of a question about a tale; its plot", tale_of_probe),
    "pronoun-in-tale": BuiltInTask(
        f"{PRONOUN_WORDS} words of a tale, the last a pronoun; whether it is the right one", pronoun_in_tale
    ),
}
