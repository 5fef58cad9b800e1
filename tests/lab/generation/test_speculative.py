"""Speculative decoding gives what plain decoding gives: greedy the same tokens, sampling the same distribution."""

import itertools

import pytest
import torch
from scipy.stats import chisquare

from config import MultiTokenBlockConfig, NoPositionConfig
from lab.data.tokenizers import load_tokenizer
from lab.generation.generate import generate
from lab.generation.sampling import probabilities
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.generation.speculative import speculate, speculative_text
from modules.transformer import Transformer
from settings.errors import GenerationError
from tests.helpers.variants import VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")
PROMPTS = [[3, 5, 7], [1], [2, 4, 6, 8, 10]]
SAMPLINGS = [
    SamplingConfig(temperature=1.0), SamplingConfig(temperature=0.7, top_k=4),
    SamplingConfig(temperature=1.0, top_p=0.8), SamplingConfig(temperature=1.2, min_p=0.3),
    SamplingConfig(temperature=1.0, repetition_penalty=2.0),
]


def sharpened(name: str, spread: float = 0.4, **changes) -> Transformer:
    """Weights that make the model's choices differ from token to token."""
    model = Transformer(VARIANTS[name].replace(**changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(spread * torch.randn_like(parameter))
    return model


def plainly(model, prompts, **settings) -> list[list[int]]:
    rows = zip(*(step.ids for step in generate(model, prompts, **settings)))
    return [[id for id in row if id is not None] for row in rows]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("multi-token") and "one" not in name])
@pytest.mark.parametrize("drafts", [1, None])
def test_greedy_gives_the_tokens_of_plain_decoding(name, drafts):
    model = sharpened(name)
    settings = dict(max_tokens=11, sampling=STRATEGIES["greedy"], stop_tokens=[9])
    found = speculate(model, PROMPTS, drafts=drafts, **settings)
    assert found.tokens == plainly(model, PROMPTS, **settings)
    assert [speculate(model, [prompt], **settings).tokens[0] for prompt in PROMPTS] == found.tokens


def test_repetition_penalty_and_stop_tokens_count_as_they_do_plainly():
    model = sharpened("multi-token")
    penalised = SamplingConfig(temperature=0, repetition_penalty=1.7)
    settings = dict(max_tokens=12, sampling=penalised, stop_tokens=range(30))
    assert speculate(model, PROMPTS, **settings).tokens == plainly(model, PROMPTS, **settings)


def test_drafts_that_come_true_save_passes():
    """A model that counts upwards: every head knows its token, so that four come with each pass."""
    model = counting()
    found = speculate(model, [[3]], max_tokens=8, sampling=STRATEGIES["greedy"])
    assert found.tokens == [[4, 5, 6, 7, 8, 9, 10, 0]]
    # the first comes with the prompt; then 4 (three drafts and the next), then 3
    assert (found.passes, found.drafted, found.accepted) == (2, 5, 5)
    assert found.acceptance_rate == 1 and found.tokens_per_pass == 4


def counting(vocab_size: int = 11) -> Transformer:
    """All blocks but the heads' MLPs add 0. A head moves the token's code by its offset; the unembedding compares."""
    config = vary(
        "multi-token", vocab_size=vocab_size, width=44, n_heads=1, tie_weights=False, position=NoPositionConfig()
    )
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.norm.weight.fill_(1)
        model.embedding.weight[:, :vocab_size] = 50 * torch.eye(vocab_size)
        model.head.weight[:, :vocab_size] = torch.eye(vocab_size).roll(-1, dims=1)
        for block in model.blocks:
            if block.offset > 1:
                # SiLU(x)·x with large x leaves token i alone in channel i, and `down` moves it by the offset
                block.mlp_norm.weight.fill_(1)
                hidden = block.mlp.down.in_features
                block.mlp.gate_up.weight[:vocab_size, :vocab_size] = torch.eye(vocab_size)
                block.mlp.gate_up.weight[hidden : hidden + vocab_size, :vocab_size] = torch.eye(vocab_size)
                block.mlp.down.weight[:vocab_size, :vocab_size] = 10 * torch.eye(vocab_size).roll(block.offset - 1, 0)
    return model


@pytest.mark.parametrize("drafting", ["heads", "draft"])
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=str)
def test_sampling_has_the_distribution_of_plain_sampling(sampling, drafting):
    """Three tokens from five possible ones: 125 texts, whose probabilities the model itself gives; chi-square. For one
    seed in a thousand it would fail by chance."""
    model = sharpened("multi-token", 0.15, vocab_size=5, n_layers=6)
    draft = sharpened("alibi", 0.4, vocab_size=5) if drafting == "draft" else None
    prompt, n = [2, 1], 4000
    texts = list(itertools.product(range(5), repeat=3))
    expected = chances(model, prompt, texts, sampling)
    found = speculate(model, [prompt] * n, draft=draft, drafts=2, max_tokens=3, sampling=sampling, seed=4)
    assert 0 < found.accepted < found.drafted  # both ways were gone
    check_rule(found)
    counts = torch.zeros(len(texts), dtype=torch.float64)
    for tokens in found.tokens:
        counts[texts.index(tuple(tokens))] += 1
    assert counts[expected == 0].sum() == 0
    common = expected * n >= 5
    rare = torch.stack([counts[~common].sum(), expected[~common].sum() * n])
    observed = torch.cat((counts[common], rare[:1]))
    predicted = torch.cat((expected[common] * n, rare[1:])).clamp(min=1e-9)
    predicted *= observed.sum() / predicted.sum()
    assert chisquare(observed.numpy(), predicted.numpy()).pvalue > 1e-3


def chances(model, prompt, texts, sampling) -> torch.Tensor:
    """The probability of each text after the prompt: the product of what `sample` draws from, token by token."""
    rows = torch.tensor([[*prompt, *text] for text in texts])
    product = torch.ones(len(texts), dtype=torch.float64)
    with torch.no_grad():
        logits = model(rows)
    for place in range(len(prompt), rows.shape[1]):
        seen = torch.zeros(len(texts), logits.shape[-1], dtype=torch.bool).scatter(1, rows[:, :place], True)
        p = probabilities(logits[:, place - 1], seen, sampling).double()
        product *= p.gather(1, rows[:, place : place + 1])[:, 0]
    return product


def check_rule(found):
    """A draft is kept with probability min(1, p / q), so some drafts with p > 0 are refused. Both means of the chances
    differ from the share of kept drafts by chance alone: less than 4 standard deviations."""
    drafts = found.drafts
    assert all(draft.kept for draft in drafts if draft.p >= draft.q)
    assert not any(draft.kept for draft in drafts if draft.p == 0)
    assert any(not draft.kept for draft in drafts if draft.p > 0)
    for likely in ([min(1, draft.p / draft.q) for draft in drafts], [draft.overlap for draft in drafts]):
        likely = torch.tensor(likely)
        sd = (likely * (1 - likely)).sum().sqrt()
        assert abs(found.accepted - likely.sum()) < 4 * sd
    assert found.expected_acceptance == pytest.approx(float(likely.mean()))


def test_up_to_the_last_position():
    model = sharpened("multi-token")
    limit = model.config.position_limit
    settings = dict(max_tokens=limit - 5, sampling=STRATEGIES["greedy"])
    found = speculate(model, PROMPTS, **settings)
    assert found.tokens == plainly(model, PROMPTS, **settings)
    assert {len(tokens) for tokens in found.tokens} == {limit - 5}


def test_text_and_what_cannot_be_used():
    tokenizer = load_tokenizer("character")
    model = sharpened("multi-token", vocab_size=tokenizer.vocab_size, context_length=64)
    settings = dict(max_tokens=20, sampling=STRATEGIES["greedy"])
    text, found = speculative_text(model, tokenizer, "Once", **settings)
    assert text.startswith("Once") and len(found.tokens[0]) <= 20 and "tokens per pass" in str(found)
    with pytest.raises(GenerationError, match=r"no further heads.*multi-token-tiny"):
        speculate(Transformer(VARIANTS["llama"]), PROMPTS, max_tokens=3)
    with pytest.raises(GenerationError, match="no further heads"):
        one = vary("multi-token", block=MultiTokenBlockConfig(heads=1))
        speculate(Transformer(one), PROMPTS, max_tokens=3)
    with pytest.raises(GenerationError, match="between 1 and 3"):
        speculate(model, PROMPTS, max_tokens=3, drafts=4)
    with pytest.raises(GenerationError, match="positions"):
        speculate(model, PROMPTS, max_tokens=1000)
