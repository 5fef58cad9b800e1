"""The interactive session without a terminal: what each line gives, and what a wrong one leaves as it was."""

import pytest

from lab.generation.generate import generate_text
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.interactive import ABOUT, SETTINGS, InteractiveSession
from settings.checked import field_types
from settings.errors import ConfigError, GenerationError, GlassboxError, RunError
from tests.helpers.small_runs import TRAIN, make_run

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLASSBOX_CACHE", str(folder / "cache"))
        return {name: make_run(folder, name, train=TRAIN.replace(seed=seed)) for seed, name in enumerate(("a", "b"))}


@pytest.fixture
def session(runs, monkeypatch):
    monkeypatch.setattr("lab.runs.names.TRAINED", runs["a"].folder.parent)
    return InteractiveSession(runs["a"], max_tokens=8, seed=1)


def said(session, line: str) -> str:
    return "".join(session.reply(line))


def alone(run, prompt: str, **how) -> str:
    return generate_text(run.load_model(), run.tokenizer, prompt, **how)


def test_a_beginning_becomes_a_text_in_pieces(session, runs):
    expected = alone(runs["a"], "Once", max_tokens=8, seed=1)
    assert said(session, "Once\n") == said(session, "Once") == expected
    pieces = list(session.reply("Once"))
    assert pieces[0] == "Once" and len(pieces) > 3
    assert said(session, " Once ") == alone(runs["a"], " Once ", max_tokens=8, seed=1), "blanks belong to it"
    assert said(session, "//Once") == alone(runs["a"], "/Once", max_tokens=8, seed=1)
    assert said(session, "") == said(session, "  \r\n") == ""


def test_settings_hold_from_now_on(session, runs):
    for command, answer in {
        "/temperature 1.5": "temperature 1.5", "/top-k 20": "top-k 20", "/top-p 0.9": "top-p 0.9",
        "/min-p 0": "min-p 0",
        "/repetition-penalty 1.3": "repetition-penalty 1.3", "/seed 3": "seed 3", "/max-tokens 5": "max-tokens 5",
    }.items():
        assert said(session, command).startswith(answer)
    sampling = SamplingConfig(temperature=1.5, top_k=20, top_p=0.9, min_p=0, repetition_penalty=1.3)
    assert said(session, "Once") == alone(runs["a"], "Once", max_tokens=5, seed=3, sampling=sampling)
    assert said(session, "/top-k none") == "top-k None"
    assert session.settings["sampling"] == sampling.replace(top_k=None)
    assert said(session, "/max-tokens None") == "max-tokens None"
    assert said(session, "Once") == alone(runs["a"], "Once", seed=3, sampling=sampling.replace(top_k=None))


def test_a_strategy_sets_all_of_sampling(session, runs):
    assert "temperature 0.0" in said(session, "/strategy greedy")
    assert session.settings["sampling"] == STRATEGIES["greedy"] and session.value("seed") == 1
    assert said(session, "Once") == alone(runs["a"], "Once", max_tokens=8, sampling=STRATEGIES["greedy"])


def test_another_run_goes_on_with_the_settings(session, runs):
    said(session, "/strategy greedy")
    assert "b" in said(session, "/run b") and session.run.name == "b"
    assert said(session, "Once") == alone(runs["b"], "Once", max_tokens=8, sampling=STRATEGIES["greedy"])
    assert said(session, "Once") != alone(runs["a"], "Once", max_tokens=8, sampling=STRATEGIES["greedy"])


def test_what_is_told(session):
    assert said(session, "/settings").splitlines() == [
        "run a", "temperature 0.8", "top-k None", "top-p 0.95", "min-p None", "repetition-penalty 1.0", "max-tokens 8",
        "seed 1", "decode auto",
    ]
    told = said(session, "/help")
    for name in (*SETTINGS, *session.commands):
        assert f"\n/{name} " in told
    assert set(ABOUT) == set(SETTINGS) >= {name.replace("_", "-") for name in field_types(SamplingConfig)}
    for name, (example, _) in ABOUT.items():
        assert said(session, f"/{name} {example}") == f"{name} {example}", "the examples work"
    assert not session.ended
    said(session, "/quit")
    assert session.ended


@pytest.mark.parametrize(
    "line, error, message",
    [
        ("/temperature 3x", ConfigError, "temperature must be a finite number, not '3x'"),
        ("/temperature -1", ConfigError, "must be 0 .greedy. or lie between 0.001 and 1000"),
        ("/top-k 0", ConfigError, "top_k must be an integer from 1"),
        ("/top-p 1.5", ConfigError, "top_p must lie above 0 and at most at 1"),
        ("/min-p nan", ConfigError, "min_p must be a finite number or None"),
        ("/repetition-penalty none", ConfigError, "repetition_penalty must be a finite number, not 'None'"),
        ("/seed -3", ConfigError, "seed must be an integer from 0"),
        ("/max-tokens 0", ConfigError, "max_tokens must be an integer from 1"),
        ("/strategy wild", ConfigError, "choose from: balanced, creative, greedy, precise"),
        ("/strategy", ConfigError, "choose from: balanced"),
        ("/run nothing", RunError, "no run 'nothing'"),
        ("/run", ConfigError, "as in /run a"),
        ("/top-k", ConfigError, "as in /top-k 20; it is None now"),
        ("/tempereture 1", ConfigError, "did you mean '/temperature'"),
        ("/", ConfigError, "choose from: /decode, /help"),
        ("\udcff", GlassboxError, "surrogate"),
    ],
)
def test_a_wrong_line_says_what_is_possible_and_changes_nothing(session, line, error, message):
    before, model = said(session, "/settings"), session.model
    with pytest.raises(error, match=message):
        said(session, line)
    assert said(session, "/settings") == before and session.model is model and not session.ended


def test_a_text_that_can_not_be_is_refused_before_a_piece_of_it(session):
    said(session, "/max-tokens 5000")
    pieces = session.reply("Once")
    with pytest.raises(GenerationError, match="positions"):
        next(pieces)


def test_a_text_that_is_stopped_leaves_the_model_as_it_was(session, runs):
    session.model.train()
    pieces = session.reply("Once")
    assert [next(pieces), len(next(pieces))] == ["Once", 1] and not session.model.training
    pieces.close()
    assert session.model.training
    assert said(session, "Once") == alone(runs["a"], "Once", max_tokens=8, seed=1)
