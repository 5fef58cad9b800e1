"""One step of speculative decoding: its numbers are those of both models and of the rule."""

import copy

import numpy as np
import pytest
import torch

from config import preset
from lab.data.tokenizers import load_tokenizer
from lab.generation.acceptance_step import acceptance_step
from lab.generation.generate import next_token_probabilities
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from modules.transformer import Transformer
from settings.errors import GenerationError

UNTOUCHED = SamplingConfig(temperature=1.0)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("byte")


def build(architecture: str, seed: int, spread: float = 0.35) -> Transformer:
    torch.manual_seed(seed)
    model = preset(f"{architecture}-tiny").model.replace(vocab_size=257, width=16)
    return Transformer(model.replace(init_std=spread)).eval()


@pytest.fixture(scope="module")
def models():
    return build("llama", 1, 0.25), build("alibi", 2, 0.15)


def test_the_numbers_are_those_of_both_models(models, tokenizer):
    model, draft = models
    step = acceptance_step(model, tokenizer, "Once", draft=draft, sampling=UNTOUCHED)
    for reader, name in ((model, "p"), (draft, "q")):
        _, expected = next_token_probabilities(reader, tokenizer, "Once", k=257)
        found = step.tokens[name].sort_values(ascending=False).to_numpy()
        assert found == pytest.approx(expected, abs=1e-6)
    p, q = step.tokens["p"].to_numpy(), step.tokens["q"].to_numpy()
    assert step.tokens["keep"].to_numpy() == pytest.approx(np.where(p < q, p / q, 1.0))
    assert step.overlap == pytest.approx(1 - np.abs(p - q).sum() / 2)  # 1 − total variation
    left = np.where(p > q, p - q, 0)
    assert step.tokens["residual"].to_numpy() == pytest.approx(left / left.sum())
    # what the picture shows: p is made of what is kept, and of the residual in place of what is refused
    assert np.minimum(p, q) + (1 - step.overlap) * step.tokens["residual"].to_numpy() == pytest.approx(p)


def test_the_result_follows_from_the_random_number(models, tokenizer):
    model, draft = models
    steps = [acceptance_step(model, tokenizer, "Once", draft=draft, sampling=UNTOUCHED, seed=n) for n in range(30)]
    kept = [step for step in steps if step.kept]
    assert 0 < len(kept) < 30
    for step in steps:
        tokens = step.tokens
        assert step.kept == (step.uniform < tokens.at[step.drafted, "p"] / tokens.at[step.drafted, "q"])
        assert step.chosen == step.drafted if step.kept else tokens.at[step.chosen, "residual"] > 0
    assert len({step.drafted for step in steps}) > 5


def test_greedy_keeps_the_choice_of_the_model_alone(models, tokenizer):
    model, draft = models
    for reader, kept in ((draft, False), (copy.deepcopy(model), True)):
        step = acceptance_step(model, tokenizer, "Once", draft=reader, sampling=STRATEGIES["greedy"])
        assert step.kept == kept
        (likeliest,), _ = next_token_probabilities(model, tokenizer, "Once", k=1)
        assert step.tokens.at[step.chosen, "text"] == likeliest


def test_a_further_head_drafts_from_the_token_before_the_last(tokenizer):
    model = build("multi-token", 3)
    step = acceptance_step(model, tokenizer, "Once", sampling=UNTOUCHED)
    ids = torch.tensor([tokenizer.encode("Onc")])
    head = model.blocks[-2]  # the nearest further one
    with torch.no_grad():
        q = model.head(head.look(model.state(ids), model.norm))[0, -1, : tokenizer.vocab_size].softmax(dim=-1)
    assert step.tokens["q"].sort_index().to_numpy() == pytest.approx(q.numpy(), abs=1e-6)
    with pytest.raises(GenerationError, match="give a prompt of two tokens"):
        acceptance_step(model, tokenizer, "O")


def test_how_it_is_shown(models, tokenizer):
    model, draft = models
    step = next(
        step for step in (acceptance_step(model, tokenizer, "Once", draft=draft, seed=seed) for seed in range(50))
        if not step.kept
    )
    assert {step.drafted, step.chosen} <= set(step.table(1).index)
    for text in (repr(step), step._repr_html_()):
        assert "min(1, p / q)" in text and "refused" in text and "drawn in its place" in text
    picture = step.picture()
    assert "refused" in repr(picture) and picture.png.startswith(b"\x89PNG")
    labels = [label.get_text() for label in picture.figure.axes[0].get_yticklabels()]
    assert sum("(drafted)" in label for label in labels) == sum("(chosen)" in label for label in labels) == 1
