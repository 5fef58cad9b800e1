"""Samplers against numbers computed by hand, definitions in plain Python, and frequencies."""

import itertools
import math

import pytest
import torch

from lab.generation.sampling import filter_logits, probabilities, sample
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig, strategy
from settings.errors import ConfigError

CERTAIN = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def settings(**changes) -> SamplingConfig:
    return SamplingConfig(**{"temperature": 1.0, **changes})


def marked(ids: list[int], vocab_size: int) -> torch.Tensor:
    return torch.tensor([[id in ids for id in range(vocab_size)]])


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (settings(), [0.5, 0.3, 0.15, 0.05]),
        (settings(temperature=0.5), [0.25 / 0.365, 0.09 / 0.365, 0.0225 / 0.365, 0.0025 / 0.365]),
        (settings(temperature=0.0), [1, 0, 0, 0]),
        (settings(top_k=2), [0.625, 0.375, 0, 0]),
        (settings(top_k=9), [0.5, 0.3, 0.15, 0.05]),
        (settings(top_p=0.79), [0.625, 0.375, 0, 0]),
        (settings(top_p=0.81), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        (settings(top_p=0.01), [1, 0, 0, 0]),
        (settings(min_p=0.2), [0.5 / 0.95, 0.3 / 0.95, 0.15 / 0.95, 0]),
        (settings(min_p=0.31), [0.625, 0.375, 0, 0]),
        # top-p sees what top-k left: 0.5 of 0.8 is 0.625
        (settings(top_k=2, top_p=0.6), [1, 0, 0, 0]),
        # temperature comes first: 0.25 of 0.365 is 0.685
        (settings(temperature=0.5, top_p=0.6), [1, 0, 0, 0]),
    ],
)
def test_by_hand(config, expected):
    assert probabilities(CERTAIN, None, config)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_repetition_penalty_by_hand():
    logits = torch.tensor([[2.0, -1.0, 0.5, -3.0]])
    left = filter_logits(logits, marked([0, 1], 4), settings(repetition_penalty=2.0))
    assert left.tolist() == [[1.0, -2.0, 0.5, -3.0]]
    assert filter_logits(logits, None, settings(repetition_penalty=2.0)).tolist() == logits.tolist()
    # before the temperature, and heard by greedy: 2/5 is less than 0.5
    config = SamplingConfig(temperature=0.0, repetition_penalty=5.0)
    assert sample(logits, marked([0, 1], 4), config, generator()).tolist() == [2]


def by_definition(logits: list[float], previous: set[int], config: SamplingConfig) -> list[float]:
    """The probabilities of one row, from the definitions, in Python's float64."""
    penalty = config.repetition_penalty
    logits = [(x / penalty if x > 0 else x * penalty) if id in previous else x for id, x in enumerate(logits)]
    order = sorted(range(len(logits)), key=lambda id: (-logits[id], id))
    if config.temperature == 0:
        return [float(id == order[0]) for id in range(len(logits))]

    def shares(kept: list[int]) -> dict[int, float]:
        weights = {id: math.exp((logits[id] - logits[order[0]]) / config.temperature) for id in kept}
        return {id: weight / sum(weights.values()) for id, weight in weights.items()}

    kept = order[: config.top_k]
    if config.top_p is not None:
        sums = list(itertools.accumulate(shares(kept).values()))
        kept = kept[: 1 + sum(total < config.top_p for total in sums[:-1])]
    if config.min_p is not None:
        share = shares(kept)
        kept = [id for id in kept if share[id] >= config.min_p * share[kept[0]]]
    share = shares(kept)
    return [share.get(id, 0.0) for id in range(len(logits))]


@pytest.mark.parametrize("tied", [False, True])
def test_every_combination_equals_its_definition(seeded, tied):
    logits = torch.randn(3, 40) * 3
    logits = logits.round() if tied else logits
    previous = torch.rand(3, 40) < 0.3
    seen = [set(row.nonzero().flatten().tolist()) for row in previous]
    for temperature, top_k, top_p, min_p, penalty in itertools.product(
        (0.0, 0.7, 1.6), (None, 1, 7), (None, 0.33, 0.91), (None, 0.04, 0.47), (1.0, 1.3, 0.8)
    ):
        config = SamplingConfig(
            temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty
        )
        expected = [by_definition(row, ids, config) for row, ids in zip(logits.tolist(), seen)]
        torch.testing.assert_close(
            probabilities(logits, previous, config), torch.tensor(expected), atol=1e-6, rtol=1e-5, msg=str(config)
        )


@pytest.mark.parametrize("distinct", [1, 2, 5, 1000])
def test_top_k_keeps_exactly_k_and_the_lowest_ids_of_a_tie(seeded, distinct):
    logits = torch.randint(distinct, (4, 50)).float()
    for k in range(1, 60):
        kept = filter_logits(logits, None, settings(top_k=k)).isfinite()
        assert kept.sum(dim=-1).tolist() == [min(k, 50)] * 4
        for row, keeps in zip(logits.tolist(), kept):
            order = sorted(range(50), key=lambda id: (-row[id], id))
            assert keeps.nonzero().flatten().tolist() == sorted(order[:k])


@pytest.mark.parametrize("p", [0.05, 0.5, 0.9, 0.999])
def test_top_p_keeps_the_smallest_set_that_reaches_p(seeded, p):
    plain = (torch.randn(20, 50) * 2).softmax(dim=-1)
    kept = filter_logits(plain.log(), None, settings(top_p=p)).isfinite()
    reached = (plain * kept).sum(dim=-1)
    least = plain.masked_fill(~kept, 2.0).amin(dim=-1)
    assert (reached >= p - 1e-6).all()
    assert (reached - least < p + 1e-6).all()
    assert (plain.masked_fill(kept, 0.0).amax(dim=-1) <= least).all()


def test_top_p_of_one_keeps_all(seeded):
    logits = torch.randn(4, 5000) * 8  # the last of these no longer move the sum in float32
    assert filter_logits(logits, None, settings(top_p=1.0)).equal(logits)


def test_inputs_stay_as_they_are(seeded):
    logits, previous = torch.randn(3, 20), torch.rand(3, 20) < 0.5
    before = logits.clone(), previous.clone()
    for config in STRATEGIES.values():
        sample(logits, previous, config, generator())
    assert logits.equal(before[0]) and previous.equal(before[1])


@pytest.mark.parametrize("config", [*STRATEGIES.values(), settings(), settings(top_k=5), settings(temperature=2.0)])
def test_frequencies_are_the_probabilities(seeded, config):
    """Pearson's χ² over 40,000 draws, against its 99.9 % point (Wilson & Hilferty 1931)."""
    n_draws, vocab_size = 40_000, 12
    logits, previous = torch.randn(1, vocab_size), torch.rand(1, vocab_size) < 0.5
    expected = probabilities(logits, previous, config)[0].double() * n_draws
    drawn = sample(logits.expand(n_draws, -1), previous.expand(n_draws, -1), config, generator())
    counts = drawn.bincount(minlength=vocab_size)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    freedom = max(1, int(possible.sum()) - 1)
    statistic = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
    assert statistic < freedom * (1 - 2 / (9 * freedom) + 3.09 * math.sqrt(2 / (9 * freedom))) ** 3


def test_temperature_zero_is_greedy_with_the_lowest_id_of_a_tie():
    logits = torch.tensor([[0.0, 3.0, 3.0], [1.0, -1.0, 0.5], [-2.0, -2.0, -2.0]])
    assert sample(logits, None, STRATEGIES["greedy"], generator()).tolist() == [1, 0, 0]
    assert sample(logits, None, settings(top_k=1), generator()).tolist() == [1, 0, 0]
    assert probabilities(logits, None, STRATEGIES["greedy"]).argmax(dim=-1).tolist() == [1, 0, 0]


@pytest.mark.parametrize("temperature", [0.001, 1000.0])
def test_the_ends_of_the_temperature_range(temperature):
    p = probabilities(torch.tensor([[40.0, -40.0, 0.0, 39.0]]), None, settings(temperature=temperature))[0]
    assert p.tolist() == pytest.approx([1, 0, 0, 0] if temperature < 1 else [0.25] * 4, abs=0.02)


def test_a_seed_gives_the_same_ids_again_and_another_seed_others(seeded):
    logits = torch.randn(200, 30)
    first, again, other = (sample(logits, None, settings(), generator(seed)) for seed in (1, 1, 2))
    assert first.equal(again)
    assert not first.equal(other)


def test_rows_with_generators_of_their_own_are_drawn_as_if_alone(seeded):
    logits = torch.randn(6, 30)
    together = sample(logits, None, settings(), [generator(seed) for seed in range(6)])
    alone = [sample(logits[row : row + 1], None, settings(), generator(row)).item() for row in range(6)]
    assert together.tolist() == alone


@pytest.mark.parametrize(("drawn", "expected"), [(0.0, 1), (1 - 2**-53, 2)])
def test_the_ends_of_the_draw_fall_on_no_excluded_token(monkeypatch, drawn, expected):
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: torch.full(shape, drawn, dtype=torch.float64))
    logits = torch.tensor([[-torch.inf, 0.3, 0.1, -torch.inf]])
    assert sample(logits, None, settings(), generator()).tolist() == [expected]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (dict(temperature=-0.1), "temperature must be 0 (greedy) or lie between 0.001 and 1000, not -0.1"),
        (dict(temperature=float("nan")), "temperature must be"),
        (dict(temperature=1e-9), "between 0.001 and 1000"),
        (dict(top_k=0), "top_k must be an integer from 1 to"),
        (dict(top_p=0.0), "top_p must lie above 0 and at most at 1, not 0.0"),
        (dict(top_p=1.01), "top_p must lie above 0 and at most at 1, not 1.01"),
        (dict(min_p=-0.1), "min_p must lie between 0 and 1, not -0.1"),
        (dict(min_p=1.1), "min_p must lie between 0 and 1, not 1.1"),
        (dict(repetition_penalty=0.0), "repetition_penalty must lie between 0.001 and 1000, not 0.0"),
        (dict(repetition_penalty=float("inf")), "repetition_penalty must be"),
        (dict(top_k=2.5), "top_k must be"),
        (dict(topk=5), "did you mean 'top_k'"),
    ],
)
def test_impossible_settings_say_the_range(wrong, says):
    with pytest.raises(ConfigError) as error:
        SamplingConfig(**wrong)
    assert says in str(error.value)


def test_strategies_by_name():
    assert strategy("greedy").temperature == 0
    assert len(set(STRATEGIES.values())) == len(STRATEGIES) == 4
    with pytest.raises(ConfigError, match=r"did you mean 'creative'.*balanced, creative, greedy, precise"):
        strategy("creativ")
