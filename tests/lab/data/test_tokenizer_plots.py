"""Pictures of tokenizers: what they draw, and what they refuse."""

from itertools import islice

import numpy as np
import pandas as pd
import pytest

from lab.data.fertility import fertility
from lab.data.readable_bpe import learn_merges
from lab.data.tales import stories
from lab.data.tokenizer_plots import compression_curve, fertility_plot, vocabulary_trade_off
from lab.data.tokenizers import load_tokenizer
from lab.display.style import PlotError

TABLE = pd.DataFrame({
    "vocabulary": [8192, 257, 1024], "bytes per token": [4.6, 1, 2.7], "embedding share": [0.73, 0.08, 0.25],
    "bits per byte": [0.9, 1.5, 1.1],
})


def points(plot, i: int = 0) -> np.ndarray:
    return np.array(plot.get_lines()[i].get_xydata(), dtype=float)


def texts_in(plot) -> list[str]:
    return [text.get_text() for text in plot.texts]


def test_the_compression_curve_starts_at_bytes_and_shows_each_merge():
    texts = [story.text for story in stories(20, seed=2)]
    n_bytes = sum(len(text.encode()) for text in texts)
    steps = list(islice(learn_merges(texts), 40))
    picture = compression_curve(steps)
    left, right = picture.figure.axes
    assert points(left)[0].tolist() == [0, 1], "before the first merge each byte is a token"
    assert points(left)[1:].tolist() == [[step.number, n_bytes / step.n_tokens] for step in steps]
    assert points(right).tolist() == [[step.number, step.count] for step in steps]
    assert texts_in(right)[0] == "·" + steps[0].token.decode().strip() and len(texts_in(right)) == 4  # 1, 3, 10, 30
    assert repr(picture).startswith("Compression over 40 merges: 1.0")


def test_the_trade_off_is_drawn_by_rising_vocabulary():
    picture = vocabulary_trade_off(TABLE, floor=0.24)
    for plot, name in zip(picture.figure.axes, ("bytes per token", "embedding share", "bits per byte")):
        assert plot.get_title("left") == name
        assert points(plot)[:, 0].tolist() == [257, 1024, 8192]
        assert points(plot)[:, 1].tolist() == TABLE[name].iloc[[1, 2, 0]].tolist()
        assert [label.get_text() for label in plot.get_xticklabels()] == ["257", "1k", "8k"]
    assert points(picture.figure.axes[2], 1)[:, 1].tolist() == [0.24, 0.24]
    assert texts_in(picture.figure.axes[2]) == ["floor 0.240"]
    assert len(vocabulary_trade_off(TABLE).figure.axes[2].get_lines()) == 1, "no floor, no line"
    assert "8,192 ids: bytes per token 4.6, embedding share 0.73, bits per byte 0.9" in repr(picture)


def test_the_fertility_plot_has_a_line_for_each_text():
    table = fertility(map(load_tokenizer, ["byte", "bpe-512"]), {"a": ["the cat and"], "b": ["x = [1, 2]"]})
    plot = fertility_plot(table).figure.axes[0]
    assert [label.get_text() for label in plot.get_xticklabels()] == ["byte", "bpe-512"]
    for i, name in enumerate("ab"):
        assert points(plot, i)[:, 1].tolist() == table["bytes per token", name].tolist()
    assert [line.get_label() for line in plot.get_lines()] == ["a", "b"]
    assert len({line.get_marker() for line in plot.get_lines()}) == 2, "told apart without colour"
    assert fertility_plot(table, "tokens per word").figure.axes[0].get_ylabel() == "tokens per word"


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(PlotError, match="no merge to draw"):
        compression_curve([])
    with pytest.raises(PlotError, match="the columns vocabulary, bytes per token"):
        vocabulary_trade_off(TABLE[["bytes per token", "embedding share"]])
    with pytest.raises(PlotError, match="give a table of fertility"):
        fertility_plot(fertility([load_tokenizer("byte")], {"a": ["b"]}), "tokens")
