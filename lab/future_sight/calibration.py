"""Calibration: how well a model predicts the windows ahead, on held-out tokens, beside baselines that only count.

The baselines count in the training tokens, for the same windows. "unigram" is (count(v) + 1) / (n + V). "bigram" counts
the tokens v in the window after the current token c, smoothed towards the unigram by Witten and Bell's rule (1991):
P(v | c) = (count(c, v) + D(c) · unigram(v)) / (count(c) + D(c)), with D(c) the number of different tokens seen there.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.analysis.forward_pass import AnalysisError
from lab.compute.eval_mode import eval_mode
from lab.data.packing import TokenData
from lab.evaluation.evaluate import BATCH
from lab.future_sight.predictions import Level, predicted, read_levels
from modules.losses import CHUNK, future_windows
from modules.transformer import Transformer

PREDICTORS = ("model", "bigram", "unigram")
TOP = 10
BINS = 16  # probabilities from ½ on, from ¼ to ½, ..., and all below 2⁻¹⁵
PIECE = 1 << 22  # training tokens counted at once: bounds the memory


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """The result of `calibration`.

    measures: level; first and last, its offsets; predictor; windows, the number of complete ones; loss, nats per token
    of the window, −mean log share(token); share, the mean share given to the window's tokens; top_window and top_10,
    the part of the window's different tokens that is among the W likeliest (W tokens are in the window) and among the
    10 likeliest; calibration_error, of the model only.

    bins, of the model only: level; low and high, the ends of the bin; predicted and observed, the means over all pairs
    of a window and a token of the vocabulary whose prediction lies in the bin; pairs, their number for each window. For
    a bag the observed value is the token's share of the window, count / W, because the bag loss is least when the
    prediction equals the expectation of this share. For a multi_hot level it is 1 if the token occurs and 0 if not, and
    the predicted value is the level's probability.

    calibration_error = Σ_bins |Σ predicted − Σ observed| / Σ observed, 0 at best. A bin counts by its predictions and
    not by its pairs, because nearly all tokens of the vocabulary have a probability near 0 everywhere.
    """

    measures: pd.DataFrame
    bins: pd.DataFrame

    def __repr__(self) -> str:
        return self.measures.to_string(index=False, float_format="{:.4f}".format)

    def _repr_html_(self) -> str:
        return self.measures.to_html(index=False, float_format="{:.4f}".format)


def calibration(model: Transformer, data: TokenData, max_tokens: int = 32_768) -> Calibration:
    """How well each level predicts the complete windows of the first max_tokens held-out tokens, in texts as long as
    the model's context.

    Raises AnalysisError for levels that predict vectors, for tokens that the model lacks, and for a level without a
    complete window.
    """
    vocab_size = model.config.vocab_size
    if data.tokenizer.vocab_size > vocab_size:
        raise AnalysisError(
            f"{data.tokenizer.name} has {data.tokenizer.vocab_size:,} tokens, the model {vocab_size:,}: give the data "
            "that it was trained on, run.load_data()"
        )
    unigram = unigram_shares(data.train.tokens, vocab_size)
    bigrams: dict[Level, Bigrams] = {}
    tallies: dict[Level, Tally] = {}
    with torch.inference_mode(), eval_mode(model):
        for windows in data.validation.windows(model.config.context_length, BATCH, max_tokens):
            tokens = torch.from_numpy(windows)
            for level, read in read_levels(model, tokens[:, :-1]).items():
                if level not in tallies:
                    bigrams[level] = Bigrams(data.train.tokens, level, unigram)
                    tallies[level] = Tally(level)
                answers = future_windows(tokens, level.first, level.last)
                complete = answers.shape[1]
                rows, current = read[:, :complete].flatten(0, 1), tokens[:, :complete].flatten()
                pieces = zip(predicted(model, level, rows), current.split(CHUNK), answers.flatten(0, 1).split(CHUNK))
                for bags, now, true in pieces:
                    shares = (bags.share, bigrams[level](now), unigram.expand(len(now), -1))
                    tallies[level].add(dict(zip(PREDICTORS, shares)), bags.chance, true)
    empty = [level.name for level, tally in tallies.items() if not tally.n_windows]
    if empty:
        raise AnalysisError(f"no window {', '.join(empty)} is complete in max_tokens={max_tokens}; raise max_tokens")
    return Calibration(
        measures=pd.DataFrame([row for tally in tallies.values() for row in tally.measures()]),
        bins=pd.DataFrame([row for tally in tallies.values() for row in tally.bins()]),
    )


# --- the baselines --------------------------------------------------------------------------------------------


def unigram_shares(tokens: np.ndarray, vocab_size: int) -> Tensor:
    """(count(v) + 1) / (n + V), as (V)."""
    counts = np.bincount(tokens, minlength=vocab_size) + 1
    return torch.from_numpy(counts / counts.sum()).float()


class Bigrams:
    """P(v | c) for the window of a level after the token c. Only pairs that occur are stored."""

    def __init__(self, tokens: np.ndarray, level: Level, unigram: Tensor):
        self.unigram, vocab_size = unigram, len(unigram)
        pairs, counts = pair_counts(tokens, level, vocab_size)
        self.ahead, self.counts = torch.from_numpy(pairs % vocab_size), torch.from_numpy(counts).float()
        self.starts = np.searchsorted(pairs, np.arange(vocab_size + 1) * vocab_size)  # where each c's pairs begin

    def __call__(self, current: Tensor) -> Tensor:
        """The shares (N, V) after each of current (N)."""
        different, place = current.unique(return_inverse=True)
        table = torch.zeros(len(different), len(self.unigram))
        for row, token in zip(table, different.tolist()):
            seen = slice(self.starts[token], self.starts[token + 1])
            row[self.ahead[seen]] = self.counts[seen]
        kinds = (table > 0).sum(-1, keepdim=True).clamp(min=1)  # after an unknown token this gives the unigram
        table = (table + kinds * self.unigram) / (table.sum(-1, keepdim=True) + kinds)
        return table[place]


def pair_counts(tokens: np.ndarray, level: Level, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """How often each token v occurs first to last places after each token c: c · V + v in order, and the counts.

    A table of all V² pairs is counted in a tenth of the time that sorting takes, where it is no larger than a piece.
    """
    if vocab_size**2 <= PIECE:
        table = np.zeros(vocab_size**2, dtype=np.int64)
        for pairs in pieces_of_pairs(tokens, level, vocab_size):
            table += np.bincount(pairs, minlength=len(table))
        return table.nonzero()[0], table[table > 0]
    found = [np.unique(pairs, return_counts=True) for pairs in pieces_of_pairs(tokens, level, vocab_size)]
    if not found:
        return np.empty(0, dtype=np.int64), np.empty(0)
    pairs, place = np.unique(np.concatenate([pairs for pairs, _ in found]), return_inverse=True)
    return pairs, np.bincount(place, weights=np.concatenate([counts for _, counts in found]))


def pieces_of_pairs(tokens: np.ndarray, level: Level, vocab_size: int) -> Iterator[np.ndarray]:
    """c · V + v for each token c and the tokens v ahead of it, at most PIECE at once."""
    for offset in range(level.first, level.last + 1):
        for start in range(0, len(tokens) - offset, PIECE):
            ahead = tokens[start + offset : start + offset + PIECE].astype(np.int64)
            yield tokens[start : start + len(ahead)].astype(np.int64) * vocab_size + ahead


# --- the sums -------------------------------------------------------------------------------------------------


class Tally:
    """Sums over the windows of one level."""

    def __init__(self, level: Level):
        self.level, self.n_windows = level, 0
        self.sums = pd.DataFrame(0.0, index=PREDICTORS, columns=["loss", "share", "top_window", "top_10"])
        self.pairs, self.predicted, self.observed = np.zeros((3, BINS))

    def add(self, shares: dict[str, Tensor], chance: Tensor, true: Tensor) -> None:
        """shares (N, V) by predictor, the model's chance (N, V) and the windows' tokens (N, W)."""
        self.n_windows += len(true)
        true = true.sort().values
        first = torch.ones_like(true, dtype=torch.bool)  # of each different token
        first[:, 1:] = true[:, 1:] != true[:, :-1]
        for name, share in shares.items():
            given = share.gather(1, true).double()
            covered = (coverage(share, true, first, k) for k in (self.level.size, TOP))
            found = -given.log().mean(1).sum(), given.mean(1).sum(), *covered
            self.sums.loc[name] += [number.item() for number in found]
        # frexp is exact: p = m · 2^e with ½ ≤ m < 1; 1 itself has e = 1 and joins the top bin, 0 must not
        place = (-torch.frexp(chance.clamp(min=2.0**-BINS)).exponent).clamp(0, BINS - 1)
        self.pairs += np.bincount(place.flatten(), minlength=BINS)
        self.predicted += np.bincount(place.flatten(), chance.flatten().double(), minlength=BINS)
        there = torch.full_like(given, 1 / self.level.size) if self.level.offset is None else first.double()
        self.observed += np.bincount(place.gather(1, true).flatten(), there.flatten(), minlength=BINS)

    def measures(self) -> Iterator[dict]:
        error = np.abs(self.predicted - self.observed).sum() / self.observed.sum()
        for name, sums in (self.sums / self.n_windows).iterrows():
            about = dict(zip(("level", "first", "last"), self.level), predictor=name, windows=self.n_windows)
            yield about | dict(sums) | {"calibration_error": error if name == "model" else np.nan}

    def bins(self) -> Iterator[dict]:
        for i in np.flatnonzero(self.pairs):
            ends = {"low": 0.0 if i == BINS - 1 else 2.0 ** -(i + 1), "high": 2.0**-i}
            means = {"predicted": self.predicted[i] / self.pairs[i], "observed": self.observed[i] / self.pairs[i]}
            yield {"level": self.level.number} | ends | means | {"pairs": self.pairs[i] / self.n_windows}


def coverage(share: Tensor, true: Tensor, first: Tensor, k: int) -> Tensor:
    """The sum over windows of the part of their different tokens (those marked by `first`) among the k likeliest."""
    likeliest = torch.zeros_like(share, dtype=torch.bool)
    likeliest.scatter_(1, share.topk(min(k, share.shape[1])).indices, True)
    hits = likeliest.gather(1, true) & first
    return (hits.sum(1) / first.sum(1)).double().sum()
