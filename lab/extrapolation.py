"""How a model does on texts longer than those it was trained on (Press et al. 2021, arXiv 2108.12409, section 2)."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from torch import nn

from config import DataError
from lab.data import TokenFile
from lab.evaluation import evaluating
from modules.losses import shift, token_losses

FACTORS = (1, 2, 4, 8)  # times the training length
AT_ONCE = 4096  # tokens: bounds the memory


def loss_by_position(model: nn.Module, tokens: TokenFile, length: int, max_tokens: int = 65_536) -> np.ndarray:
    """The mean loss (nats) at each of `length` positions, over windows of that length laid over the first max_tokens
    held-out tokens. Raises DataError for a length that the model does not accept, or that no window fills."""
    limit = model.config.position_limit
    if length > limit:
        raise DataError(f"this model ends at {limit} positions, {length} are too many; choose a smaller length")
    if max_tokens < length:
        raise DataError(f"no window of {length} tokens fits into max_tokens={max_tokens}; raise it")
    device = next(model.parameters()).device
    total, n_windows = torch.zeros(length, dtype=torch.float64), 0
    with evaluating(model):
        for windows in tokens.windows(length, max(1, AT_ONCE // length), max_tokens):
            if windows.shape[1] <= length:  # a last, shorter one
                break
            inputs, targets = shift(torch.from_numpy(windows).to(device))
            total += token_losses(model.hidden(inputs), model.head.weight, targets).double().sum(0).cpu()
            n_windows += len(windows)
    return (total / n_windows).numpy()


def extrapolation(
    model: nn.Module, tokens: TokenFile, factors: Sequence[int] = FACTORS, max_tokens: int = 65_536
) -> pd.DataFrame:
    """A row per factor: length in tokens, mean loss over all positions of such windows, the same tokens for each.

    The loss is NaN where the model does not accept the length: learned positions end where the training did.
    """
    rows = []
    for factor in factors:
        length = factor * model.config.context_length
        accepted = length <= model.config.position_limit
        loss = loss_by_position(model, tokens, length, max_tokens).mean() if accepted else math.nan
        rows.append({"factor": factor, "length": length, "loss": loss})
    return pd.DataFrame(rows)
