"""The acceptance rule on made-up distributions: what results is drawn from p, whatever q is (chi-square)."""

import pytest
import torch
from scipy.stats import chisquare

from lab.generation.acceptance import residual, verify, verify_greedy
from lab.generation.sampling import pick_ids

ROWS, V = 40_000, 5


def distributions(*shape: int, sharpness: float = 1.5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(*shape, V, generator=generator, dtype=torch.float64)).softmax(dim=-1)


@pytest.mark.parametrize("most", [0, 1, 2])
def test_the_tokens_have_the_distribution_of_the_model(most):
    """Two drafts, of which `most` may be kept, and the token that follows, against the product of what the model gives
    each place. For one seed in a thousand it would fail by chance."""
    q, p = distributions(2, seed=1), distributions(3, seed=2)
    generator = torch.Generator().manual_seed(most)
    uniform = torch.rand(ROWS, 5, generator=generator, dtype=torch.float64)
    guesses = torch.stack([pick_ids(q[i].expand(ROWS, -1), uniform[:, 3 + i]) for i in range(2)], dim=1)
    verdict = verify(guesses, q.expand(ROWS, -1, -1), p.expand(ROWS, -1, -1), uniform[:, :3], torch.full((ROWS,), most))
    counts = torch.zeros(3, V)
    for count in range(most + 1):  # by how many drafts are kept, what stands at each place
        rows = verdict.count == count
        for place in range(count):
            counts[place] += guesses[rows, place].bincount(minlength=V)
        counts[count] += verdict.following[rows].bincount(minlength=V)
    assert int(verdict.count.max()) == most and counts[0].sum() == ROWS
    for place in range(most + 1):
        assert chisquare(counts[place].numpy(), (p[place] * counts[place].sum()).numpy()).pvalue > 1e-3 / 6


def test_each_draft_is_kept_as_often_as_the_overlap_says():
    q, p = distributions(1, seed=3), distributions(2, seed=4)
    uniform = torch.rand(ROWS, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    guesses = pick_ids(q.expand(ROWS, -1), uniform[:, 2])[:, None]
    verdict = verify(guesses, q.expand(ROWS, -1, -1), p.expand(ROWS, -1, -1), uniform[:, :2], torch.ones(ROWS).long())
    overlap = float(1 - (p[0] - q[0]).abs().sum() / 2)  # 1 − total variation
    assert verdict.overlap.flatten().tolist() == pytest.approx([overlap] * ROWS)
    sd = (overlap * (1 - overlap) / ROWS) ** 0.5
    assert abs(float(verdict.kept.double().mean()) - overlap) < 4 * sd


def test_equal_distributions_keep_every_draft():
    p = distributions(7, 3)
    guesses = p[:, :2].argmin(dim=-1)
    uniform = torch.full((7, 3), 1 - 2.0**-53, dtype=torch.float64)  # the largest there is
    verdict = verify(guesses, p[:, :2], p, uniform, torch.full((7,), 2))
    assert verdict.kept.all() and verdict.count.tolist() == [2] * 7
    assert torch.equal(residual(p, p), p)  # nothing is left, so that p stands for it


def test_greedy_is_the_rule_for_certain_choices():
    generator = torch.Generator().manual_seed(6)
    guesses, choices = (torch.randint(2, (200, n), generator=generator) for n in (3, 4))
    most = torch.randint(4, (200,), generator=generator)
    uniform = torch.rand(200, 4, generator=generator, dtype=torch.float64)
    greedy = verify_greedy(guesses, choices, most)
    one_hot = [torch.nn.functional.one_hot(ids, 2).double() for ids in (guesses, choices)]
    for found, expected in zip(greedy, verify(guesses, *one_hot, uniform, most)):
        assert torch.equal(found, expected)
