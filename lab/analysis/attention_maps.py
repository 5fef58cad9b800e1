"""Where each head of a model looks: attention's weights over the tokens of a text, from the model's own pass.

    maps = attention_maps(model, tokenizer, "Once there was a girl")
    maps.weights[1, 0]     layer 2, head 0: (T, T), a row for each token, which sums to 1
    maps.summary()         a row for each head: entropy, distance, shares

Layers count from 1 and heads from 0 wherever they are named. The layers are those that compute the next token
(`model.next_token_blocks`). A future block's maps are those of its self-attention.
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
    """The attention of L layers and H heads over T tokens, each a (T, T) of queries by keys.

    labels: a text for each token. weights (L, H, T, T): the softmax, whose rows sum to 1. applied (L, H, T, T): what
    the values are multiplied by; these weights, but in shaped attention α·I + β·A − γ·C, with negative numbers in it.
    """

    labels: list[str]
    weights: Tensor
    applied: Tensor

    def __repr__(self) -> str:
        n_layers, n_heads, n_tokens, _ = self.weights.shape
        return f"AttentionMaps({n_layers} layers × {n_heads} heads over {n_tokens} tokens)"

    def head(self, layer: int, head: int, applied: bool = False) -> Tensor:
        """The weights (T, T) of one head, or what it applies. Raises AnalysisError where there is no such head."""
        n_layers, n_heads = self.weights.shape[:2]
        if not (1 <= layer <= n_layers and 0 <= head < n_heads):
            raise AnalysisError(
                f"there is no head {head} in layer {layer}: this model has layers 1 to {n_layers}, heads 0 to "
                f"{n_heads - 1}"
            )
        return (self.applied if applied else self.weights)[layer - 1, head]

    def summary(self) -> pd.DataFrame:
        """A row for each head, means over all tokens but the first, which can read nothing but itself.

        entropy: −Σ w ln w in nats, 0 for a head that reads one token at a time. distance: Σ w · (i − j), how many
        tokens back it reads. first, previous: the shares that go to the first token and to the one before.
        """
        if len(self.labels) < 2:
            raise AnalysisError("a single token reads itself alone, there is nothing to sum up; give a longer text")
        numbers = summarised(self.weights)
        n_layers, n_heads = self.weights.shape[:2]
        places = {
            "layer": [layer for layer in range(1, n_layers + 1) for _ in range(n_heads)],
            "head": list(range(n_heads)) * n_layers,
        }
        return pd.DataFrame(places | {name: values.flatten().tolist() for name, values in numbers.items()})


def summarised(weights: Tensor) -> dict[str, Tensor]:
    """The means over the queries from the second on of weights (…, T, T), each (…)."""
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
    """What every head of every layer reads in a text, or in token ids, which need no tokenizer.

    The queries and keys are those that the pass itself hands to attention, fused or not; its result stays the same.
    limit: bytes that the maps may take, 2 · L · H · T² numbers. Raises AnalysisError where they are more,
    GenerationError for a text that the model can't take.
    """
    ids, labels = read_prompt(model, text, tokenizer)
    attentions = token_attentions(model)
    n_layers, n_heads = len(attentions), model.config.n_heads
    check_size(
        2 * n_layers * n_heads * len(ids) ** 2 * model.embedding.weight.element_size(), limit,
        f"2 · {n_layers} layers · {n_heads} heads · {len(ids)}² tokens", "shorten the text",
    )  # fmt: skip
    seen: list[list[Tensor]] = []
    with ExitStack() as changes:
        for attention in attentions:
            changes.enter_context(replaced(attention, "read", noting(attention, seen)))
        record(model, torch.tensor([ids]))
    weights = torch.stack([reads[0] for reads in seen])
    with torch.no_grad():
        applied = [attention.applied(weights) for attention, weights in zip(attentions, seen, strict=True)]
    return AttentionMaps(labels=labels, weights=weights, applied=torch.stack(applied))


def noting(attention: DotProductAttention, seen: list[list[Tensor]]) -> Callable:
    """`read` of an attention, which leaves its weights (H, T, T) in a list of its own at the end of `seen`."""
    read, own = attention.read, []
    seen.append(own)

    def read_and_note(q, k, v, place):
        own.append(attention.weights(q, k, place)[0].cpu())
        return read(q, k, v, place)

    return read_and_note
