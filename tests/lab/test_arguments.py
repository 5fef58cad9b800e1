"""A name, a preset or a config in place of its like: what was plainly meant is done, the rest is told with the way."""

import inspect

import pytest

import tools
from config import preset
from lab.arguments import HOW, check_argument
from lab.compute.schedule_preview import schedule_preview
from lab.runs.run import Run
from settings.errors import ConfigError, GlassboxError
from tests.helpers.small_runs import MODEL, TRAIN, make_run

FUNCTIONS = {name: value for name in tools.__all__ if inspect.isfunction(value := getattr(tools, name))}


def kind_of(parameter: inspect.Parameter) -> str:
    """The type that is named, without its module; a union has none in HOW."""
    annotation = inspect.formatannotation(parameter.annotation).replace("'", "").removesuffix(" | None")
    return annotation if "|" in annotation else annotation.rpartition(".")[2]


CHECKED = [
    (name, parameter.name, kind_of(parameter))
    for name, function in FUNCTIONS.items()
    for parameter in inspect.signature(function).parameters.values()
    if kind_of(parameter) in HOW
]
UNLIKE = ["llama-tiny", preset("llama-tiny"), MODEL, TRAIN, TRAIN.data, 3, object()]


def test_most_functions_are_checked():
    assert len(CHECKED) > 60 and len({name for name, *_ in CHECKED}) > 45


@pytest.mark.parametrize("name, parameter, kind", CHECKED)
def test_what_is_no_such_thing_is_told_with_what_is_and_how_to_get_it(name, parameter, kind):
    refused = 0
    for value in UNLIKE:
        if kind in {base.__name__ for base in type(value).__mro__}:
            continue
        with pytest.raises(ConfigError) as told:
            FUNCTIONS[name](**{parameter: value})
        assert f"{parameter} of {name}() must be a {kind}, as {HOW[kind]}, not " in str(told.value)
        refused += 1
    assert refused >= len(UNLIKE) - 1


WRONG = [
    lambda: tools.prepare("tales"), lambda: tools.estimate("llama-tiny"), lambda: tools.schedule_preview(MODEL),
    lambda: tools.schedule_preview(TRAIN.schedule), lambda: tools.schedule_preview("llama-tiny"),
    lambda: tools.train("name"), lambda: tools.generate_text("name", None, "Once"),
    lambda: tools.compare(preset("llama-tiny")), lambda: tools.compare(3), lambda: tools.compare(MODEL),
    lambda: Run.open(preset("llama-tiny")), lambda: Run.open(MODEL), lambda: Run.open(None),
    lambda: Run.create("name", preset("llama-tiny"), None), lambda: Run.create("name", "llama-tiny", TRAIN),
    lambda: Run.create(3, MODEL, TRAIN), lambda: tools.load_tokenizer(TRAIN), lambda: tools.preset(MODEL),
    lambda: tools.export_run("name"), lambda: tools.sweep(preset("llama-tiny"), range(2)),
    lambda: tools.delete_run(3, confirm=""),
    lambda: tools.generate_side_by_side("name"), lambda: tools.generate_side_by_side(["a", "b"]),
    lambda: tools.overridden("llama-tiny", []), lambda: tools.find_learning_rate("llama-tiny"),
    lambda: tools.load_lens("name"),
    lambda: tools.decoding_memory(preset("llama-tiny")), lambda: tools.learning_rates(preset("llama-tiny")),
]


@pytest.mark.parametrize("call", WRONG)
def test_no_raw_error_comes_out(call):
    with pytest.raises(GlassboxError):
        call()


def test_what_was_plainly_meant_is_done(tmp_path, seeded):
    pair = preset("llama-tiny")
    assert repr(tools.estimate(pair)) == repr(tools.estimate(*pair))
    assert schedule_preview(pair.train).png == schedule_preview(tools.learning_rates(pair.train)).png
    run = make_run(tmp_path, "one")
    assert Run.open(run).folder == run.folder and list(tools.compare(run).runs) == ["one"]


def test_what_is_right_passes_whatever_it_is_made_of():
    check_argument("f", "run", None, "Run | None")
    check_argument("f", "x", [1], "collections.abc.Sequence[int]")
    check_argument("f", "x", object(), "Run | somewhere.Else")
    check_argument("f", "prompt", "a text", "str | collections.abc.Sequence[int]")
    check_argument("f", "trained", 128, "int | collections.abc.Sequence[int]")
    with pytest.raises(ConfigError, match="several, as in"):
        check_argument("f", "x", "ab", "collections.abc.Sequence[str]")
