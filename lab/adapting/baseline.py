"""The baseline of a classification: logistic regression on which tokens a text has, and how often, without their order.

    p(class | text) = softmax(W · x + b),  x_v = log(1 + n_v) · idf_v

n_v counts token v in the text; idf_v = log((1 + N) / (1 + N_v)) + 1, or 1, for the N_v of N training texts that have
the token (Spärck Jones 1972). W and b minimise the mean of −log p(label) + λ/2 · ‖W‖², which has one minimum.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

RARE = 2  # training texts that must have a token: what one text alone has tells nothing about others
STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)  # the λ that are tried
TUNING_SHARE = 5  # one in so many training texts chooses among them
ITERATIONS = 200
TOLERANCE = 1e-7  # of the gradient, where the fit ends

Ids = Sequence[Sequence[int]]  # the token ids of each text


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens that the baseline counts, and what each count is multiplied by."""

    ids: Tensor  # (V)
    weights: Tensor  # (V), float64

    @classmethod
    def of(cls, texts: Ids, weigh_rarity: bool) -> "Vocabulary":
        """The tokens that at least RARE of the texts have."""
        found = torch.tensor([token for text in texts for token in set(text)], dtype=torch.long)
        ids, texts_with = found.unique(return_counts=True)
        ids, texts_with = ids[texts_with >= RARE], texts_with[texts_with >= RARE].double()
        weights = torch.log((1 + len(texts)) / (1 + texts_with)) + 1
        return cls(ids, weights if weigh_rarity else torch.ones_like(weights))

    def vectors(self, texts: Ids) -> Tensor:
        """x of each text: (N, V), float64, sparse: a text has few of the tokens."""
        column = {token: place for place, token in enumerate(self.ids.tolist())}
        places = [(row, column[token]) for row, text in enumerate(texts) for token in text if token in column]
        where = torch.tensor(places, dtype=torch.long).view(-1, 2).T
        ones = torch.ones(len(places), dtype=torch.float64)
        shape = len(texts), len(column)
        counts = torch.sparse_coo_tensor(where, ones, shape, check_invariants=True).coalesce()
        values = counts.values().log1p() * self.weights[counts.indices()[1]]
        return torch.sparse_coo_tensor(counts.indices(), values, shape, is_coalesced=True, check_invariants=True)


@dataclass(frozen=True, eq=False)
class BagOfWords:
    """A fitted baseline. strength: the λ that was chosen; weighs_rarity: whether idf is in x."""

    vocabulary: Vocabulary
    weight: Tensor
    bias: Tensor
    strength: float

    def predict(self, texts: Ids) -> Tensor:
        """The likeliest class of each text: (N)."""
        return class_scores(self.vocabulary.vectors(texts), self.weight, self.bias).argmax(dim=1)


def fit_bag_of_words(texts: Ids, labels: Sequence[int], n_classes: int) -> BagOfWords:
    """Fits W and b to the texts. Every TUNING_SHARE-th of them first chooses λ and whether idf is used."""
    targets = torch.as_tensor(labels)
    chooses = torch.arange(len(texts)) % TUNING_SHARE == 0
    found: dict[tuple[float, bool], int] = {}
    for weigh_rarity in (False, True):
        kept = [text for text, out in zip(texts, chooses) if not out]
        vocabulary = Vocabulary.of(kept, weigh_rarity)
        x, tuning = vocabulary.vectors(kept), vocabulary.vectors([t for t, out in zip(texts, chooses) if out])
        for strength in STRENGTHS:
            weight, bias = minimise(x, targets[~chooses], n_classes, strength)
            right = (class_scores(tuning, weight, bias).argmax(dim=1) == targets[chooses]).sum().item()
            found[strength, weigh_rarity] = right
    strength, weigh_rarity = max(found, key=found.get)
    vocabulary = Vocabulary.of(texts, weigh_rarity)
    return BagOfWords(vocabulary, *minimise(vocabulary.vectors(texts), targets, n_classes, strength), strength)


def minimise(x: Tensor, targets: Tensor, n_classes: int, strength: float) -> tuple[Tensor, Tensor]:
    """The weight (n_classes, V) and the bias (n_classes) at the minimum, by L-BFGS from 0.

    The gradient of W is (p − y)ᵀ·x / N + λ·W, with the label's class as y.
    """
    weight, bias = torch.zeros(n_classes, x.shape[1], dtype=x.dtype), torch.zeros(n_classes, dtype=x.dtype)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=ITERATIONS, tolerance_grad=TOLERANCE, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    by_token, labels = x.T.coalesce(), F.one_hot(targets, n_classes)

    @torch.no_grad()
    def loss() -> Tensor:
        log_p = class_scores(x, weight, bias).log_softmax(dim=1)
        d_scores = (log_p.exp() - labels) / len(targets)
        weight.grad = weighted_sums(by_token, d_scores).T.contiguous() + strength * weight
        bias.grad = d_scores.sum(dim=0)
        return F.nll_loss(log_p, targets) + strength / 2 * weight.square().sum()

    optimizer.step(loss)
    return weight, bias


def class_scores(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W · x + b of each text: (N, n_classes)."""
    return weighted_sums(x, weight.T) + bias


def weighted_sums(x: Tensor, rows: Tensor) -> Tensor:
    """x · rows for a sparse x (N, M) and rows (M, n_classes): (N, n_classes). torch.sparse.mm takes longer."""
    which, places = x.indices()
    starts = torch.searchsorted(which, torch.arange(x.shape[0]))
    return F.embedding_bag(places, rows.contiguous(), starts, mode="sum", per_sample_weights=x.values())
