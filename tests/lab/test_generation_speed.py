"""The table of speeds: its rows, its bound, its pictures, its errors. No test here looks at how fast anything is."""

import numpy as np
import pytest
import torch

from config import MultiTokenBlockConfig
from lab import generation_speed as speeds
from lab.generation_speed import bytes_read, generation_speed, memory_bandwidth, step_seconds, weight_forms
from lab.terminal import main
from modules.quantised import quantise
from modules.transformer import Transformer
from settings.adapting import QuantisedConfig
from settings.errors import ConfigError
from tests.helpers.small_runs import MODEL, make_run
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
    forms = [f"eager, {form}" for form in ("weights as stored", "bf16", "int8", "int4")]
    assert list(frame["way"]) == ["cache"] * 3 + ["no cache"] * 3 + forms * 2 + ["Hugging Face"] * 2
    assert list(frame["batch"]) == [1] * 10 + [3] * 4 + [1, 3]
    assert list(frame["tokens"][:3]) == [3, 6, 12] and set(frame["tokens"][6:]) == {12}
    np.testing.assert_allclose(frame["tokens/s"], 1e3 * frame["batch"] / frame["ms per step"])
    weights = 4 * sum(parameter.numel() for parameter in Transformer(MODEL).parameters())
    np.testing.assert_allclose(frame["bound"][[0, 6, 7, 10]], [1e9 / weights * n for n in (1, 1, 2, 3)])
    np.testing.assert_allclose(frame["reached"], frame["tokens/s"] / frame["bound"])
    assert list(found.steps.index) == list(range(len("Once there was"), len("Once there was") + 12))
    assert "the memory gives 1.0 GB/s" in repr(found) and "eager, bf16" in repr(found)
    assert found._repr_html_().count("<tr") == 17
    assert repr(found.picture()).startswith("Milliseconds per token against length; at the end cache: ")


def test_drafts_by_further_heads_and_by_another_run(quick):
    """And a model of which Hugging Face has no counterpart."""
    model = MODEL.replace(n_layers=3, block=MultiTokenBlockConfig(heads=2))
    run, other = make_run(quick, "heads", model), make_run(quick, "tiny")
    found = generation_speed(run, tokens=8, batches=(1,), draft=other)
    assert list(found.frame["way"][-2:]) == ["a run drafts", "its own heads draft"]
    assert all("tokens per pass" in remark for remark in found.frame["remark"][-2:])
    (note,) = found.notes
    assert note.startswith("Hugging Face was not measured: this model has no counterpart") and note in repr(found)


def test_what_is_quantised_is_not_quantised_again():
    model = Transformer(MODEL)
    assert [form for form, _ in weight_forms(model)] == ["weights as stored", "bf16", "int8", "int4"]
    sizes = [bytes_read(variant) for _, variant in weight_forms(model)]
    assert sizes[1] == sizes[0] / 2 and sizes[3] < sizes[2] < sizes[0]
    quantise(model, QuantisedConfig(bits=8))
    assert [form for form, _ in weight_forms(model)] == ["weights as stored", "bf16"]


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
