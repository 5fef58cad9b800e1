"""Evaluation against a plain loop over positions, and probes against a model that knows the answers."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from config import DataConfig, DropoutConfig, ModelConfig, NoPositionConfig
from lab.data.packing import prepare
from lab.data.tales import Probe
from lab.data.tokenizers import load_tokenizer
from lab.evaluation.evaluate import evaluate, evaluate_text, token_lengths
from lab.evaluation.probes import Answers, probe_accuracy
from modules.heads import LinearHead
from modules.transformer import Transformer
from settings.errors import DataError

CONFIG = ModelConfig(
    vocab_size=257, context_length=12, n_layers=1, n_heads=2, width=16, dropout=DropoutConfig(residual=0.5)
)


@pytest.fixture
def model(seeded):
    return Transformer(CONFIG.replace(init_std=0.3)).train()


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path))
    return prepare(DataConfig(tokenizer="byte", max_documents=40, validation_fraction=0.3))


def test_long_windows_go_one_at_a_time_and_give_the_same_losses(model, data, monkeypatch):
    sizes, hidden = [], Transformer.hidden
    monkeypatch.setattr(Transformer, "hidden", lambda self, tokens: sizes.append(len(tokens)) or hidden(self, tokens))
    together = evaluate(model, data.validation, data.tokenizer, max_tokens=240)
    assert max(sizes) == 16
    sizes.clear()
    monkeypatch.setattr("lab.evaluation.evaluate.TOKENS_AT_ONCE", CONFIG.context_length)
    alone = evaluate(model, data.validation, data.tokenizer, max_tokens=240)
    assert set(sizes) == {1}
    np.testing.assert_allclose(alone.losses, together.losses, rtol=0, atol=1e-5)


def plain_loop(model, ids, length) -> list[float]:
    """−log p of every token but the first, each window of `length` inputs on its own, one position at a time."""
    model.eval()
    losses = []
    with torch.no_grad():
        for start in range(0, len(ids) - 1, length):
            window = ids[start : start + length + 1]
            for t in range(1, len(window)):
                logits = model(torch.tensor([window[:t]]))[0, -1].double()
                losses.append((logits.logsumexp(0) - logits[window[t]]).item())
    return losses


def test_equals_a_plain_loop(model, data):
    result = evaluate(model, data.validation, data.tokenizer, max_tokens=50)
    assert model.training, "left in the mode it was in"
    ids = [int(i) for i in data.validation.tokens[:51]]
    losses = plain_loop(model, ids, CONFIG.context_length)
    assert len(result) == len(losses) == 50
    assert result.loss == pytest.approx(np.mean(losses), abs=1e-5)
    assert result.perplexity == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    n_bytes = len(data.tokenizer.decode([i for i in ids[1:] if i != 256]).encode())
    assert result.bits_per_byte == pytest.approx(sum(losses) / math.log(2) / n_bytes, rel=1e-5)


def test_twice_gives_the_same_digits(model, data):
    first, second = (evaluate(model, data.validation, data.tokenizer, 200) for _ in range(2))
    assert first.metrics == second.metrics and (first.losses == second.losses).all()


def test_a_uniform_model_needs_eight_bits_and_a_little_per_byte():
    model = Transformer(CONFIG)
    torch.nn.init.zeros_(model.embedding.weight)
    result = evaluate_text(model, "Any text at all, é and 雨 too.", load_tokenizer("byte"))
    assert result.bits_per_byte == pytest.approx(math.log2(257), abs=1e-6)
    assert result.perplexity == pytest.approx(257, rel=1e-5)


def test_text_equals_a_plain_loop(model):
    tokenizer, text = load_tokenizer("byte"), "Tim had a red ball, and Mia had none."
    losses = plain_loop(model, tokenizer.encode(text), CONFIG.context_length)
    assert evaluate_text(model, text, tokenizer).loss == pytest.approx(np.mean(losses), abs=1e-5)


@pytest.mark.parametrize("text", ["", "a"])
def test_text_without_a_next_token_is_refused(model, text):
    with pytest.raises(DataError, match="no next token"):
        evaluate_text(model, text, load_tokenizer("byte"))


def test_token_lengths_count_bytes_and_nothing_for_end_of_text():
    tokenizer = load_tokenizer("bpe-512")
    ids = tokenizer.encode("Once upon a time, é")
    assert token_lengths(tokenizer)[ids].sum() == len("Once upon a time, é".encode())
    assert token_lengths(tokenizer)[tokenizer.end_of_text] == 0


class Alphabetical(torch.nn.Module):
    """The earlier a byte is in the alphabet, the likelier it is; the prompt does not matter."""

    def __init__(self):
        super().__init__()
        self.config = CONFIG
        self.head = LinearHead(ModelConfig(vocab_size=257, width=1, n_heads=1, position=NoPositionConfig()))
        self.head.weight = torch.nn.Parameter(-torch.arange(257.0)[:, None])

    def hidden(self, tokens):
        return torch.ones(*tokens.shape, 1)


def test_probes_prefer_the_likelier_ending():
    probes = [
        Probe("name", "x" * 30, " A", " B"), Probe("name", "So", " C", " B"), Probe("place", "So", " a", " b"),
    ]
    found = probe_accuracy(Alphabetical(), load_tokenizer("byte"), probes)
    assert found == {"name": Answers(right=1, asked=2), "place": Answers(right=1, asked=1)}
    assert found["name"].share == 0.5 and found["place"].share == 1


@pytest.mark.parametrize(("right", "asked"), [(0, 1), (1, 1), (23, 37), (33, 54), (117, 163), (900, 1000)])
def test_the_interval_of_answers_is_wilsons_and_says_where_they_tell_nothing(right, asked):
    theirs = scipy.stats.binomtest(right, asked).proportion_ci(method="wilson")
    answers = Answers(right=right, asked=asked)
    assert answers.interval == pytest.approx((theirs.low, theirs.high), rel=1e-9)
    assert answers.can_be_told == (not theirs.low <= 0.5 <= theirs.high) == (right / asked > 0.7 and asked > 50)
    ends = f"{100 * theirs.low:.0f} to {100 * theirs.high:.0f} %"
    nothing = "" if answers.can_be_told else ": tells nothing"
    assert str(answers) == f"{100 * right / asked:.1f} % of {asked:,} ({ends}{nothing})"
