"""What a future-sighted network predicts: the likeliest tokens of each window ahead.

Level 0 is the next token, which every model predicts; level p is the window `FutureBlockConfig.windows[p − 1]`. A level
that predicts a bag of words gives each token a share of the window: the softmax of the logits, or for multi_hot the
probability that the token occurs, divided by the sum of these.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from lab.analysis.forward_pass import AnalysisError, read_prompt, token_label
from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from modules.future import FutureBlock
from modules.losses import CHUNK
from modules.transformer import Transformer


class Level(NamedTuple):
    """The window from first to last tokens ahead. offset: added to the logits of multi_hot levels, None for others."""

    number: int
    first: int
    last: int
    offset: float | None = None

    @property
    def size(self) -> int:
        return self.last - self.first + 1

    @property
    def name(self) -> str:
        return ahead(self.first, self.last)


def ahead(first: int, last: int) -> str:
    return f"{first} ahead" if first == last else f"{first}-{last} ahead"


def read_levels(model: Transformer, tokens: Tensor) -> dict[Level, Tensor]:
    """The head's input at each level for tokens (B, T), the nearest level first: (B, T, C).

    Raises AnalysisError for levels that predict vectors.
    """
    block_config = model.config.block
    predicting = [block for block in reversed(model.blocks) if isinstance(block, FutureBlock) and block.foresight]
    if predicting and not block_config.of_vocabulary:
        raise AnalysisError(
            f"this model's levels predict vectors ({block_config.predicts!r}), which stand for no tokens. Choose a "
            "model whose block has predicts='bag' or 'multi_hot', or look at future_attention"
        )
    state = model.state(tokens.to(model.embedding.weight.device))
    found = {Level(0, 1, 1): model.read_out(state)}
    for block in predicting:
        level = Level(block.level, block.foresight.first, block.foresight.last, block.foresight.offset)
        found[level] = block.own(state)[0]
    return found


class Bags(NamedTuple):
    """Predictions for N positions, float32 on the CPU. share (N, V): each token's share of the window; the sum is 1.
    chance (N, V): the level's own number: that share, or for multi_hot the probability that the token occurs."""

    share: Tensor
    chance: Tensor


def predicted(model: Transformer, level: Level, rows: Tensor) -> Iterator[Bags]:
    """The predictions for rows (N, C) of `read_levels`, CHUNK rows at a time."""
    for part in rows.split(CHUNK):
        logits = model.head(part).float().cpu()
        if level.offset is None:
            share = logits.softmax(-1)
            yield Bags(share, share)
        else:
            chance = (logits + level.offset).sigmoid()
            yield Bags(chance / chance.sum(-1, keepdim=True), chance)


def future_predictions(
    model: Transformer, tokenizer: Tokenizer | None, prompt: str | Sequence[int], top: int = 5
) -> pd.DataFrame:
    """The `top` likeliest tokens of each level's window after each token of a prompt.

    Columns: position; after, the token there as text; level, 0 for the next token; first and last, the offsets of the
    window; rank from 1; token; text; probability, the token's share of the window; came, whether the token occurs in
    the prompt's window, NA if the prompt ends before the window does. A model without levels has level 0 only. Raises
    AnalysisError for levels that predict vectors.
    """
    if not 1 <= top <= model.config.vocab_size:
        raise AnalysisError(f"top must lie between 1 and the vocabulary's {model.config.vocab_size}, not {top}")
    ids, labels = read_prompt(model, prompt, tokenizer)
    rows = []
    with torch.inference_mode(), eval_mode(model):
        for level, read in read_levels(model, torch.tensor([ids])).items():
            best = [bags.share.topk(top) for bags in predicted(model, level, read[0])]
            shares, tokens = (torch.cat(parts).tolist() for parts in zip(*best))
            for position, after in enumerate(labels):
                window = ids[position + level.first : position + level.last + 1]
                complete = len(window) == level.size
                rows += [
                    (position, after, *level[:3], rank, token, token_label(token, tokenizer), share,
                     token in window if complete else None)
                    for rank, (token, share) in enumerate(zip(tokens[position], shares[position]), 1)
                ]
    columns = ["position", "after", "level", "first", "last", "rank", "token", "text", "probability", "came"]
    frame = pd.DataFrame(rows, columns=columns).astype({"came": "boolean"})
    return frame.sort_values(["position", "level", "rank"], ignore_index=True)
