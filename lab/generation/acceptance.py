"""The rule by which a drafted token is kept or replaced, so that the text has the model's own distribution.

A draft x ~ q is kept with probability min(1, p(x) / q(x)), else replaced by a draw from max(0, p − q), normalised
(Leviathan et al. 2022, arXiv 2211.17192, theorem 1). Greedy decoding is the case where p and q are 0 or 1: a draft is
kept if it is the model's own choice, and else this choice replaces it.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lab.generation.sampling import pick_ids


class Verdict(NamedTuple):
    """What became of k drafts in each of B rows, on the CPU.

    kept: whether the rule keeps a draft (B, k), each taken by itself; it counts only if all before it are kept. count:
    how many drafts of the row are kept (B). following: the token after these (B). q, p: the draft's probability under
    the drafter and under the model (B, k). overlap: Σ min(p, q) over all tokens, the chance that a draft from q is kept
    (B, k).
    """

    kept: Tensor
    count: Tensor
    following: Tensor
    q: Tensor
    p: Tensor
    overlap: Tensor


def verify(guesses: Tensor, q: Tensor, p: Tensor, uniform: Tensor, most: Tensor) -> Verdict:
    """Applies the rule to guesses (B, k), drawn from q (B, k, V), where the model's distributions are p (B, k+1, V).

    uniform: random numbers from [0, 1), one for each draft and one for the token that follows (B, k+1). most: how many
    drafts of a row may be kept (B). All are on the CPU, the probabilities in float64.
    """
    at_guess = guesses[..., None]  # (B, k, 1)
    q_guess, p_guess = q.gather(2, at_guess)[..., 0], p[:, :-1].gather(2, at_guess)[..., 0]  # (B, k)
    kept = uniform[:, :-1] * q_guess < p_guess  # (B, k)
    count, rows = leading(kept).minimum(most), torch.arange(len(p))  # (B)
    # where no draft was refused, the token that follows is drawn from max(0, p − 0)
    refused = F.pad(q, (0, 0, 0, 1))[rows, count] * (count < most)[:, None]  # (B, V)
    following = pick_ids(residual(p[rows, count], refused), uniform[:, -1])  # (B)
    overlap = torch.minimum(p[:, :-1], q).sum(dim=-1)  # (B, k)
    return Verdict(kept, count, following, q_guess, p_guess, overlap)


def verify_greedy(guesses: Tensor, choices: Tensor, most: Tensor) -> Verdict:
    """The same where p and q are 0 or 1. choices: the model's token at each place (B, k+1)."""
    kept = guesses == choices[:, :-1]  # (B, k)
    count = leading(kept).minimum(most)  # (B)
    following = choices.gather(1, count[:, None])[:, 0]  # (B)
    p = kept.double()  # (B, k)
    return Verdict(kept, count, following, torch.ones_like(p), p, p)


def leading(kept: Tensor) -> Tensor:
    """How many of a row's (B, k) are kept before the first refused one: (B)."""
    return kept.long().cumprod(dim=1).sum(dim=1)


def residual(p: Tensor, q: Tensor) -> Tensor:
    """max(0, p − q) of distributions (…, V), normalised: what replaces a refused draft.

    Where rounding leaves nothing of it, p and q are equal up to rounding, and it is p.
    """
    left = (p - q).clamp(min=0)  # (…, V)
    total = left.sum(dim=-1, keepdim=True)  # (…, 1)
    return torch.where(total > 0, left / total, p)
