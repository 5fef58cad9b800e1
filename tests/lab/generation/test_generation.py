"""Generation: the same tokens however they are computed, the same model afterwards, whole characters, clear errors."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from config import (
    ALiBiConfig,
    LearnedPositionConfig,
    ModelConfig,
    NoPositionConfig,
    RoPEConfig,
    SinusoidalConfig,
    preset,
)
from lab.data.tokenizers import load_tokenizer
from lab.generation.generate import generate, generate_text, next_token_probabilities, stream_text, transcribe
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from modules.transformer import Transformer
from settings.errors import ConfigError, GenerationError, TokenizerError

PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6, 5, 3, 5], [3, 1, 4], [8, 9]]
EVERYTHING = SamplingConfig(temperature=1.3, top_k=40, top_p=0.95, min_p=0.001, repetition_penalty=1.2)
SETTINGS = [STRATEGIES["greedy"], SamplingConfig(temperature=1.0), EVERYTHING]
BEYOND = [RoPEConfig(), ALiBiConfig(), SinusoidalConfig(), NoPositionConfig()]


def build(config: ModelConfig) -> Transformer:
    """In float64, so that rounding changes no token, and with weights that give clear probabilities."""
    torch.manual_seed(1)
    return Transformer(config.replace(init_std=0.2)).double()


@pytest.fixture(params=["gpt2", "llama", "alibi"])
def model(request, seeded) -> Transformer:
    return build(preset(f"{request.param}-tiny").model.replace(vocab_size=61, width=40))


@pytest.fixture
def llama(seeded) -> Transformer:
    return build(preset("llama-tiny").model.replace(vocab_size=300, width=40))


@pytest.fixture(scope="module")
def byte_tokenizer():
    return load_tokenizer("byte")


def rows(steps, field: str = "ids") -> list[list]:
    """The tokens of each prompt's continuation, up to its end."""
    return [[value for value in row if value is not None] for row in zip(*(getattr(step, field) for step in steps))]


# --- the same tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", SETTINGS)
def test_batched_equals_one_by_one(model, sampling):
    together = list(generate(model, PROMPTS, max_tokens=12, sampling=sampling, seed=5))
    for row in (0, 1, 2, 4):
        alone = list(generate(model, [PROMPTS[row]], max_tokens=12, sampling=sampling, seed=5))
        assert rows(alone)[0] == rows(together)[row]
        expected = pytest.approx(rows(together, "log_probabilities")[row], abs=1e-5)
        assert rows(alone, "log_probabilities")[0] == expected


@pytest.mark.parametrize("sampling", SETTINGS)
def test_cached_equals_uncached(model, sampling):
    cached, uncached = (
        list(generate(model, PROMPTS, max_tokens=12, sampling=sampling, cache=cache)) for cache in (True, False)
    )
    assert rows(cached) == rows(uncached)
    for one, other in zip(cached, uncached):
        assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-5)


def test_greedy_takes_the_likeliest_and_tells_its_probability(model):
    prompt = PROMPTS[2]
    steps = list(generate(model, [prompt], max_tokens=9, sampling=STRATEGIES["greedy"]))
    ids = rows(steps)[0]
    with torch.no_grad():
        log_p = model.eval()(torch.tensor([prompt + ids[:-1]]))[0, len(prompt) - 1 :].log_softmax(dim=-1)
    assert ids == log_p.argmax(dim=-1).tolist()
    assert rows(steps, "log_probabilities")[0] == pytest.approx(log_p.amax(dim=-1).tolist(), abs=1e-5)


def test_the_probability_is_the_models_own(model):
    """No setting changes it: neither the temperature nor excluded tokens nor the penalty."""
    prompt = PROMPTS[0]
    steps = list(generate(model, [prompt], max_tokens=9, sampling=EVERYTHING))
    ids = rows(steps)[0]
    with torch.no_grad():
        log_p = model.eval()(torch.tensor([prompt + ids[:-1]]))[0, len(prompt) - 1 :].log_softmax(dim=-1)
    expected = log_p[range(len(ids)), ids].tolist()
    assert rows(steps, "log_probabilities")[0] == pytest.approx(expected, abs=1e-5)


def test_seeds(llama):
    def continued(prompts, seed):
        return rows(generate(llama, prompts, max_tokens=20, sampling=SamplingConfig(temperature=1.5), seed=seed))

    first, copy, third = continued([[7, 7]] * 3, seed=1)
    assert len({tuple(first), tuple(copy), tuple(third)}) == 3
    assert continued([[2], [7, 7], [7, 7]], seed=1)[1:] == [first, copy]
    assert continued([[7, 7]], seed=2) != [first]


def test_repetition_penalty_hears_prompt_and_continuation(llama):
    huge = SamplingConfig(temperature=0.0, repetition_penalty=1000.0)
    llama.head.weight.data.abs_()
    llama.norm.register_forward_hook(lambda norm, args, out: out.abs())  # so that every logit is positive
    ids = rows(generate(llama, [[4, 5, 6]], max_tokens=200, sampling=huge))[0]
    assert len({4, 5, 6, *ids}) == 203


# --- where it ends --------------------------------------------------------------------------------------------


def test_stop_tokens_end_their_row_alone(model):
    settings = dict(max_tokens=15, sampling=SamplingConfig(temperature=1.5), seed=3)
    free = rows(generate(model, PROMPTS, **settings))
    stops = [free[0][2], free[4][6]]
    expected = []
    for row in free:
        ends = [place for place, id in enumerate(row) if id in stops]
        expected.append(row[: ends[0] + 1] if ends else row)
    steps = list(generate(model, PROMPTS, stop_tokens=stops, **settings))
    assert rows(steps) == expected
    assert len(steps) == max(map(len, expected))
    for number, step in enumerate(steps, 1):
        assert step.finished == [number >= len(row) for row in expected]
        assert [id is None for id in step.ids] == [number > len(row) for row in expected]
        assert [log_p is None for log_p in step.log_probabilities] == [id is None for id in step.ids]
    assert min(map(len, expected)) < 15


def test_all_stopped_ends_the_iterator(llama):
    first = next(generate(llama, [[1, 2]], max_tokens=1, sampling=STRATEGIES["greedy"])).ids
    steps = list(generate(llama, [[1, 2]] * 2, max_tokens=50, sampling=STRATEGIES["greedy"], stop_tokens=first))
    assert [step.finished for step in steps] == [[True, True]]


def test_ids_from_vocab_size_on_are_never_chosen(llama):
    ids = rows(generate(llama, [[1]] * 8, max_tokens=40, sampling=SamplingConfig(temperature=50.0), vocab_size=257))
    assert 200 < max(map(max, ids)) < 257


# --- beyond the training length -------------------------------------------------------------------------------


@pytest.mark.parametrize("position", BEYOND, ids=lambda position: position.kind)
def test_beyond_the_training_length(seeded, position):
    config = ModelConfig(vocab_size=31, context_length=8, max_positions=24, n_layers=2, n_heads=2, width=24)
    model = build(config.replace(position=position))
    settings = dict(max_tokens=19, sampling=SamplingConfig(temperature=1.0))
    ids = rows(generate(model, [[1, 2, 3, 4, 5], [6]], **settings))
    assert [len(row) for row in ids] == [19, 19]
    assert ids == rows(generate(model, [[1, 2, 3, 4, 5], [6]], cache=False, **settings))
    with pytest.raises(GenerationError) as error:
        generate(model, [[1, 2, 3, 4, 5], [6]], max_tokens=20)
    assert "5 prompt tokens and max_tokens=20 are more than the 24 positions" in str(error.value)
    assert "max_positions" in str(error.value) and "lower max_tokens to 19" in str(error.value)


def test_learned_positions_end_at_the_training_length(seeded):
    config = ModelConfig(vocab_size=31, context_length=8, n_layers=2, n_heads=2, width=24)
    model = build(config.replace(position=LearnedPositionConfig()))
    assert len(list(generate(model, [[1, 2, 3]], max_tokens=5))) == 5
    with pytest.raises(GenerationError) as error:
        generate(model, [[1, 2, 3]], max_tokens=6)
    assert "learned positions end at context_length" in str(error.value)
    assert "lower max_tokens to 5" in str(error.value) and "RoPE, ALiBi" in str(error.value)
    with pytest.raises(GenerationError, match="shorten the prompt below 8 tokens"):
        generate(model, [[1] * 8], max_tokens=1)


# --- the model afterwards -------------------------------------------------------------------------------------


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("leave", ["end", "break", "close", "error"])
def test_modes_are_restored_however_it_ends(model, leave):
    model.train()
    model.blocks[1].eval()  # a mode of its own, as frozen parts have
    before = modes(model)
    steps = generate(model, PROMPTS, max_tokens=4)
    assert modes(model) == before
    if leave == "break":
        del steps
        for _ in generate(model, PROMPTS, max_tokens=4):
            assert not any(modes(model))
            break
    elif leave == "error":
        next(steps)
        model.norm.weight.data.fill_(math.nan)
        with pytest.raises(GenerationError, match=r"NaN or infinite logits for token 2.*earlier checkpoint"):
            next(steps)
    else:
        assert not any(next(steps).finished) and not any(modes(model))
        steps.close() if leave == "close" else list(steps)
    assert modes(model) == before


def test_a_stream_that_is_dropped_restores_the_model(llama, byte_tokenizer):
    llama.train()
    pieces = stream_text(llama, byte_tokenizer, "Once", max_tokens=50)
    next(pieces)
    assert not any(modes(llama))
    del pieces
    assert all(modes(llama))


def test_dropout_is_off_and_gradients_are_the_callers(seeded):
    config = preset("llama-tiny").model.replace(vocab_size=61, width=40)
    model = build(config.replace(dropout=config.dropout.replace(embedding=0.5, attention=0.5, residual=0.5)))
    ids = rows(generate(model.eval(), PROMPTS, max_tokens=6))
    steps = []
    for step in generate(model.train(), PROMPTS, max_tokens=6):
        steps.append(step)
        assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        model(torch.tensor([[1, 2]])).sum().backward()
    assert rows(steps) == ids


# --- text -----------------------------------------------------------------------------------------------------


class Scripted(nn.Module):
    """Gives a fixed sequence of ids for any input: after the id at place t comes the one at t + 1."""

    def __init__(self, ids: list[int], vocab_size: int = 257):
        super().__init__()
        self.config = SimpleNamespace(vocab_size=vocab_size, position_limit=1000, context_length=1000, position=None)
        self.head = nn.Linear(1, vocab_size)
        self.ids = ids

    def forward(self, tokens):
        following = torch.tensor(self.ids)[1 : tokens.shape[1] + 1].expand(len(tokens), -1)
        return nn.functional.one_hot(following, self.config.vocab_size) * 100.0


def script(tokenizer, prompt: str, said: bytes) -> Scripted:
    return Scripted([*tokenizer.encode(prompt), *said, tokenizer.end_of_text])


def test_no_character_is_cut(byte_tokenizer):
    text = "añ🙂, 日本\n👩‍🚀!"
    model = script(byte_tokenizer, "Hi ", text.encode())
    settings = dict(max_tokens=100, cache=False)
    assert list(stream_text(model, byte_tokenizer, "Hi ", **settings)) == list(text)
    assert generate_text(model, byte_tokenizer, "Hi ", **settings) == "Hi " + text
    (transcript,) = transcribe(model, byte_tokenizer, ["Hi "], **settings)
    assert transcript.tokens == [*text.encode(), byte_tokenizer.end_of_text]
    assert transcript.texts[:7] == ["a", "", "ñ", "", "", "", "🙂"]
    assert transcript.texts[-1] == ""
    assert transcript.probabilities == pytest.approx([1.0] * len(transcript.tokens))


@pytest.mark.parametrize("said", [b"ok\xf0\x9f\x99", b"\xff\x80a\xc3(\xe2\x82", b"\xf0\x9f\xf0\x9f\x99\x82", b""])
def test_broken_characters_become_the_replacement_character(byte_tokenizer, said):
    """Both at the end of the text and after max_tokens."""
    model = script(byte_tokenizer, "x", said)
    for max_tokens in (len(said) + 1, max(1, len(said))):
        settings = dict(max_tokens=max_tokens, cache=False)
        pieces = list(stream_text(model, byte_tokenizer, "x", **settings))
        assert "".join(pieces) == said.decode("utf-8", errors="replace") and "" not in pieces
        assert generate_text(model, byte_tokenizer, "x", **settings) == "x" + "".join(pieces)


def test_stop_tokens_of_ones_own(byte_tokenizer):
    model = script(byte_tokenizer, "x", b"one. two. ")
    assert generate_text(model, byte_tokenizer, "x", max_tokens=20, cache=False, stop_tokens=[ord(".")]) == "xone"
    whole = generate_text(model, byte_tokenizer, "x", max_tokens=11, cache=False, stop_tokens=())
    assert whole == "xone. two. <|endoftext|>"


def test_transcripts_of_a_batch_are_those_of_each_alone(llama, byte_tokenizer):
    prompts = ["Once upon", "A", "Mia", [byte_tokenizer.end_of_text, *b"Tom"]]
    together = transcribe(llama, byte_tokenizer, prompts, max_tokens=40, seed=2)
    for prompt, transcript in zip(prompts, together):
        assert transcript.text == generate_text(llama, byte_tokenizer, prompt, max_tokens=40, seed=2)
        streamed = "".join(stream_text(llama, byte_tokenizer, prompt, max_tokens=40, seed=2))
        assert transcript.text == transcript.prompt + streamed
        assert len(transcript.tokens) == len(transcript.texts) == len(transcript.probabilities)
        assert all(0 < p <= 1 for p in transcript.probabilities)
    assert together[3].text.startswith("Tom")


# --- what can't be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prompts", "settings", "says"),
    [
        ([], {}, "there is no prompt to continue"),
        ([[1], []], {}, "prompt 1 is empty"),
        ([[]], {}, r"to start from nothing, give.*\[tokenizer.end_of_text\]"),
        ([1, 2], {}, r"prompt 0 must be a list of token ids.*not 1;.*a list of its own: \[ids\]"),
        (["Hi"], {}, "prompt 0 must be a list of token ids.*not 'Hi'; text becomes ids by tokenizer.encode"),
        ([[1, 2.5]], {}, "prompt 0 must be a list of token ids"),
        ([[1], [2, 300]], {}, "prompt 1: token id 300 is out of range, this model has ids 0 to 299"),
        ([[-1]], {}, "token id -1 is out of range"),
        ([[1]], dict(stop_tokens=[300]), "stop_tokens: token id 300 is out of range"),
        ([[1]], dict(stop_tokens=7), "stop_tokens must be a list of token ids"),
        ([[1]], dict(max_tokens=0), "max_tokens must be a whole number, 1 or more, not 0"),
        ([[1]], dict(max_tokens=2.0), "max_tokens must be a whole number"),
        ([[1]], dict(seed=-1), "seed must be a whole number, 0 or more, not -1"),
        ([[1]], dict(vocab_size=0), "vocab_size must be a whole number, 1 or more, not 0"),
        ([[1]], dict(sampling="greedy"), "sampling must be a SamplingConfig.*not 'greedy'"),
        ([[1] * 600], {}, "600 prompt tokens and max_tokens=3 are more than the 512.*shorten the prompt below 512"),
    ],
)
def test_what_cannot_be_used_is_refused_at_once(llama, prompts, settings, says):
    with pytest.raises(GenerationError, match=says):
        generate(llama, prompts, **{"max_tokens": 3, **settings})


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", SETTINGS)
def test_a_broken_model_is_named(llama, bad, sampling):
    llama.head.weight.data[7, 0] = bad  # tied: token 7 is broken on its way in, too, but no prompt has it
    llama.norm.register_forward_hook(lambda norm, args, out: out.abs())
    with pytest.raises(GenerationError, match="NaN or infinite logits for token 1"):
        next(generate(llama, [[1, 2], [3]], max_tokens=3, sampling=sampling))


def test_text_that_cannot_be_used(llama, byte_tokenizer):
    for use in (generate_text, stream_text):
        with pytest.raises(GenerationError, match=r"prompt 0 is empty.*end_of_text"):
            use(llama, byte_tokenizer, "", max_tokens=3)
    with pytest.raises(GenerationError, match="put a single one into a list"):
        transcribe(llama, byte_tokenizer, "Once", max_tokens=3)
    with pytest.raises(GenerationError, match="stop_tokens must be a list"):
        generate_text(llama, byte_tokenizer, "Once", max_tokens=3, stop_tokens=10)
    with pytest.raises(TokenizerError, match="surrogate"):
        generate_text(llama, byte_tokenizer, "\ud800", max_tokens=3)
    with pytest.raises(ConfigError, match="top_k"):
        generate_text(llama, byte_tokenizer, "Once", max_tokens=3, sampling=SamplingConfig(top_k=0))


# --- a single token -------------------------------------------------------------------------------------------


def test_next_token_probabilities_are_the_models_own(llama, byte_tokenizer):
    labels, shares = next_token_probabilities(llama, byte_tokenizer, "Tim", k=257)
    with torch.no_grad():
        logits = llama.eval()(torch.tensor([list(b"Tim")]))[0, -1, :257]  # the model has more ids than the tokenizer
    assert shares == pytest.approx(sorted(logits.softmax(-1).tolist(), reverse=True), abs=1e-6)
    best = int(logits.argmax())
    (first,) = rows(generate(llama, [list(b"Tim")], max_tokens=1, sampling=STRATEGIES["greedy"], vocab_size=257))
    assert first == [best] and len(labels) == 257


def test_next_token_probabilities_leave_out_what_the_sampling_excludes(llama, byte_tokenizer):
    labels, shares = next_token_probabilities(
        llama, byte_tokenizer, "Tim", k=10, sampling=SamplingConfig(temperature=0.5, top_k=3)
    )
    assert len(labels) == len(shares) == 3 and sum(shares) == pytest.approx(1)


def test_next_token_probabilities_need_a_prompt(llama, byte_tokenizer):
    with pytest.raises(GenerationError, match="empty"):
        next_token_probabilities(llama, byte_tokenizer, "")
