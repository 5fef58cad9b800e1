"""What a future-sighted network foresees: its bags as ranked tokens, and how it reads its own thoughts.

Level 0 is the next token, which every model foresees; level p the window of `FutureBlockConfig.windows[p − 1]`. A level
of bags says which share of its window each token has: softmax of the logits, or for multi_hot the chances of each to be
there, divided by their sum.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from lab.analysis.forward_pass import AnalysisError, label, read_prompt, record
from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from modules.future import FutureBlock
from modules.kernels import causal_mask
from modules.losses import CHUNK
from modules.transformer import Transformer

NOTHING = "nothing"  # the key that each query can read instead of a thought


class Level(NamedTuple):
    """A window first to last tokens ahead; offset: added to the logits of multi_hot bags, None for others."""

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
    """What the head reads at each level after each of tokens (B, T), nearest level first: (B, T, C).

    Raises AnalysisError for levels that predict vectors.
    """
    block_config = model.config.block
    foreseeing = [block for block in reversed(model.blocks) if isinstance(block, FutureBlock) and block.foresight]
    if foreseeing and not block_config.of_vocabulary:
        raise AnalysisError(
            f"this model's levels predict vectors ({block_config.predicts!r}), relative to those of other windows: "
            "they name no tokens. Ask a model whose block has predicts='bag' or 'multi_hot', or see thought_attention"
        )
    state = model.state(tokens.to(model.embedding.weight.device))
    found = {Level(0, 1, 1): model.read_out(state)}
    for block in foreseeing:
        level = Level(block.level, block.foresight.first, block.foresight.last, block.foresight.offset)
        found[level] = block.own(state)[0]
    return found


class Bags(NamedTuple):
    """Predictions of some rows, float32 on the CPU. share (N, V): of the window, for each token; they sum to 1. chance
    (N, V): what the level itself says of each token: that share, or for multi_hot how likely it is there at all."""

    share: Tensor
    chance: Tensor


def predicted(model: Transformer, level: Level, rows: Tensor) -> Iterator[Bags]:
    """What is foreseen in rows (N, C) of `read_levels`, CHUNK of them at a time."""
    for part in rows.split(CHUNK):
        logits = model.head(part).float().cpu()
        if level.offset is None:
            share = logits.softmax(-1)
            yield Bags(share, share)
        else:
            chance = (logits + level.offset).sigmoid()
            yield Bags(chance / chance.sum(-1, keepdim=True), chance)


def foreseen(
    model: Transformer, tokenizer: Tokenizer | None, prompt: str | Sequence[int], top: int = 5
) -> pd.DataFrame:
    """The `top` likeliest tokens of each level's window after each token of a prompt.

    Columns: position; after, the text of the token there; level; first and last, the window's offsets; rank from 1;
    token; text; probability, its share of the window; came, whether it is in the prompt's window, NA where that has
    not come as a whole. A model without levels has level 0 alone. Raises AnalysisError for levels of vectors.
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
                    (position, after, *level[:3], rank, token, label(token, tokenizer), share,
                     token in window if complete else None)
                    for rank, (token, share) in enumerate(zip(tokens[position], shares[position]), 1)
                ]  # fmt: skip
    columns = ["position", "after", "level", "first", "last", "rank", "token", "text", "probability", "came"]
    frame = pd.DataFrame(rows, columns=columns).astype({"came": "boolean"})
    return frame.sort_values(["position", "level", "rank"], ignore_index=True)


def thought_attention(model: Transformer, tokenizer: Tokenizer | None, prompt: str | Sequence[int]) -> pd.DataFrame:
    """How much each position reads of what it and earlier ones foresaw, in each layer that reads thoughts.

    Columns: layer and head; position, and text, its token; reads, the window ("4-7 ahead") or "nothing"; level, vector
    (from 0, of those that the level has) and source, the position that foresaw it, NA for "nothing"; weight. For a
    layer, head and position the weights sum to 1. Raises AnalysisError for a model without such layers.
    """
    layers = {
        block.cross: layer for layer, block in enumerate(model.blocks)
        if isinstance(block, FutureBlock) and block.cross is not None
    }  # fmt: skip
    if not layers:
        raise AnalysisError(
            f"no layer of a {model.config.block.kind} block reads thoughts; ask a model with a FutureBlockConfig, "
            "such as preset 'future-tiny'"
        )
    ids, labels = read_prompt(model, prompt, tokenizer)
    frames = []

    def weigh(cross, inputs, _) -> None:
        x, vectors, place = inputs[:3]
        q, k, _ = cross.project(x, vectors, place)
        weights = cross.weights(q, k, place)[0].float().cpu()
        frames.append(weights_frame(weights, layers[cross], vectors_in_order(model)[: cross.n_vectors], labels))

    record(model, torch.tensor([ids]), dict.fromkeys(layers, weigh))
    return pd.concat(frames, ignore_index=True)


def vectors_in_order(model: Transformer) -> list[tuple[int, int, str]]:
    """Level, index and window of each vector, in the order in which they are foreseen: the furthest level first."""
    block = model.config.block
    levels = list(zip(range(1, block.levels + 1), block.windows, block.counts))
    return [(level, index, ahead(*window)) for level, window, count in reversed(levels) for index in range(count)]


def weights_frame(weights: Tensor, layer: int, vectors: list[tuple[int, int, str]], labels: list[str]) -> pd.DataFrame:
    """The visible part of weights (H, T, 1 + J·T), whose keys are `nothing`, then each position's vectors in turn."""
    n_tokens = len(labels)
    thoughts = [(name, level, index, source) for source in range(n_tokens) for level, index, name in vectors]
    keys = pd.DataFrame([(NOTHING, None, None, None), *thoughts], columns=["reads", "level", "vector", "source"])
    keys = keys.astype({"level": "Int64", "vector": "Int64", "source": "Int64"})
    seen = causal_mask(n_tokens, 1, len(vectors), torch.device("cpu"))
    head, position, key = seen.expand(weights.shape).nonzero().numpy().T
    frame = keys.iloc[key].reset_index(drop=True)
    frame.insert(0, "layer", layer)
    frame.insert(1, "head", head)
    frame.insert(2, "position", position)
    frame.insert(3, "text", [labels[i] for i in position])
    frame["weight"] = weights[head, position, key].numpy()
    return frame
