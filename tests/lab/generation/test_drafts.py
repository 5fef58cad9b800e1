"""A second model drafts: the text is the model's own, whatever the draft is, and the draft's cache keeps step."""

import copy

import pytest
import torch

from config import preset
from lab.data.tokenizers import load_tokenizer
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.generation.speculative import speculate, speculative_text
from modules.transformer import Transformer
from settings.errors import GenerationError
from tests.helpers.stirred_models import stirred
from tests.helpers.variants import VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")
PROMPTS = [[3, 5, 7], [1], [2, 4, 6, 8, 10]]
GREEDY = STRATEGIES["greedy"]
EVERY_VARIANT = pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))


def plainly(model, prompts, **settings) -> list[list[int]]:
    rows = zip(*(step.ids for step in generate(model, prompts, **settings)))
    return [[id for id in row if id is not None] for row in rows]


def near(model: Transformer, distance: float = 0.02) -> Transformer:
    """A copy that often chooses as the model does, and often not."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(distance * torch.randn_like(parameter))
    return other


@EVERY_VARIANT
def test_greedy_gives_the_tokens_of_plain_decoding(config):
    """Each variant as model and as draft, in a batch of prompts of different lengths."""
    model = stirred(config)
    settings = dict(max_tokens=11, sampling=GREEDY, stop_tokens=[9])
    found = speculate(model, PROMPTS, draft=near(model), drafts=3, **settings)
    assert found.tokens == plainly(model, PROMPTS, **settings)


@EVERY_VARIANT
def test_a_copy_as_draft_is_never_refused(config):
    """So its cache holds what it would have read without drafting, in rows that end sooner too."""
    model = stirred(config)
    found = speculate(model, PROMPTS, draft=copy.deepcopy(model), drafts=3, max_tokens=10, sampling=GREEDY)
    # the first token comes with the prompt; then 4 with each pass, the last of which needs no third draft
    assert (found.passes, found.draft_passes, found.acceptance_rate) == (3, 3 + 3 + 0, 1)
    assert found.tokens_per_pass == pytest.approx(10 / 3)


@pytest.mark.parametrize("name", ["llama", "gpt2", "alibi", "sasp", "factored", "future", "multi-token"])
def test_drafts_are_the_ones_that_the_draft_proposes_without_a_cache(name):
    model = stirred(VARIANTS[name])
    draft, accepted = near(model), 0
    for prompt in PROMPTS:
        found = speculate(model, [prompt], draft=draft, drafts=3, max_tokens=11, sampling=GREEDY)
        tokens, drafts = by_hand(model, draft, prompt, 3, 11)
        assert found.tokens == [tokens]
        assert [(made.token, made.kept) for made in found.drafts] == drafts
        accepted += found.accepted
    assert accepted > 0


def by_hand(model, draft, prompt, most, max_tokens) -> tuple[list[int], list[tuple[int, bool]]]:
    """Greedy speculative decoding of one prompt, every token from the whole text before it."""

    def likeliest(reader, text) -> int:
        with torch.no_grad():
            return int(reader(torch.tensor([text]))[0, -1].argmax())

    text, drafts = [*prompt, likeliest(model, prompt)], []
    while (room := len(prompt) + max_tokens - len(text)) > 0:
        guesses = list(text)
        for _ in range(min(most, room - 1)):
            guesses.append(likeliest(draft, guesses))
        for guess in guesses[len(text) :]:
            choice = likeliest(model, text)
            drafts.append((guess, guess == choice))
            text.append(choice)
            if guess != choice:
                break
        else:
            text.append(likeliest(model, text))
    return text[len(prompt) :], drafts


@pytest.mark.parametrize(
    "names", [("llama", "alibi"), ("alibi", "llama"), ("future", "gpt2"), ("factored", "multi-token")]
)
def test_model_and_draft_may_be_of_different_architectures(names):
    model, draft = (stirred(VARIANTS[name]) for name in names)
    penalised = SamplingConfig(temperature=0, repetition_penalty=1.7)
    settings = dict(max_tokens=12, sampling=penalised, stop_tokens=range(20))
    found = speculate(model, PROMPTS, draft=draft, **settings)
    assert found.tokens == plainly(model, PROMPTS, **settings)


@pytest.mark.parametrize("sampling", [STRATEGIES["balanced"], STRATEGIES["creative"]])
def test_a_row_gets_the_same_tokens_alone_and_in_a_batch(sampling):
    model = stirred(VARIANTS["llama"].replace(max_positions=60))
    draft = near(model, 0.1)
    settings = dict(draft=draft, drafts=3, max_tokens=20, sampling=sampling, seed=3, stop_tokens=[9])
    together = speculate(model, PROMPTS, **settings)
    alone = [speculate(model, [prompt], **settings) for prompt in PROMPTS]
    assert together.tokens == [found.tokens[0] for found in alone]
    assert [(made.token, made.kept) for made in together.drafts] == [
        (made.token, made.kept) for found in alone for made in found.drafts
    ]
    assert 0 < together.accepted < together.drafted
    assert speculate(model, PROMPTS, **settings).tokens == together.tokens
    assert speculate(model, PROMPTS, **settings | {"seed": 4}).tokens != together.tokens


def test_ids_that_the_tokenizer_lacks_are_neither_drafted_nor_chosen():
    model, draft = stirred(vary("llama")), stirred(vary("alibi", vocab_size=71))
    settings = dict(max_tokens=11, vocab_size=30)
    for sampling in (GREEDY, SamplingConfig(temperature=5.0)):
        found = speculate(model, PROMPTS, draft=draft, sampling=sampling, **settings)
        assert max(max(row) for row in found.tokens) < 30
        assert max(made.token for made in found.drafts) < 30


def test_up_to_the_last_position():
    model, draft = stirred(vary("llama", max_positions=40)), stirred(vary("alibi", max_positions=29))
    settings = dict(max_tokens=24, sampling=GREEDY)
    found = speculate(model, PROMPTS, draft=draft, drafts=6, **settings)
    assert found.tokens == plainly(model, PROMPTS, **settings)
    with pytest.raises(GenerationError, match=r"this draft can't follow.*29 positions.*lower max_tokens to 24"):
        speculate(model, PROMPTS, draft=draft, max_tokens=25)


def test_the_model_and_the_draft_stay_as_they_were():
    model, draft = stirred(vary("llama")).train(), stirred(vary("alibi")).train()
    speculate(model, PROMPTS, draft=draft, max_tokens=3)
    assert model.training and draft.training and all(module.training for module in draft.modules())


def test_text_and_what_it_says():
    tokenizer = load_tokenizer("character")
    large, small = (
        Transformer(preset("llama-tiny").model.replace(vocab_size=tokenizer.vocab_size, width=width, n_layers=layers))
        for width, layers in ((64, 3), (16, 1))
    )
    text, found = speculative_text(large, tokenizer, "Once", draft=small, max_tokens=20, sampling=GREEDY)
    assert text == speculative_text(large, tokenizer, "Once", draft=large, max_tokens=20, sampling=GREEDY)[0]
    assert f"{found.draft_passes} of the draft" in str(found) and "no smaller" not in str(found)
    share = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in large.parameters())
    assert found.draft_size == pytest.approx(share, rel=0.1)
    text, found = speculative_text(small, tokenizer, "Once", draft=large, max_tokens=20, sampling=GREEDY)
    assert "a draft that is no smaller than the model saves no time" in str(found)


@pytest.mark.parametrize("drafts", [0, -1, 2.5, "4"])
def test_drafts_must_be_a_whole_number(drafts):
    model = stirred(vary("llama"))
    with pytest.raises(GenerationError, match="drafts must be a whole number, 1 or more"):
        speculate(model, PROMPTS, draft=model, drafts=drafts, max_tokens=3)


def test_drafts_that_cannot_be_used():
    model, other = stirred(vary("llama")), stirred(vary("llama", vocab_size=71))
    with pytest.raises(GenerationError, match="the draft has 71 token ids and the model has 61"):
        speculate(model, PROMPTS, draft=other, max_tokens=3)
    with pytest.raises(GenerationError, match="the draft has 61 token ids and the model has 71"):
        speculate(other, PROMPTS, draft=model, max_tokens=3, vocab_size=70)
    with pytest.raises(GenerationError, match="token id 65 is out of range"):
        speculate(other, [[65]], draft=model, max_tokens=3, vocab_size=60)
    with pytest.raises(GenerationError, match=r"draft must be a model.*'small'"):
        speculate(model, PROMPTS, draft="small", max_tokens=3)
    broken = stirred(vary("alibi"))
    with torch.no_grad():
        broken.norm.weight.fill_(torch.nan)
    for sampling in (GREEDY, SamplingConfig(temperature=1.0)):
        with pytest.raises(GenerationError, match="the draft gave NaN or infinite logits"):
            speculate(model, PROMPTS, draft=broken, max_tokens=3, sampling=sampling)
