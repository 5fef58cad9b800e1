"""The command `plan`: its flags are those of `train`, and nothing is trained."""

import pytest

from lab.terminal import main
from lab.terminal_planning import parse_planning
from settings.errors import ConfigError

SMALL = [
    "--model.n-layers", "1", "--model.width", "32", "--model.n-heads", "2", "--model.context-length", "64",
    "--train.batch-size", "8",
]


def test_a_plan_is_a_table_and_makes_no_run(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    arguments = ["--hardware", "h100x8", "--train.tokens", "51200", "--price", "2", *SMALL]
    assert main(["plan", *arguments]) == 0
    shown = capsys.readouterr().out
    assert "100 steps of 8 × 64 tokens" in shown and "8 × h100" in shown and "sharding needed" in shown
    assert "at 2 for an hour of one card" in shown
    assert not (tmp_path / "trained").exists()


def test_tokens_stand_in_place_of_steps_and_other_flags_are_those_of_train():
    found = parse_planning(["--hardware", "l4", "--train.tokens", "5000", "--preset", "gpt2-small", *SMALL])
    assert (found.tokens, found.hardware, found.train.batch_size) == (5000, "l4", 8)
    assert found.model.position.kind == "learned" and found.model.width == 32
    assert parse_planning(["--hardware", "l4", "--train.steps", "7"]).train.steps == 7
    assert parse_planning(["--hardware", "l4", "--like", "llama-tiny-tales"]).like == "llama-tiny-tales"
    with pytest.raises(ConfigError, match="say the same"):
        parse_planning(["--hardware", "l4", "--train.tokens", "5000", "--train.steps", "7"])


@pytest.mark.parametrize("arguments, said", [
    (["--hardware", "h1000"], "unknown hardware 'h1000'; did you mean 'h100'?"),
    (["--hardware", "h100", "--train.tokens", "3"], "tokens=3 are fewer than the 512 of one step"),
    (["--hardware", "h100", "--price", "-2"], "price=-2 must be 0 or more"),
    (["--hardware", "h100x3"], "3 ranks do not divide batch_size=8"),
    (["--hardware", "h100", "--preset", "gpt5-tiny"], "unknown preset 'gpt5-tiny'"),
])
def test_what_can_not_be_planned_is_one_message(arguments, said, capsys):
    assert main(["plan", *arguments, *SMALL]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and said in error
