"""The loss on texts longer than those of the training (Press et al. 2021, arXiv 2108.12409, section 2)."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from html import escape
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from torch import nn

from config import LearnedPositionConfig, ModelConfig
from lab.compute.eval_mode import eval_mode
from lab.data.token_file import TokenFile
from lab.evaluation.evaluate import are_different_counts
from lab.runs.run import Run
from modules.losses import shift
from settings.errors import ConfigError, DataError
from settings.messages import left_out_remarks

if TYPE_CHECKING:
    from lab.display.style import Picture

FACTORS = (1, 2, 4, 8)  # times the training length
AT_ONCE = 4096  # tokens: bounds the memory
NO_POSITIONS = "no such positions"  # why learned positions have no loss on longer texts


def loss_by_position(model: nn.Module, tokens: TokenFile, length: int, max_tokens: int = 65_536) -> np.ndarray:
    """The mean loss (nats) at each of `length` positions, over the windows of that length in the first max_tokens
    held-out tokens. Raises DataError for a length that the model does not accept, or that fills no window."""
    limit = model.config.position_limit
    if length > limit:
        raise DataError(
            f"{length} tokens are more than the {limit} positions this model accepts: {model.config.further_positions}"
        )
    if max_tokens < length:
        raise DataError(f"no window of {length} tokens fits into max_tokens={max_tokens}; raise it")
    device = next(model.parameters()).device
    total, n_windows = torch.zeros(length, dtype=torch.float64), 0
    with torch.inference_mode(), eval_mode(model):
        for windows in tokens.windows(length, max(1, AT_ONCE // length), max_tokens):
            if windows.shape[1] <= length:  # a last, shorter one
                break
            inputs, targets = shift(torch.from_numpy(windows).to(device))
            total += model.head.token_losses(model.hidden(inputs), targets).cpu().double().sum(0)
            n_windows += len(windows)
    return (total / n_windows).numpy()


def extrapolation(
    model: nn.Module, tokens: TokenFile, factors: Sequence[int] = FACTORS, max_tokens: int = 65_536
) -> pd.DataFrame:
    """A row per factor: length in tokens, mean loss over all positions of such windows, the same tokens for each.

    Learned positions end where the training did: for longer texts the loss is NaN, and `note` says why. Raises
    DataError where another model's max_positions are too few; `run.load_model(max_positions=N)` gives it more.
    """
    losses = losses_by_length(model, tokens, factors, max_tokens)
    rows = [
        (factor, length, mean_or_nan(values), reason_for_nan(values))
        for factor, (length, values) in zip(factors, losses.items())
    ]
    return pd.DataFrame(rows, columns=["factor", "length", "loss", "note"])


def losses_by_length(
    model: nn.Module, tokens: TokenFile, factors: Sequence[int], max_tokens: int
) -> dict[int, np.ndarray]:
    """By length, the loss (nats) at each position of windows `factors` times as long as in training; empty where
    learned positions end. Raises DataError where another model's max_positions are too few."""
    lengths = [factor * model.config.context_length for factor in factors]
    ends = model.config.position_limit if learned_positions(model.config) else math.inf
    return {
        length: loss_by_position(model, tokens, length, max_tokens) if length <= ends else np.empty(0)
        for length in lengths
    }


def learned_positions(config: ModelConfig) -> bool:
    return isinstance(config.position, LearnedPositionConfig)


def mean_or_nan(losses: np.ndarray) -> float:
    """The mean, or NaN where there are no losses."""
    return float(losses.mean()) if len(losses) else math.nan


def reason_for_nan(losses: np.ndarray) -> str:
    """Why the mean is NaN; "" where there is one."""
    return "" if len(losses) else NO_POSITIONS


# --- runs side by side ------------------------------------------------------------------------------------------


def load_long_model(run: Run, factors: Sequence[int]) -> nn.Module:
    """The run's model with as many positions as `factors` ask for. That may be more than its max_positions, because no
    weight depends on them. A model with learned positions stays as it is."""
    config = run.model_config
    longest = max(factors) * config.context_length
    return run.load_model(max_positions=None if learned_positions(config) else longest)


def check_lengths(factors: Sequence[int], max_tokens: int, models: Iterable[ModelConfig]) -> None:
    """Raises ConfigError for factors that are not different whole numbers from 1 on, and windows beyond max_tokens."""
    if not factors or not are_different_counts(factors):
        raise ConfigError(f"factors must name different whole numbers from 1 on, as in {FACTORS}, not {factors}")
    longest = max((max(factors) * model.context_length for model in models), default=0)
    if longest > max_tokens:
        raise ConfigError(f"no window of {longest:,} tokens fits into max_tokens={max_tokens:,}; raise it")


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Extrapolation:
    """The losses of several runs on texts longer than those of their training.

    losses[variant][run][length]: the loss in `unit` at each of `length` positions, empty where learned positions end.
    The seeds of one configuration are one variant. trained: the lengths that the runs were trained on. left_out: the
    runs that could not be read, each with the reason.
    """

    losses: dict[str, dict[str, dict[int, np.ndarray]]]
    trained: tuple[int, ...]
    unit: str
    left_out: dict[str, str] = field(default_factory=dict)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """A row for each run and length: variant, run, length (tokens), loss, note (why a loss is NaN)."""
        rows = [
            (variant, run, length, mean_or_nan(values), reason_for_nan(values))
            for variant, runs in self.losses.items()
            for run, by_length in runs.items()
            for length, values in by_length.items()
        ]
        return pd.DataFrame(rows, columns=["variant", "run", "length", "loss", "note"])

    def curves(self) -> "Picture":
        """Loss by length, a line for each variant: the mean of its seeds, bars of one sd."""
        from lab.display.position_plots import extrapolation_curves

        return extrapolation_curves(self.frame, unit=self.unit, trained=self.trained)

    def by_position(self) -> "Picture":
        """Loss at each position of the longest windows, a line for each variant: the mean of its seeds."""
        from lab.display.position_plots import position_losses

        longest = {}
        for variant, runs in self.losses.items():
            by_run = [max(by_length.values(), key=len) for by_length in runs.values()]
            cut = len(by_run[0]) and any(not len(at) for by_length in runs.values() for at in by_length.values())
            name = f"{variant} (positions end at {len(by_run[0]):,})" if cut else variant
            longest[name] = np.mean(by_run, axis=0)
        return position_losses(longest, self.trained, unit=self.unit)

    def table(self) -> pd.DataFrame:
        """Variants by length: the mean of the seeds' losses. `readable_table` says why a loss is missing."""
        return self.frame.groupby(["variant", "length"], sort=False)["loss"].mean().unstack("length").sort_index(axis=1)

    def readable_table(self) -> pd.DataFrame:
        """The same as text: "no such positions" where learned positions end, empty where nothing was measured."""
        table = self.table().map(lambda loss: "" if math.isnan(loss) else f"{loss:.4f}")
        for row in self.frame[self.frame["note"] != ""].itertuples():
            table.loc[row.variant, row.length] = row.note
        return table

    @property
    def title(self) -> str:
        same = self.unit == "nats per token"
        other = "" if same else "; each run reads its own tokens, so their stretches of text differ a little"
        return f"loss in {self.unit} by length of the text (tokens){other}"

    def __repr__(self) -> str:
        return "\n".join([self.title, self.readable_table().to_string(), *left_out_remarks(self.left_out)])

    def _repr_html_(self) -> str:
        remarks = "".join(f"<div>{escape(remark)}</div>" for remark in left_out_remarks(self.left_out))
        return f"<div>{self.title}</div>{self.readable_table().to_html(border=0)}{remarks}"
