"""How different many continuations of one prompt are from each other, and how often each repeats itself.

distinct-n    different n-grams ÷ all n-grams of the samples (Li et al. 2016, arXiv 1510.03055, who divide by tokens)
repetition    mean over samples of 1 − different 4-grams ÷ 4-grams (Welleck et al. 2019, arXiv 1908.04319)
self-overlap  mean over ordered pairs of samples of the share of one's different 4-grams that the other has too

The n-grams are of token ids. Margins are 1.96 standard errors by the jackknife, which leaves out one sample at a time:
se² = (n − 1) / n · Σ (θ₋ᵢ − mean θ₋ᵢ)². The bootstrap does not serve here: it draws some samples twice, and a sample
that is there twice has no n-gram of its own. Of any symmetric statistic, Σ (θ₋ᵢ − mean θ₋ᵢ)² is on average at least
the variance that it has with n − 1 samples (Efron & Stein 1981), so the margins are rather too wide than too narrow.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from lab.data.tokenizers import Tokenizer
from lab.display.html import render
from lab.display.plots import SideBySide, side_by_side
from lab.evaluation.bootstrap import CONFIDENCE
from lab.generation.generate import Transcript, transcribe
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from modules.transformer import Transformer
from settings.errors import GenerationError

NORMAL = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)  # 1.96 standard errors to each side
SPAN = 4  # tokens of the n-grams of repetition and self-overlap
MARGIN = "_margin"  # the end of the name of a column
PAGE = """
<div style="overflow-x:auto">{{ table|safe }}</div><div>{{ note }}</div>
"""

Ids = Sequence[int]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class StrategySamples:
    """Many continuations of one prompt by each strategy. `frame` has their measures, `samples` the transcripts."""

    prompt: str
    samples: dict[str, list[Transcript]]
    frame: pd.DataFrame

    def texts(self, number: int = 0) -> SideBySide:
        """One continuation of each strategy, side by side. number: which one; 0 is that of the seed alone."""
        return side_by_side({name: made[number].text for name, made in self.samples.items()})

    @property
    def note(self) -> str:
        n = len(next(iter(self.samples.values())))
        return (
            f"{n} samples each, ± half of the {CONFIDENCE * 100:.0f} % interval over samples. distinct-n: share of "
            f"n-grams that are different, over all samples; repetition: share of {SPAN}-grams that the sample had "
            f"before; self-overlap: share of {SPAN}-grams that another sample has too; log-probability: under the "
            "model itself, nats per token"
        )

    def readable_table(self) -> pd.DataFrame:
        names = [name for name in self.frame.columns if not name.endswith(MARGIN)]
        return pd.DataFrame({
            name.replace("_", "-"): [
                f"{value:.3f} ± {margin:.3f}" for value, margin in zip(self.frame[name], self.frame[name + MARGIN])
            ] for name in names
        }, index=self.frame.index.rename(None))

    def __repr__(self) -> str:
        return f"{self.readable_table().to_string()}\n{self.note}"

    def _repr_html_(self) -> str:
        return render(PAGE, table=self.readable_table().to_html(border=0), note=self.note)


def sample_strategies(
    model: Transformer, tokenizer: Tokenizer, prompt: str | Sequence[int], *,
    strategies: Mapping[str, SamplingConfig] = STRATEGIES, n_samples: int = 50, max_tokens: int | None = 60,
    seed: int = 0,
) -> StrategySamples:
    """Continues a prompt n_samples times with each strategy, and measures how the continuations differ.

    Raises GenerationError for a single sample, no strategy, and a prompt that the model can't continue.
    """
    if n_samples < 2 or not strategies:
        raise GenerationError(
            f"{n_samples} samples of {len(strategies)} strategies: give at least 2 samples, whose differences can be "
            "measured, and one strategy"
        )
    samples = {
        name: transcribe(model, tokenizer, n_samples * [prompt], max_tokens=max_tokens, sampling=sampling, seed=seed)
        for name, sampling in strategies.items()
    }
    rows = {}
    for name, made in samples.items():
        measured = {"log_probability": jackknife_ratio(
            np.array([sum(one.log_probabilities) for one in made]), np.array([len(one.tokens) for one in made])
        )}
        measured = diversity([one.tokens for one in made]) | measured
        rows[name] = {key: value for key, (value, _) in measured.items()}
        rows[name] |= {key + MARGIN: NORMAL * error for key, (_, error) in measured.items()}
    frame = pd.DataFrame.from_dict(rows, orient="index").rename_axis("strategy")
    return StrategySamples(prompt=next(iter(samples.values()))[0].prompt, samples=samples, frame=frame)


def diversity(samples: Sequence[Ids]) -> dict[str, tuple[float, float]]:
    """Each measure of the module's heading with its standard error, NaN where no sample has so many tokens."""
    return {f"distinct_{n}": distinct(samples, n) for n in (1, 2, 3)} | {
        "repetition": repetition(samples), "self_overlap": self_overlap(samples)
    }


def distinct(samples: Sequence[Ids], n: int) -> tuple[float, float]:
    """distinct-n and its standard error."""
    grams = [Counter(ngrams(ids, n)) for ids in samples]
    in_samples = Counter(gram for own in grams for gram in own)
    of_one = np.array([sum(in_samples[gram] == 1 for gram in own) for own in grams])  # they vanish with their sample
    totals = np.array([own.total() for own in grams])
    if not totals.sum():
        return np.nan, np.nan
    with np.errstate(invalid="ignore"):
        left = (len(in_samples) - of_one) / (totals.sum() - totals)
    return len(in_samples) / int(totals.sum()), standard_error(left)


def repetition(samples: Sequence[Ids], n: int = SPAN) -> tuple[float, float]:
    """The mean share of repeated n-grams and its standard error, over the samples of n tokens or more."""
    shares = [1 - len(set(grams)) / len(grams) for grams in (list(ngrams(ids, n)) for ids in samples) if grams]
    if not shares:
        return np.nan, np.nan
    return jackknife_ratio(np.array(shares), np.ones(len(shares)))


def self_overlap(samples: Sequence[Ids], n: int = SPAN) -> tuple[float, float]:
    """The mean overlap of ordered pairs of samples and its standard error, over the samples of n tokens or more."""
    grams = [own for own in (set(ngrams(ids, n)) for ids in samples) if own]
    count = len(grams)
    if count < 2:
        return np.nan, np.nan
    shared = np.array([[len(one & other) / len(one) for other in grams] for one in grams])
    np.fill_diagonal(shared, 0)
    without = shared.sum() - shared.sum(0) - shared.sum(1)
    left = without / ((count - 1) * (count - 2)) if count > 2 else np.full(2, np.nan)
    return float(shared.sum() / (count * (count - 1))), standard_error(left)


def jackknife_ratio(sums: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Σ sums / Σ counts over samples, and its standard error; of counts 1, the mean with its usual one, s / √n."""
    with np.errstate(invalid="ignore"):
        left = (sums.sum() - sums) / (counts.sum() - counts)
    return float(sums.sum() / counts.sum()), standard_error(left)


def standard_error(left: np.ndarray) -> float:
    """The jackknife's, from the values that leave out one sample each."""
    return float(np.sqrt((len(left) - 1) * left.var()))


def ngrams(ids: Ids, n: int) -> zip:
    """All n tokens in a row, as tuples."""
    return zip(*(ids[start:] for start in range(n)))
