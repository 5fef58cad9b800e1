"""Reading on past the training length, against a plain loop; and the pictures of positions."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from config import ALiBiConfig, DataConfig, DataError, LearnedPositionConfig, ModelConfig
from lab.data import prepare
from lab.extrapolation import extrapolation, loss_by_position
from lab.plot_style import PlotError
from lab.position_plots import (
    alibi_biases,
    extrapolation_curves,
    position_losses,
    position_vectors,
    rotations,
    scores_by_offset,
    slope_dots,
)
from modules.transformer import Transformer

CONFIG = ModelConfig(
    vocab_size=257, context_length=8, max_positions=64, n_layers=1, n_heads=2, width=16, position=ALiBiConfig(),
    init_std=0.3,
)  # fmt: skip


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
    losses = extrapolation(learned, tokens, max_tokens=1280)["loss"]
    assert math.isfinite(losses[0]) and losses[1:].isna().all()
    with pytest.raises(DataError, match="ends at 8 positions, 16 are too many"):
        loss_by_position(learned, tokens, 16)
    with pytest.raises(DataError, match="no window of 64 tokens fits into max_tokens=63"):
        loss_by_position(model, tokens, 64, 63)


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


def test_curves_have_a_point_for_each_length_that_was_reached():
    rows = [
        {"variant": variant, "length": length, "loss": loss, "seed": seed}
        for variant, losses in {"rope": (1.0, 2.0), "learned": (1.5, math.nan)}.items()
        for length, loss in zip((8, 16), losses)
        for seed in range(2)
    ]
    drawn = extrapolation_curves(pd.DataFrame(rows))
    lines = {c.get_label(): c.lines[0].get_xydata().tolist() for c in drawn.figure.axes[0].containers}
    assert lines == {"rope": [[8, 1.0], [16, 2.0]], "learned": [[8, 1.5]]}
    with pytest.raises(PlotError, match="1 to 6 variants, not 0"):
        extrapolation_curves(pd.DataFrame(rows).iloc[:0])
