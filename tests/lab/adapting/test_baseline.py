"""The baseline of a classification against independent optimisers."""

from collections import Counter
from math import log

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from lab.adapting.baseline import RARE, Vocabulary, fit_bag_of_words, minimise

TEXTS = [[3, 3, 5], [5, 9], [3], [9, 9, 9, 5], [7, 5, 3]]


def test_vectors_are_logarithms_of_counts_times_the_rarity():
    frequencies = Counter(token for text in TEXTS for token in set(text))
    kept = sorted(token for token, count in frequencies.items() if count >= RARE)
    assert kept == [3, 5, 9]
    for weigh_rarity in (False, True):
        vectors = Vocabulary.of(TEXTS, weigh_rarity).vectors([*TEXTS, [], [100]]).to_dense().numpy()
        rarity = [log((1 + len(TEXTS)) / (1 + frequencies[token])) + 1 if weigh_rarity else 1 for token in kept]
        expected = [[log(1 + text.count(token)) * idf for token, idf in zip(kept, rarity)] for text in TEXTS]
        np.testing.assert_allclose(vectors, [*expected, [0] * 3, [0] * 3], atol=1e-12)


@pytest.mark.parametrize("strength", [0.1, 0.001])
def test_the_minimum_is_scipys(strength):
    random = np.random.default_rng(0)
    x, labels = random.random((60, 4)), random.integers(3, size=60)

    def loss(flat: np.ndarray) -> float:
        weight, bias = flat[:12].reshape(3, 4), flat[12:]
        scores = log_softmax(x @ weight.T + bias, axis=1)
        return -scores[np.arange(60), labels].mean() + strength / 2 * (weight**2).sum()

    expected = minimize(loss, np.zeros(15), method="BFGS", options={"gtol": 1e-8})
    weight, bias = minimise(torch.from_numpy(x).to_sparse(), torch.from_numpy(labels), 3, strength)
    assert loss(np.concatenate([weight.numpy().ravel(), bias.numpy()])) == pytest.approx(expected.fun, abs=1e-10)
    np.testing.assert_allclose(weight.numpy().ravel(), expected.x[:12], atol=1e-4)


def test_texts_that_one_token_tells_apart_are_told_apart():
    random = np.random.default_rng(0)
    labels = random.integers(3, size=90)
    texts = [[*random.integers(10, 40, size=6).tolist(), int(label)] for label in labels]
    bag = fit_bag_of_words(texts[:60], labels[:60], 3)
    assert bag.predict(texts[60:]).tolist() == labels[60:].tolist()


def test_the_order_of_the_words_tells_it_nothing():
    """Each text is there with its words in either order and the other label: no bag can be right on more than half."""
    random = np.random.default_rng(0)
    texts = [random.permutation(8)[:4].tolist() for _ in range(40)]
    both = [ids for text in texts for ids in (text, text[::-1])]
    labels = [0, 1] * 40
    found = fit_bag_of_words(both, labels, 2).predict(both).tolist()
    assert sum(one == label for one, label in zip(found, labels)) == 40
