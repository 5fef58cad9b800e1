"""Losses beyond the training length, against a plain loop; and the pictures of positions."""

import math
import re

import numpy as np
import pandas as pd
import pytest
import torch

from config import ALiBiConfig, DataConfig, LearnedPositionConfig, ModelConfig, SinusoidalConfig
from lab.analysis.attention_maps import attention_maps
from lab.analysis.forward_pass import read_prompt
from lab.comparison.comparison import compare
from lab.data.packing import prepare
from lab.data.tokenizers import load_tokenizer
from lab.display.position_plots import (
    alibi_biases,
    extrapolation_curves,
    position_losses,
    position_vectors,
    rotations,
    scores_by_offset,
    slope_dots,
)
from lab.display.style import PlotError
from lab.evaluation.extrapolation import extrapolation, loss_by_position
from lab.generation.generate import generate, next_token_probabilities
from lab.runs.weights import read_weights
from modules.transformer import Transformer
from settings.errors import ConfigError, DataError, GenerationError
from tests.helpers.positions import position_of, rotary
from tests.helpers.small_runs import MODEL, TRAIN, make_run

CONFIG = ModelConfig(
    vocab_size=257, context_length=8, max_positions=64, n_layers=1, n_heads=2, width=16, position=ALiBiConfig(),
    init_std=0.3,
)


@pytest.fixture
def tokens(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path))
    return prepare(DataConfig(tokenizer="byte", max_documents=40, validation_fraction=0.3)).validation


def test_loss_by_position_equals_a_plain_loop(tokens, seeded):
    model, length, n_windows = Transformer(CONFIG), 24, 5
    found = loss_by_position(model, tokens, length, max_tokens=n_windows * length + 3)
    expected = np.zeros((n_windows, length))
    with torch.no_grad():
        for w in range(n_windows):
            ids = [int(i) for i in tokens.tokens[w * length : (w + 1) * length + 1]]
            for t in range(length):
                logits = model.eval()(torch.tensor([ids[: t + 1]]))[0, -1].double()
                expected[w, t] = (logits.logsumexp(0) - logits[ids[t + 1]]).item()
    assert found == pytest.approx(expected.mean(0), abs=1e-5)


def test_by_length_is_the_mean_over_positions_and_nan_where_positions_end(tokens, seeded):
    model = Transformer(CONFIG)
    by_length = extrapolation(model, tokens, max_tokens=1280)
    assert list(by_length["length"]) == [8, 16, 32, 64]
    for length, loss in zip(by_length["length"], by_length["loss"]):
        assert loss == loss_by_position(model, tokens, length, 1280).mean()
    learned = Transformer(CONFIG.replace(position=LearnedPositionConfig(), max_positions=None))
    by_length = extrapolation(learned, tokens, max_tokens=1280)
    assert math.isfinite(by_length["loss"][0]) and by_length["loss"][1:].isna().all()
    assert list(by_length["note"]) == ["", *["no such positions"] * 3], "a loss that is missing says why"
    with pytest.raises(DataError, match=r"16 tokens are more than the 8 positions.*learned positions end"):
        loss_by_position(learned, tokens, 16)
    with pytest.raises(DataError, match="no window of 64 tokens fits into max_tokens=63"):
        loss_by_position(model, tokens, 64, 63)


def test_beyond_max_positions_every_message_names_the_way(tokens, seeded):
    """Where a larger max_positions would help, there is an error and no NaN, except with learned positions."""
    narrow = Transformer(CONFIG.replace(max_positions=8)).eval()
    ids, way = [1] * 9, re.escape("run.load_model(max_positions=N)")
    for work, kind in (
        (lambda: extrapolation(narrow, tokens, (1, 2), 1280), DataError),
        (lambda: loss_by_position(narrow, tokens, 9, 1280), DataError),
        (lambda: narrow(torch.tensor([ids])), ValueError),
        (lambda: read_prompt(narrow, ids, None), GenerationError),
        (lambda: attention_maps(narrow, None, ids), GenerationError),
        (lambda: generate(narrow, [ids[:5]], max_tokens=4), GenerationError),
        (lambda: next_token_probabilities(narrow, load_tokenizer("byte"), ids), GenerationError),
    ):
        with pytest.raises(kind, match=way):
            work()
    learned = Transformer(CONFIG.replace(position=LearnedPositionConfig(), max_positions=None)).eval()
    for work in (lambda: learned(torch.tensor([ids])), lambda: read_prompt(learned, ids, None)):
        with pytest.raises(ValueError, match="learned positions end at context_length") as error:
            work()
        assert "load_model" not in str(error.value)


def test_a_table_of_positions_says_how_many_it_has():
    x, positions = torch.zeros(1, 9, 4), torch.arange(9)
    for config in (LearnedPositionConfig(), SinusoidalConfig(theta=100.0)):
        with pytest.raises(ValueError, match="9 positions are more than the 8 of this table"):
            position_of(config, 8, 4).embed(x, positions)
    with pytest.raises(ValueError, match="9 positions are more than the 8 of this table"):
        rotary(8, 4, 100.0).place(positions, positions, True, None)


def test_pictures_show_what_they_were_given():
    cells = position_vectors(np.eye(64, 8), "Sinusoidal").figure.axes[0].collections[0].get_array()
    assert cells.shape == (64, 8) and cells.sum() == 8
    drawn = rotations(np.ones((5, 8)), (0, 3), theta=100.0)
    titles = [plot.get_title(loc="left") for plot in drawn.figure.axes]
    assert titles == ["channels 0 and 4\n57.3° a step", "channels 3 and 7\n1.81° a step"], "degrees of 100^(-pair/4)"
    biases = alibi_biases([0.5, 0.25], length=4)
    assert biases.figure.axes[1].images[0].get_array()[3].tolist() == [-0.75, -0.5, -0.25, 0.0]
    assert np.isnan(biases.figure.axes[0].images[0].get_array().filled(np.nan)[0, 1]), "the future is not seen"
    assert "0.25, 0.125" in repr(slope_dots({"rule": [0.25, 0.125]}))
    assert "at 3" in repr(scores_by_offset({"at 3": np.arange(4.0)}, "Scores"))
    assert "128" not in repr(position_losses({"rope": np.ones(64)}, trained=16))


def test_an_encoding_has_one_colour_in_every_picture():
    names = ["none", "sinusoidal", "rope", "alibi"]
    rows = pd.DataFrame([(name, length, 1.0) for name in names for length in (8, 16)])
    curves = extrapolation_curves(rows.set_axis(["variant", "length", "loss"], axis=1))
    by_position = position_losses({name: np.ones(64) for name in names[1:]}, trained=16)
    slopes = slope_dots({"alibi": [0.5]})
    one = {c.get_label(): c.lines[0].get_color() for c in curves.figure.axes[0].containers}
    for picture in (by_position, slopes):
        lines = {line.get_label(): line.get_color() for line in picture.figure.axes[0].get_lines()}
        assert {name: lines[name] for name in one if name in lines} == {n: one[n] for n in one if n in lines}
    assert len(set(one.values())) == 4


def test_labels_of_turned_vectors_do_not_overprint():
    turns = np.exp(1j * np.array([1.0, 0.1, 0.0])[:, None] * np.arange(9)[None])
    drawn = rotations(np.concatenate((turns.real.T, turns.imag.T), axis=1), (0, 1, 2), theta=100.0)
    texts = [[text for text in plot.texts if text.get_text()] for plot in drawn.figure.axes]
    assert [sorted(text.get_text() for text in one) for one in texts] == [["0", "1", "8"], ["0, 1", "8"], ["0, 1, 8"]]
    for one in texts:
        boxes = [text.get_window_extent() for text in one]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


def test_curves_have_a_point_for_each_length_that_was_reached():
    rows = [
        {"variant": variant, "length": length, "loss": loss, "seed": seed}
        for variant, losses in {"rope": (1.0, 2.0), "learned": (1.5, math.nan)}.items()
        for length, loss in zip((8, 16), losses)
        for seed in range(2)
    ]
    drawn = extrapolation_curves(pd.DataFrame(rows))
    lines = {c.get_label(): c.lines[0].get_xydata().tolist() for c in drawn.figure.axes[0].containers}
    assert lines == {"rope": [[8, 1.0], [16, 2.0]], "learned (positions end at 8)": [[8, 1.5]]}
    assert "learned (positions end at 8) 1.500 at 8" in repr(drawn)
    with pytest.raises(PlotError, match="no loss to draw"):
        extrapolation_curves(pd.DataFrame(rows).iloc[:0])


# --- runs beside each other -------------------------------------------------------------------------------------


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two seeds with RoPE that accept as many positions as they were trained on, and one run with learned positions."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    narrow = MODEL.replace(max_positions=MODEL.context_length)
    made = [make_run(tmp_path, f"rope-seed{n}", narrow, TRAIN.replace(seed=n)) for n in range(2)]
    learned = MODEL.replace(position=LearnedPositionConfig())
    return [*made, make_run(tmp_path, "learned", learned, TRAIN.replace(seed=5))]


def test_a_comparison_reads_on_as_each_run_alone(runs):
    found = compare(runs).extrapolation((1, 4), max_tokens=1280)
    held_out = prepare(TRAIN.data).validation
    assert found.unit == "nats per token" and found.trained == (16,)
    assert list(found.frame["variant"]) == ["rope (2 seeds)"] * 4 + ["learned"] * 2
    for row in found.frame[found.frame["variant"] != "learned"].itertuples():
        wide = Transformer(MODEL.replace(max_positions=64))
        read_weights(wide, runs[int(row.run[-1])].weights_path)
        assert row.loss == loss_by_position(wide, held_out, row.length, 1280).mean()
    with pytest.raises(DataError, match="more than the 16 positions"):
        loss_by_position(runs[0].load_model(), held_out, 64, 1280)
    table, losses = found.table(), found.frame.set_index(["run", "length"])["loss"]
    mean = (losses["rope-seed0", 64] + losses["rope-seed1", 64]) / 2
    assert table.loc["rope (2 seeds)", 64] == pytest.approx(mean)
    assert math.isfinite(table.loc["learned", 16]) and math.isnan(table.loc["learned", 64])
    assert found.readable_table().loc["learned", 64] == "no such positions"
    assert found._repr_html_().count("no such") == 1
    lines = {c.get_label(): c.lines[0].get_xdata().tolist() for c in found.curves().figure.axes[0].containers}
    assert lines == {"rope (2 seeds)": [16, 64], "learned (positions end at 16)": [16]}
    missing = found.frame[found.frame["loss"].isna()]
    assert list(missing["run"]) == ["learned"] and list(missing["note"]) == ["no such positions"]
    drawn = found.by_position().figure.axes[0].get_lines()
    assert drawn[1].get_label() == "learned (positions end at 16)"
    assert [list(line.get_xdata()) for line in drawn[:2]] == [[7.5, 23.5, 39.5, 55.5], [7.5]]


def test_other_tokenizers_are_compared_in_bits_per_byte(runs):
    bpe = make_run(
        runs[0].folder.parent, "bpe", MODEL.replace(vocab_size=512),
        TRAIN.replace(data=TRAIN.data.replace(tokenizer="bpe-512")),
    )
    alone, found = compare(runs[:1]), compare([runs[0], bpe])
    nats, bits = (one.extrapolation((2,), 640).frame["loss"][0] for one in (alone, found))
    tokens = prepare(TRAIN.data).validation
    assert bits == pytest.approx(nats / math.log(2) * len(tokens) / tokens.n_bytes)
    assert "bits per byte" in repr(found.extrapolation((2,), 640).curves().figure.axes[0].get_ylabel())


def test_runs_of_different_training_lengths(runs):
    longer = make_run(runs[0].folder.parent, "longer", MODEL.replace(context_length=32), TRAIN.replace(seed=7))
    found = compare([runs[0], runs[2], longer]).extrapolation((2,), 640)
    assert found.trained == (16, 32)
    shown = found.readable_table()
    assert shown.loc["rope-seed0", 64] == "" and shown.loc["longer", 32] == "", "what was not measured is not said"
    assert shown.loc["learned", 32] == "no such positions"
    for picture in (found.curves(), found.by_position()):
        dotted = [line.get_xdata()[0] for line in picture.figure.axes[0].get_lines() if line.get_linestyle() == ":"]
        assert dotted[-2:] == [16, 32]
        assert "learned (no such positions)" in repr(picture) and "rope-seed0" in repr(picture)
    assert " at 32" in repr(found.curves()) and " and " not in repr(found.curves()), "one length, one number"
    with pytest.raises(PlotError, match="no model accepts such lengths"):
        compare([runs[2]]).extrapolation((2,), 640).curves()


@pytest.mark.parametrize(
    "factors, max_tokens, message",
    [
        ((), 64, "different whole numbers from 1 on"),
        ((1, 1), 64, "different whole numbers"),
        ((0.5,), 64, "different whole numbers"),
        ((8,), 64, "no window of 128 tokens fits into max_tokens=64"),
    ],
)
def test_impossible_lengths_leave_no_run_out(runs, factors, max_tokens, message):
    comparison = compare(runs)
    with pytest.raises(ConfigError, match=message):
        comparison.extrapolation(factors, max_tokens)
    assert len(comparison.runs) == 3


def test_learned_positions_cannot_be_stretched(runs):
    with pytest.raises(ConfigError, match="learned positions end at context_length"):
        runs[2].load_model(max_positions=64)
