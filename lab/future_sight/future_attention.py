"""How a future-sighted network attends to its own predictions of the future."""

from collections.abc import Sequence

import pandas as pd
import torch
from torch import Tensor

from lab.analysis.forward_pass import AnalysisError, read_prompt, record
from lab.data.tokenizers import Tokenizer
from lab.future_sight.predictions import ahead
from modules.future import FutureBlock
from modules.kernels import causal_mask
from modules.transformer import Transformer

NOTHING = "nothing"  # the key that a query can attend to in place of a prediction


def future_attention(model: Transformer, tokenizer: Tokenizer | None, prompt: str | Sequence[int]) -> pd.DataFrame:
    """The attention of each position to its own predictions and to earlier ones, in each layer that has it.

    Columns: layer, from 1, and head, from 0; position, and text, its token; reads, the window ("4-7 ahead") or
    "nothing"; level, vector (from 0, among those of the level) and source, the position of the prediction, NA for
    "nothing"; weight. The weights of a layer, head and position sum to 1. Raises AnalysisError for a model without such
    layers.
    """
    layers = {
        block.cross: layer for layer, block in enumerate(model.blocks, 1)
        if isinstance(block, FutureBlock) and block.cross is not None
    }
    if not layers:
        raise AnalysisError(
            f"no layer of a {model.config.block.kind} block attends to predictions; choose a model with a "
            "FutureBlockConfig, such as preset 'future-tiny'"
        )
    ids, labels = read_prompt(model, prompt, tokenizer)
    frames = []

    def weigh(cross, inputs, _) -> None:
        x, vectors, place = inputs[:3]
        q, k, _ = cross.project(x, vectors, place)
        weights = cross.weights(q, k, place)[0].float().cpu()
        seen = causal_mask(len(ids), 1, cross.n_vectors, weights.device, model.config.window)
        vectors = vectors_in_order(model)[: cross.n_vectors]
        frames.append(weights_frame(weights, seen, layers[cross], vectors, labels))

    record(model, torch.tensor([ids]), dict.fromkeys(layers, weigh))
    return pd.concat(frames, ignore_index=True)


def vectors_in_order(model: Transformer) -> list[tuple[int, int, str]]:
    """Level, index and window of each vector, in the order of prediction: the furthest level first."""
    block = model.config.block
    levels = list(zip(range(1, block.levels + 1), block.windows, block.counts))
    return [(level, index, ahead(*window)) for level, window, count in reversed(levels) for index in range(count)]


def weights_frame(
    weights: Tensor, seen: Tensor, layer: int, vectors: list[tuple[int, int, str]], labels: list[str]
) -> pd.DataFrame:
    """The weights (H, T, 1 + J·T) that are seen. The keys are `nothing`, then the vectors of each position in turn."""
    n_tokens = len(labels)
    predictions = [(name, level, index, source) for source in range(n_tokens) for level, index, name in vectors]
    keys = pd.DataFrame([(NOTHING, None, None, None), *predictions], columns=["reads", "level", "vector", "source"])
    keys = keys.astype({"level": "Int64", "vector": "Int64", "source": "Int64"})
    head, position, key = seen.expand(weights.shape).nonzero().numpy().T
    frame = keys.iloc[key].reset_index(drop=True)
    frame.insert(0, "layer", layer)
    frame.insert(1, "head", head)
    frame.insert(2, "position", position)
    frame.insert(3, "text", [labels[i] for i in position])
    frame["weight"] = weights[head, position, key].numpy()
    return frame
