"""The table of speeds: its rows, its bound, its pictures, its errors. No test here looks at how fast anything is."""

import numpy as np
import pytest
import torch

from config import MultiTokenBlockConfig
from lab import generation_speed as speeds
from lab.generation_speed import bytes_read, fastest, generation_speed, memory_bandwidth, step_seconds
from lab.terminal import main
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError
from tests.helpers.small_runs import MODEL, TRAIN, make_run
from tests.helpers.variants import vary

pytestmark = pytest.mark.usefixtures("seeded")


@pytest.fixture
def quick(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(speeds, "memory_bandwidth", lambda device: 1e9)
    return tmp_path


def test_a_step_reads_each_weight_once():
    """The tied embedding is the head; one of its own is read by the row; further heads are not computed."""
    tied, untied = (Transformer(vary("llama", tie_weights=tie)) for tie in (True, False))
    everything = sum(4 * parameter.numel() for parameter in tied.parameters())
    assert bytes_read(tied) == everything == bytes_read(untied)
    assert bytes_read(tied.to(torch.bfloat16)) == everything / 2
    heads = [Transformer(vary("multi-token", n_layers=6, block=MultiTokenBlockConfig(heads=n))) for n in (1, 3)]
    layer = 4 * sum(parameter.numel() for parameter in heads[0].blocks[0].parameters())
    assert bytes_read(heads[0]) - bytes_read(heads[1]) == 2 * layer


def test_the_table_has_every_way_and_the_bound(quick):
    found = generation_speed(make_run(quick, "tiny"), tokens=12, batches=(1, 3))
    frame = found.frame
    ways = [
        "eager", "eager, bf16 weights", "eager, int8 weights", "eager, int4 weights", "eager, int8 weights in bf16"
    ]
    rival = ["Hugging Face generate"] * 2
    assert list(frame["way"]) == ["cache"] * 3 + ["no cache"] * 3 + ways * 2 + rival
    assert list(frame["batch"]) == [1] * 11 + [3] * 5 + [1, 3]
    assert list(frame["tokens"][:3]) == [3, 6, 12] and set(frame["tokens"][6:]) == {12}
    np.testing.assert_allclose(frame["tokens/s"], 1e3 * frame["batch"] / frame["ms per step"])
    weights = 4 * sum(parameter.numel() for parameter in Transformer(MODEL).parameters())
    np.testing.assert_allclose(frame["bound"][[0, 6, 7, 11]], [1e9 / weights * n for n in (1, 1, 2, 3)])
    np.testing.assert_allclose(frame["reached"], frame["tokens/s"] / frame["bound"])
    assert list(found.steps.index) == list(range(len("Once there was"), len("Once there was") + 12))
    assert "the memory gives 1.0 GB/s" in repr(found) and "eager, bf16 weights" in repr(found)
    assert found._repr_html_().count("<tr") == 1 + len(frame)
    assert repr(found.picture()).startswith("Milliseconds per token against length; at the end cache: ")


def test_further_heads_draft(quick):
    model = MODEL.replace(n_layers=3, block=MultiTokenBlockConfig(heads=2))
    found = generation_speed(make_run(quick, "heads", model), tokens=8, batches=(1,))
    assert "no counterpart of this architecture" in found.title
    last = found.frame.iloc[-1]
    assert last["way"] == "its own heads draft" and "tokens per pass" in last["remark"]


def test_a_smaller_run_drafts_and_one_with_another_tokenizer_does_not(quick):
    run, small = make_run(quick, "tiny"), make_run(quick, "small", MODEL.replace(width=8))
    frame = generation_speed(run, tokens=8, batches=(1,), draft=small).frame
    assert "tokens per pass" in frame.set_index("way").loc["a smaller run drafts", "remark"]
    other = TRAIN.replace(data=TRAIN.data.replace(tokenizer="bpe-512"))
    with pytest.raises(RunError, match="can't draft for 'tiny'"):
        generation_speed(run, draft=make_run(quick, "other", MODEL.replace(vocab_size=512), other))


def test_a_slow_generation_is_stopped_and_its_row_says_so(quick, monkeypatch):
    monkeypatch.setattr(speeds, "LONGEST", 0.0)
    assert len(step_seconds(Transformer(MODEL), [[1, 2]], 30)) == 2


def test_bandwidth_is_a_speed():
    assert 1e6 < memory_bandwidth(torch.device("cpu"), megabytes=1) < 1e14


@pytest.mark.parametrize(("settings", "says"), [
    (dict(tokens=1), "tokens must lie between 2 and the 50 positions behind the prompt, not 1"),
    (dict(tokens=51), "not 51"),
    (dict(batches=()), r"batches must be sizes of 1 or more, as in \(1, 8, 64\)"),
    (dict(batches=(0,)), "batches must be"),
])
def test_what_cannot_be_measured_is_refused(quick, settings, says):
    with pytest.raises(ConfigError, match=says):
        generation_speed(make_run(quick, "tiny"), **settings)


def test_the_command_prints_the_table_and_draws_the_picture(quick, monkeypatch, capsys):
    run, picture = make_run(quick, "tiny"), quick / "cost.png"
    chosen = ["--tokens", "6", "--batches", "2", "--picture", str(picture)]
    assert main(["generation-speed", str(run.folder), *chosen]) == 0
    shown = capsys.readouterr().out
    assert "no cache" in shown and f"picture: {picture}" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["generation-speed", str(run.folder), "--tokens", "1"]) == 1
    assert "tokens must lie between 2" in capsys.readouterr().err


def test_of_each_step_the_shortest_time_counts_as_far_as_all_rounds_came():
    rounds = [np.array([3.0, 1.0, 5.0]), np.array([2.0, 4.0])]
    np.testing.assert_array_equal(fastest(rounds), [2.0, 1.0])
