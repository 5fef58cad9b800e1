"""Attention maps: the weights of each head over the tokens of a text, from the model's own pass.

    maps = attention_maps(model, tokenizer, "Once there was a girl")
    maps.head(2, 0)        layer 2, head 0: (T, T), a row for each token, which sums to 1
    maps.summary()         a row for each head: entropy, distance, shares

Layers count from 1 and heads from 0. The layers are those that compute the next token (`model.next_token_blocks`). The
maps of a future block are those of its self-attention.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pandas as pd
import torch
from torch import Tensor

from lab.analysis.forward_pass import LIMIT, AnalysisError, check_size, read_prompt, record, token_attentions
from lab.analysis.interventions import replaced
from lab.data.tokenizers import Tokenizer
from modules.attention import DotProductAttention
from modules.transformer import Transformer


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class AttentionMaps:
    """The attention of L layers and H heads over T tokens: for each head a (T, T), queries by keys.

    labels: a text for each token. weights (L, H, T, T): the softmax, whose rows sum to 1. applied (L, H, T, T): the
    factors of the values. These are the weights, except in shaped attention: α·I + β·A − γ·C, which may be negative.
    window: the tokens that a query sees, itself included; None: all up to itself.
    """

    labels: list[str]
    weights: Tensor
    applied: Tensor
    window: int | None = None

    def __repr__(self) -> str:
        n_layers, n_heads, n_tokens, _ = self.weights.shape
        return f"AttentionMaps({n_layers} layers × {n_heads} heads over {n_tokens} tokens)"

    def head(self, layer: int, head: int, applied: bool = False) -> Tensor:
        """The weights (T, T) of one head, or its applied factors; layer from 1, head from 0.

        Raises AnalysisError if there is no such head.
        """
        n_layers, n_heads = self.weights.shape[:2]
        if not (1 <= layer <= n_layers and 0 <= head < n_heads):
            raise AnalysisError(
                f"there is no head {head} in layer {layer}: this model has layers 1 to {n_layers}, heads 0 to "
                f"{n_heads - 1}"
            )
        return (self.applied if applied else self.weights)[layer - 1, head]

    def summary(self) -> pd.DataFrame:
        """A row for each head, with means over all tokens but the first, which can attend only to itself.

        entropy: −Σ w ln w in nats, 0 for a head that attends to one token at a time. distance: Σ w · (i − j), how many
        tokens back. first, previous: the shares of the first token and of the one before.
        """
        if len(self.labels) < 2:
            raise AnalysisError("a single token attends only to itself; give a longer text")
        numbers = mean_measures(self.weights)
        n_layers, n_heads = self.weights.shape[:2]
        places = {
            "layer": [layer for layer in range(1, n_layers + 1) for _ in range(n_heads)],
            "head": list(range(n_heads)) * n_layers,
        }
        return pd.DataFrame(places | {name: values.flatten().tolist() for name, values in numbers.items()})


def mean_measures(weights: Tensor) -> dict[str, Tensor]:
    """The measures of `summary` for weights (…, T, T), each (…): means over the queries from the second on."""
    weights = weights.double()
    places = torch.arange(weights.shape[-1])
    rows = {
        "entropy": -torch.xlogy(weights, weights).sum(-1),
        "distance": (weights * (places[:, None] - places)).sum(-1),
        "first": weights[..., 0],
        "previous": torch.nn.functional.pad(weights.diagonal(-1, -2, -1), (1, 0)),
    }
    return {name: values[..., 1:].mean(-1) for name, values in rows.items()}


def attention_maps(
    model: Transformer, tokenizer: Tokenizer | None, text: str | Sequence[int], *, limit: int = LIMIT
) -> AttentionMaps:
    """The attention of every head of every layer to a text, or to token ids, which need no tokenizer.

    The queries and keys are those of the model's own pass, fused or not, and its result does not change. limit: the
    most bytes for the maps, 2 · L · H · T² numbers. Raises AnalysisError if they need more, GenerationError for a text
    that the model can't take.
    """
    ids, labels = read_prompt(model, text, tokenizer)
    attentions = token_attentions(model)
    n_layers, n_heads = len(attentions), model.config.n_heads
    check_size(
        2 * n_layers * n_heads * len(ids) ** 2 * model.embedding.weight.element_size(), limit,
        f"2 · {n_layers} layers · {n_heads} heads · {len(ids)}² tokens", "shorten the text",
    )
    seen: list[list[Tensor]] = []
    with ExitStack() as changes:
        for attention in attentions:
            changes.enter_context(replaced(attention, "read", noting(attention, seen)))
        record(model, torch.tensor([ids]))
    weights = torch.stack([reads[0] for reads in seen])
    with torch.no_grad():
        applied = [attention.applied(weights) for attention, weights in zip(attentions, seen, strict=True)]
    return AttentionMaps(
        labels=labels, weights=weights.cpu(), applied=torch.stack(applied).cpu(), window=model.config.window
    )


def noting(attention: DotProductAttention, seen: list[list[Tensor]]) -> Callable:
    """`read` of an attention that also notes its weights (H, T, T), in a new list at the end of `seen`."""
    read, own = attention.read, []
    seen.append(own)

    def read_and_note(q, k, v, place):
        own.append(attention.weights(q, k, place)[0].cpu())
        return read(q, k, v, place)

    return read_and_note
