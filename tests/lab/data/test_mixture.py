"""Curricula: weights over the steps, rows of each source, batches, the held-out stream."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from config import DataConfig, TrainConfig
from lab.data.mixture import TokenMixture, interleave, mixture_weights, rows_before
from lab.data.packing import prepare
from lab.data.token_file import TokenFile
from settings.errors import ConfigError, DataError
from settings.mixture import MixtureConfig

CODE_TO_TEXT = MixtureConfig(sources=("pycode", "pydocs"), start=(0.8, 0.2), end=(0.3, 0.7))
SHAPES = {
    "linear": CODE_TO_TEXT,
    "steady": CODE_TO_TEXT.replace(end=()),
    "late": CODE_TO_TEXT.replace(begin=0.25, finish=0.75),
    "one jump": CODE_TO_TEXT.replace(transition="step"),
    "jumps": CODE_TO_TEXT.replace(transition="step", jumps=4),
    "exponential": CODE_TO_TEXT.replace(transition="exponential"),
    "a source that comes later": MixtureConfig(sources=("a", "b", "c"), start=(3, 1, 0), end=(0, 1, 3)),
    "a last one that ends": MixtureConfig(sources=("a", "b", "c"), start=(1, 1, 1), end=(0, 3, 0), transition="step"),
    "five": MixtureConfig(sources=tuple("abcde"), start=(1, 2, 3, 4, 5), end=(5, 0.01, 1, 1, 1)),
}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def stream(first: int, length: int) -> TokenFile:
    """Tokens that are all different, and different from those of other streams."""
    return TokenFile("train", np.arange(first, first + length, dtype=np.uint32), n_documents=1, n_bytes=length)


def mixed_streams(**weights) -> TokenMixture:
    """Streams a and b; the tokens of b are 10,000 and more."""
    parts = {"a": stream(0, 4000), "b": stream(10_000, 3000)}
    return TokenMixture(parts, MixtureConfig(sources=("a", "b"), **weights))


def two_sources(tmp_path) -> tuple[str, str]:
    """Two files of 200 documents each, of the letter a and of the letter b, of different lengths."""
    for letter in "ab":
        rows = [json.dumps({"text": letter * (5 + number % 9) + str(number)}) for number in range(200)]
        (tmp_path / f"{letter}.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")


# --- weights ---------------------------------------------------------------------------------------------------


def test_code_heavy_becomes_text_heavy():
    """From 0.8/0.2 to 0.3/0.7 in equal steps, computed with exact fractions."""
    weights = mixture_weights(CODE_TO_TEXT, 101)
    exact = [Fraction(8, 10) + (Fraction(3, 10) - Fraction(8, 10)) * Fraction(step, 100) for step in range(101)]
    assert weights[:, 0] == pytest.approx([float(share) for share in exact], abs=1e-12)
    assert weights.sum(axis=1) == pytest.approx(np.ones(101), abs=1e-12)


def test_weights_count_relative_to_their_sum():
    assert mixture_weights(CODE_TO_TEXT.replace(start=(4, 1), end=(30, 70)), 50) == pytest.approx(
        mixture_weights(CODE_TO_TEXT, 50), abs=1e-12
    )


def test_an_exponential_transition_multiplies_the_odds_by_the_same_factor_at_each_step():
    weights = mixture_weights(SHAPES["exponential"], 11)
    odds = weights[:, 0] / weights[:, 1]
    assert odds[1:] / odds[:-1] == pytest.approx(np.full(10, ((3 / 7) / 4) ** 0.1), rel=1e-12)


@pytest.mark.parametrize("jumps", [1, 2, 5])
def test_steps_are_equal_jumps(jumps):
    weights = mixture_weights(CODE_TO_TEXT.replace(transition="step", jumps=jumps), 1001)[:, 0]
    falls = np.diff(weights)
    places = np.flatnonzero(falls)
    assert falls[places] == pytest.approx(np.full(jumps, -0.5 / jumps), abs=1e-12)
    lengths = [500 / jumps, *[1000 / jumps] * (jumps - 1), 500 / jumps]
    assert np.diff([0, *places, 1000]) == pytest.approx(lengths, abs=2)


def test_the_transition_begins_and_finishes_where_it_is_said_to():
    weights = mixture_weights(SHAPES["late"], 401)[:, 0]
    assert (weights[:101] == 0.8).all() and weights[300:] == pytest.approx(np.full(101, 0.3), abs=1e-12)
    assert (np.diff(weights[100:301]) < 0).all() and weights[200] == pytest.approx(0.55)


def test_without_a_length_the_transition_is_one_jump():
    weights = mixture_weights(CODE_TO_TEXT.replace(begin=0.5, finish=0.5), 101)[:, 0]
    assert (weights[:50] == 0.8).all() and weights[50:] == pytest.approx(np.full(51, 0.3))


# --- rows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("shape", SHAPES)
def test_rows_follow_the_weights(shape, batch_size):
    mixture, steps = SHAPES[shape], 500
    rows, weights = rows_before(mixture, steps, batch_size), mixture_weights(mixture, steps)
    in_step = np.diff(rows, axis=0)
    assert (in_step >= 0).all() and (in_step.sum(axis=1) == batch_size).all()
    planned = np.cumsum(weights * batch_size, axis=0)
    assert np.abs(rows[1:] - planned).max() <= len(mixture.sources) - 1, "realised shares are the planned ones"
    assert (in_step[weights == 0] == 0).all(), "a source of weight 0 gives nothing"


def test_no_mixture_takes_rows_back():
    """Rounding errors must not: 300 mixtures of whole weights, some of them 0."""
    random = np.random.default_rng(0)
    for _ in range(300):
        size = int(random.integers(2, 6))
        start, end = (tuple(map(float, random.integers(0, 4, size))) for _ in range(2))
        if not (any(start) and any(end)):
            continue
        kind = ("linear", "step")[int(random.integers(2))]
        mixture = MixtureConfig(sources=tuple("abcde"[:size]), start=start, end=end, transition=kind)
        in_step = np.diff(rows_before(mixture, 100, 8), axis=0)
        assert in_step.min() >= 0 and (in_step.sum(axis=1) == 8).all()
        assert (in_step[mixture_weights(mixture, 100) == 0] == 0).all()


def test_batches_take_each_window_once_before_any_comes_again():
    mixture = MixtureConfig(sources=("a", "b"), start=(3, 1), end=(1, 3))
    mixed = TokenMixture({"a": stream(0, 8 * 60 + 1), "b": stream(10_000, 8 * 60 + 1)}, mixture)
    batches = [mixed.batch(seed=3, step=step, batch_size=4, length=8, steps=30) for step in range(30)]
    firsts = np.concatenate(batches)[:, 1]
    a = firsts[firsts < 10_000]
    assert len(a) == rows_before(mixture, 30, 4)[-1][0] == 60 and len(np.unique(a)) == 60


def test_a_batch_depends_on_seed_and_step_alone():
    mixed = mixed_streams(end=(1, 9))
    first = mixed.batch(5, 7, 4, 10, 20)
    rows_before.cache_clear()
    for step in (3, 19, 0):
        mixed.batch(6, step, 4, 10, 20)
    assert np.array_equal(mixed.batch(5, 7, 4, 10, 20), first)
    assert not np.array_equal(mixed.batch(6, 7, 4, 10, 20), first)
    assert not np.array_equal(mixed.batch(5, 8, 4, 10, 20), first)


def test_without_a_number_of_steps_the_weights_of_the_end_hold():
    mixed = mixed_streams(end=(1, 3))
    assert [(mixed.batch(0, step, 8, 10)[:, 0] < 10_000).sum() for step in range(5)] == [2] * 5


def test_a_step_beyond_the_plan_is_refused():
    mixed = mixed_streams()
    with pytest.raises(DataError, match="step 5 is not one of the 5"):
        mixed.batch(0, 5, 2, 10, 5)


# --- prepared data ---------------------------------------------------------------------------------------------


def test_each_source_keeps_its_own_split_and_validation_has_the_proportions_of_the_end(tmp_path):
    a, b = two_sources(tmp_path)
    mixture = MixtureConfig(sources=(a, b), start=(1, 0), end=(1, 3))
    data = prepare(DataConfig(mixture=mixture, tokenizer="byte", validation_fraction=0.3))
    alone = {name: prepare(DataConfig(source=name, tokenizer="byte", validation_fraction=0.3)) for name in (a, b)}
    for name in (a, b):
        assert np.array_equal(data.train.parts[name].tokens, alone[name].train.tokens)
    text = data.tokenizer.decode(data.validation.tokens.tolist())
    documents = text.split("<|endoftext|>")[:-1]
    held = "".join(data.tokenizer.decode(alone[name].validation.tokens.tolist()) for name in (a, b))
    assert len(documents) == data.validation.n_documents == len(set(documents))
    assert set(documents) <= set(held.split("<|endoftext|>"))
    assert data.validation.n_bytes == sum(map(len, documents))
    sizes = [sum(len(one) + 1 for one in documents if one[0] == letter) for letter in "ab"]
    assert sizes[1] / sum(sizes) == pytest.approx(0.75, abs=0.02)
    early = documents[: len(documents) // 2]
    assert sum(len(one) + 1 for one in early if one[0] == "b") / sum(len(one) + 1 for one in early) == pytest.approx(
        0.75, abs=0.03
    )


def test_a_long_document_waits_until_the_others_have_caught_up():
    """Each beginning of the held-out stream has the proportions of the end, up to a document."""
    lengths = {"long": [3000, 100, 3000, 100], "short": [10] * 2000}
    parts, end = {}, 256
    for value, (name, sizes) in enumerate(lengths.items()):
        tokens = np.concatenate([[*[value] * (size - 1), end] for size in sizes]).astype(np.uint16)
        parts[name] = TokenFile("validation", tokens, n_documents=len(sizes), n_bytes=len(tokens) - len(sizes))
    mixture = MixtureConfig(sources=("long", "short"), start=(1, 3))
    tokens = interleave(parts, mixture, np.ones(257, dtype=int), end).tokens
    ends = np.flatnonzero(tokens == end) + 1
    of_long = np.cumsum(np.isin(tokens, [0]))[ends - 1]
    assert len(tokens) > 10_000 and (np.abs(of_long - 0.25 * ends) < 3000).all()
    assert (of_long <= 0.25 * ends + 1000).all(), "the long one comes when its turn is due, not before"


def test_a_source_without_weight_at_the_end_is_not_evaluated_on(tmp_path):
    a, b = two_sources(tmp_path)
    data = prepare(DataConfig(mixture=MixtureConfig(sources=(a, b), start=(1, 1), end=(0, 1)), tokenizer="byte"))
    assert "a" not in data.tokenizer.decode(data.validation.tokens.tolist()).replace("<|endoftext|>", "")


def test_shares_of_a_step_are_told(tmp_path):
    a, b = two_sources(tmp_path)
    data = DataConfig(mixture=MixtureConfig(sources=(a, b), start=(1, 0), end=(0, 1)), tokenizer="byte")
    config = TrainConfig(data=data, steps=11, batch_size=4)
    tokens = prepare(data)
    for step in range(11):
        batch = tokens.batch(config, step, 8)
        of_a = [bool((row == ord("a")).sum() > (row == ord("b")).sum()) for row in batch]
        assert tokens.shares(config, step) == {f"share of {a}": sum(of_a) / 4, f"share of {b}": 1 - sum(of_a) / 4}
    assert prepare(DataConfig(source=a, tokenizer="byte")).shares(config, 0) == {}


def test_each_source_has_the_settings_that_its_kind_uses(tmp_path):
    """A column for a table, an encoding for a text, and neither for a built-in set."""
    rows = (json.dumps({"said": f"row {number}", "other": "x"}) for number in range(80))
    (tmp_path / "c.jsonl").write_text("\n".join(rows), encoding="utf-8")
    mixture = MixtureConfig(sources=("pydocs", str(tmp_path / "c.jsonl")))
    data = prepare(DataConfig(mixture=mixture, tokenizer="byte", text_field="said", max_documents=70))
    assert "row 1" in data.tokenizer.decode(data.train.parts[str(tmp_path / "c.jsonl")].tokens.tolist())
    mixture = MixtureConfig(sources=("pydocs", "tales"))
    for name, value in dict(text_field="said", encoding="cp1252", include=("*.md",), tokens_per_epoch=9).items():
        with pytest.raises(DataError, match=rf"{name} is a setting that none of pydocs \+ tales uses"):
            prepare(DataConfig(mixture=mixture, tokenizer="byte").replace(**{name: value}))


def test_the_seed_of_tales_holds_within_a_mixture(tmp_path):
    a, _ = two_sources(tmp_path)
    data = DataConfig(mixture=MixtureConfig(sources=(a, "tales")), tokenizer="byte", max_documents=50, seed=3)
    tales = prepare(DataConfig(tokenizer="byte", max_documents=50, seed=3))
    assert prepare(data).train.parts["tales"].fingerprint == tales.train.fingerprint


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(start=(1, 2)), "a mixture needs sources"),
        (dict(sources=("a",)), "two or more different sources"),
        (dict(sources=("a", "a")), "two or more different sources"),
        (dict(sources=("a", "b"), start=(1,)), "start has 1 weights for 2 sources"),
        (dict(sources=("a", "b"), end=(1, 2, 3)), "end has 3 weights for 2 sources"),
        (dict(sources=("a", "b"), start=(-1, 2)), "a weight below 0"),
        (dict(sources=("a", "b"), end=(0, 0)), "one weight at least must be above 0"),
        (dict(sources=("a", "b"), end=(0, 1), transition="exponential"), "can't reach 0"),
        (dict(sources=("a", "b"), begin=0.6, finish=0.5), "before it begins"),
        (dict(sources=("a", "b"), jumps=3), "belong to the transition 'step'"),
    ],
)
def test_impossible_mixtures_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        MixtureConfig(**settings)


def test_one_source_and_several_are_not_given_together():
    with pytest.raises(ConfigError, match=r"stands beside mixture\.sources"):
        DataConfig(source="pydocs", mixture=CODE_TO_TEXT)


def test_a_missing_source_of_a_mixture_is_refused(tmp_path):
    a, _ = two_sources(tmp_path)
    with pytest.raises(DataError, match=r"no file or folder .*gone\.txt"):
        prepare(DataConfig(mixture=MixtureConfig(sources=(a, "gone.txt")), tokenizer="byte"))


def test_a_source_too_short_for_a_window_is_named(tmp_path):
    a, b = two_sources(tmp_path)
    data = prepare(DataConfig(mixture=MixtureConfig(sources=(a, b)), tokenizer="byte"))
    shorter = min((a, b), key=lambda name: len(data.train.parts[name]))
    with pytest.raises(DataError, match=rf"{Path(shorter).name}: the train tokens are"):
        data.train.n_windows(len(data.train.parts[shorter]))
