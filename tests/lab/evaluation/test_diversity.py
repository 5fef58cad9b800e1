"""Diversity: measures counted by hand and by brute force, errors against the usual ones and against repeated draws."""

import math

import numpy as np
import pytest

from lab.data.tokenizers import load_tokenizer
from lab.evaluation.diversity import (
    NORMAL,
    distinct,
    diversity,
    jackknife_ratio,
    repetition,
    sample_strategies,
    self_overlap,
)
from lab.generation.generate import generate_text, transcribe
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from settings.errors import GenerationError
from tests.helpers.stirred_models import stirred_alike
from tests.helpers.variants import vary

pytestmark = pytest.mark.usefixtures("seeded")
MEASURES = {
    "distinct_1": lambda samples: distinct(samples, 1), "distinct_3": lambda samples: distinct(samples, 3),
    "repetition": repetition, "self_overlap": self_overlap,
}


def random_samples(random: np.random.Generator, n: int = 12) -> list[list[int]]:
    """Ids of which few are frequent, 10 to 29 each."""
    return [(random.geometric(0.5, random.integers(10, 30)) - 1).tolist() for _ in range(n)]


def test_measures_by_hand():
    two = [[1, 2, 3], [1, 2, 4]]
    assert [distinct(two, n)[0] for n in (1, 2, 3)] == [4 / 6, 3 / 4, 1]
    assert repetition([[1, 2, 1, 2, 1, 2], [5, 6, 7, 8]], 2)[0] == pytest.approx((3 / 5 + 0) / 2)
    # of {12, 23}, {12, 24, 42} and {99}: 1/2 one way, 1/3 the other, nothing with the third
    assert self_overlap([[1, 2, 3], [1, 2, 4, 2], [9, 9]], 2)[0] == pytest.approx((1 / 2 + 1 / 3) / 6)
    assert self_overlap(3 * [[1, 2, 3, 4, 5]]) == (1, 0) and distinct(3 * [[1, 2, 3]], 1) == (1 / 3, 0.0)


def test_distinct_of_copies_has_no_error_that_copies_do_not_have():
    """The share of different ids in n copies is 1/n of that in one; leaving one out gives 1/(n − 1) each time."""
    assert distinct(5 * [[1, 2, 3, 1]], 1) == (3 / 20, 0.0)


@pytest.mark.parametrize("name", MEASURES)
def test_errors_are_those_of_leaving_out_one_sample_after_the_other(name):
    measure, samples = MEASURES[name], random_samples(np.random.default_rng(1))
    left = [measure(samples[:i] + samples[i + 1 :])[0] for i in range(len(samples))]
    n = len(left)
    expected = math.sqrt((n - 1) / n * sum((value - np.mean(left)) ** 2 for value in left))
    assert measure(samples)[1] == pytest.approx(expected, rel=1e-9) and expected > 0


def test_the_error_of_a_mean_is_the_usual_one():
    values = np.random.default_rng(2).gamma(2, size=30)
    mean, error = jackknife_ratio(values, np.ones(30))
    assert mean == pytest.approx(values.mean()) and error == pytest.approx(values.std(ddof=1) / math.sqrt(30))


@pytest.mark.parametrize("name", MEASURES)
def test_the_error_is_about_what_the_measure_varies_by(name):
    """Over 500 draws of 12 samples. The sd of so many has an error of 3.2 %, so 15 % below it is out of reach by chance
    (4.7 σ, p < 10⁻⁵); the jackknife may lie above it, as Efron and Stein show."""
    random = np.random.default_rng(3)
    found = np.array([MEASURES[name](random_samples(random)) for _ in range(500)])
    assert 0.85 < np.sqrt((found[:, 1] ** 2).mean()) / found[:, 0].std(ddof=1) < 1.6


def test_without_n_grams_there_is_no_number():
    short = diversity([[1, 2], [1]])
    assert short["distinct_1"][0] == 2 / 3 and all(map(math.isnan, short["repetition"] + short["self_overlap"]))
    assert math.isnan(distinct([[1]], 2)[0])
    one = self_overlap([[1, 2, 3, 4], [1, 2, 3, 4]])
    assert one[0] == 1 and math.isnan(one[1]), "two samples: leaving out one leaves no pair"


# --- from a model ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spoken():
    return stirred_alike(vary("llama", vocab_size=257)), load_tokenizer("byte")


@pytest.fixture(scope="module")
def sampled(spoken):
    return sample_strategies(*spoken, "Once", n_samples=6, max_tokens=20, seed=4)


def test_the_samples_are_those_of_transcribe(spoken, sampled):
    assert list(sampled.samples) == list(sampled.frame.index) == list(STRATEGIES)
    for name, sampling in STRATEGIES.items():
        how = dict(max_tokens=20, sampling=sampling, seed=4)
        assert sampled.samples[name] == transcribe(*spoken, 6 * ["Once"], **how)
        assert sampled.texts().texts[name] == generate_text(*spoken, "Once", **how), "the first is that of the seed"
        ids = [one.tokens for one in sampled.samples[name]]
        row = sampled.frame.loc[name]
        for key, (value, error) in diversity(ids).items():
            assert row[key] == value and row[f"{key}_margin"] == NORMAL * error
        logs = [one.log_probabilities for one in sampled.samples[name]]
        assert row["log_probability"] == pytest.approx(sum(map(sum, logs)) / sum(map(len, logs)))
    assert sampled.texts(3).texts["creative"] == sampled.samples["creative"][3].text


def test_greedy_says_one_thing_and_a_hot_model_many(spoken, sampled):
    greedy = sampled.frame.loc["greedy"]
    assert greedy["self_overlap"] == 1 and greedy["distinct_3_margin"] == greedy["self_overlap_margin"] == 0
    hot = {"hot": SamplingConfig(temperature=50.0)}
    found = sample_strategies(*spoken, "Once", strategies=hot, n_samples=6, max_tokens=20).frame.loc["hot"]
    assert found["self_overlap"] == 0 and found["distinct_3"] > 0.99 > greedy["distinct_3"]
    assert found["log_probability"] < greedy["log_probability"]


def test_it_shows_as_a_table(sampled):
    row = sampled.frame.loc["balanced"]
    cell = f"{row['distinct_2']:.3f} ± {row['distinct_2_margin']:.3f}"
    assert cell in repr(sampled) and cell in sampled._repr_html_() and "6 samples each" in repr(sampled)
    header = repr(sampled).splitlines()[0].split()
    assert header == ["distinct-1", "distinct-2", "distinct-3", "repetition", "self-overlap", "log-probability"]
    assert sampled._repr_html_().count("<tr") == 5


def test_refuses_what_makes_no_sense(spoken):
    for given, message in (
        (dict(n_samples=1), "at least 2 samples"), (dict(strategies={}), "and one strategy"),
        (dict(max_tokens=500), "positions"), (dict(max_tokens=0), "max_tokens"),
    ):
        with pytest.raises(GenerationError, match=message):
            sample_strategies(*spoken, "Once", **given)
