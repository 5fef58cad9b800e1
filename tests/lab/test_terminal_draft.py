"""`generate RUN --draft OTHER`: the run's own text and what the drafts were worth; errors are one message."""

import pytest

from config import MultiTokenBlockConfig
from lab.runs.drafting import load_draft
from lab.runs.run import Run
from lab.terminal import main
from settings.errors import RunError
from tests.helpers.small_runs import DATA, MODEL, TRAIN, make_run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Runs and data of this test alone."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path)
    make_run(tmp_path, "large", MODEL.replace(n_layers=2))
    make_run(tmp_path, "small", MODEL.replace(width=8), TRAIN.replace(seed=1))
    make_run(tmp_path, "heads", MODEL.replace(n_layers=4, block=MultiTokenBlockConfig(heads=3)))
    characters = TRAIN.replace(data=DATA.replace(tokenizer="character"))
    make_run(tmp_path, "characters", MODEL.replace(vocab_size=333), characters)
    return tmp_path


HOW = ["--prompt", "Once", "--max-tokens", "12", "--strategy", "greedy"]


@pytest.mark.parametrize("run, draft", [("large", "small"), ("heads", "self"), ("heads", "large"), ("large", "large")])
def test_the_text_is_that_of_plain_decoding(folder, capsys, run, draft):
    assert main(["generate", run, *HOW]) == 0
    plain = capsys.readouterr().out
    assert main(["generate", run, "--draft", draft, "--drafts", "2", *HOW]) == 0
    text, _, said = capsys.readouterr().out.rpartition("\n\n")
    assert f"{text}\n" == plain
    assert "tokens per pass" in said and "drafts kept" in said
    assert ("of the draft" in said) == (draft != "self")
    assert ("100%" in said and "saves no time" in said) == (run == draft)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["large", "--draft", "characters"], "'characters' can't draft for 'large': its tokenizer is character"),
        (["large", "--draft", "nothing"], "no run 'nothing'"),
        (["large", "--draft", "self"], "no further heads"),
        (["large", "--drafts", "3"], "add --draft RUN, or --draft self"),
        (["large", "--draft", "small", "--interactive"], "--draft and --interactive exclude each other"),
        (["large", "small", "--draft", "small"], "--draft takes one run, not 2"),
        (["large", "--draft", "small", "--drafts", "0"], "drafts must be a whole number, 1 or more"),
        (["large", "--draft", "small", "--max-tokens", "100"], "positions"),
    ],
)
def test_what_cannot_be_used_is_one_message(folder, capsys, arguments, message):
    assert main(["generate", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and "Traceback" not in error


def test_a_draft_has_the_tokenizer_of_the_run(folder):
    large, small, characters = (Run.open(name) for name in ("large", "small", "characters"))
    assert load_draft(large, small).config == small.model_config
    with pytest.raises(RunError, match="trained with the same tokenizer"):
        load_draft(large, characters)
