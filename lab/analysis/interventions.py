"""Interventions: what a trained model does when one of its parts is amplified or removed.

    with amplified(model, 4): ...                  every attention score, with its bias, times 4
    with without_heads(model, [(1, 0)]): ...       head 0 of layer 1 reads nothing
    with one_stream(model, "xt"): ...              the final norm of a factored model reads its token stream alone

A change ends with its `with`. `amplify`, `ablate_heads` and `ablate_streams` measure the loss for all factors, heads
and streams. Layers count from 1 and heads from 0; the layers are those that compute the next token
(`model.next_token_blocks`).
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import pandas as pd
import torch
from torch import nn

from config import SAMPLE_PROMPT
from lab.analysis.forward_pass import AnalysisError, readers, token_attentions
from lab.data.token_file import TokenFile
from lab.data.tokenizers import Tokenizer
from lab.evaluation.evaluate import evaluate, evaluate_text
from lab.generation.generate import generate_text
from modules.transformer import Transformer
from settings.messages import suggest

Data = TokenFile | str  # held-out tokens, or a text


@contextmanager
def amplified(model: Transformer, factor: float) -> Iterator[Transformer]:
    """Every attention becomes softmax(factor · (q·k/√D + bias)), sharper for a larger factor (arXiv 2603.07461).

    This holds for all attentions of the model: to tokens and to its own predictions, in shaped blocks with their
    centre, in pools, and in further heads. Softmaxes over the vocabulary do not change. Fused attention, attention by
    hand and a cache agree. Raises AnalysisError unless 0 < factor < ∞.
    """
    if not 0 < factor < math.inf:
        raise AnalysisError(f"factor must be above 0 and finite, not {factor!r}; 1 changes nothing")
    with ExitStack() as changes:
        for part in model.modules():
            if getattr(part, "weighs_by_softmax", False):
                changes.enter_context(replaced(part, "scale", part.scale * factor))
        for name in model.position.bias_factors:
            changes.enter_context(replaced(model.position, name, getattr(model.position, name) * factor))
        yield model


@contextmanager
def without_heads(model: Transformer, heads: Iterable[tuple[int, int]]) -> Iterator[Transformer]:
    """These heads of self-attention, each given as (layer, head), return 0. A shaped head keeps its skip, α·x.

    Raises AnalysisError for a head that does not exist.
    """
    attentions, n_heads = token_attentions(model), model.config.n_heads
    n_layers = len(attentions)
    kept = torch.ones(n_layers, n_heads, 1, 1)  # (L, H, 1, 1)
    for layer, head in heads:
        if not (1 <= layer <= n_layers and 0 <= head < n_heads):
            raise AnalysisError(
                f"there is no head {head} in layer {layer}: this model has layers 1 to {n_layers}, heads 0 to "
                f"{n_heads - 1}; name each as (layer, head)"
            )
        kept[layer - 1, head] = 0
    with ExitStack() as changes:
        for attention, share in zip(attentions, kept, strict=True):
            if not share.all():
                changes.enter_context(replaced(attention, "read", scale_heads(attention.read, share)))
        yield model


@contextmanager
def one_stream(model: Transformer, stream: str) -> Iterator[Transformer]:
    """The final norm of a factored model reads only "xt" or only "xe". The layers do not change."""
    streams = readers(model)
    if len(streams) == 1:
        raise AnalysisError(
            f"a {model.config.block.kind} block has one stream, so none can be left out; choose an architecture with "
            "the factored block, such as factored-alibi"
        )
    if stream not in streams:
        raise AnalysisError(f"unknown stream {stream!r}; {suggest(stream, streams)}")
    with replaced(model.blocks[-1], "join", streams[stream]):
        yield model


def amplify(
    model: Transformer, data: Data, tokenizer: Tokenizer, *, factors: Sequence[float] = (1, 2, 4, 8, 16),
    max_tokens: int | None = None, prompt: str = SAMPLE_PROMPT, sample_tokens: int = 60, seed: int = 0,
) -> pd.DataFrame:
    """A row for each factor: loss (nats per token), its ratio to the loss at factor 1, and a sample.

    max_tokens: how many tokens of the file are scored (None: all). All samples have the same prompt and seed.
    """
    usual, rows = loss_on(model, data, tokenizer, max_tokens), []
    for factor in factors:
        with amplified(model, factor):
            loss = loss_on(model, data, tokenizer, max_tokens)
            sample = generate_text(model, tokenizer, prompt, max_tokens=sample_tokens, seed=seed)
        rows.append((factor, loss, loss / usual, sample))
    return pd.DataFrame(rows, columns=["factor", "loss", "ratio", "sample"])


def ablate_heads(
    model: Transformer, data: Data, tokenizer: Tokenizer, *, max_tokens: int | None = None
) -> pd.DataFrame:
    """A row for each head of each layer: the loss without this head, and the change from the whole model's loss."""
    usual = loss_on(model, data, tokenizer, max_tokens)
    rows = []
    for layer in range(1, len(model.next_token_blocks) + 1):
        for head in range(model.config.n_heads):
            with without_heads(model, [(layer, head)]):
                loss = loss_on(model, data, tokenizer, max_tokens)
            rows.append((layer, head, loss, loss - usual))
    return pd.DataFrame(rows, columns=["layer", "head", "loss", "change"])


def ablate_streams(
    model: Transformer, data: Data, tokenizer: Tokenizer, *, max_tokens: int | None = None
) -> pd.DataFrame:
    """The loss of a factored model whose final norm reads xt alone, xe alone, or both, and the change from both."""
    rows = []
    for stream in readers(model):
        with one_stream(model, stream):
            rows.append((stream, loss_on(model, data, tokenizer, max_tokens)))
    usual = rows[-1][1]
    return pd.DataFrame([(*row, row[1] - usual) for row in rows], columns=["stream", "loss", "change"])


def loss_on(model: Transformer, data: Data, tokenizer: Tokenizer, max_tokens: int | None) -> float:
    if not isinstance(data, str):
        return evaluate(model, data, tokenizer, max_tokens).loss
    if max_tokens is not None:
        raise AnalysisError("max_tokens applies to a token file; for a text give a shorter text")
    return evaluate_text(model, data, tokenizer).loss


def scale_heads(read, share: torch.Tensor):
    """`read` of an attention, with each head's result multiplied by its share (H, 1, 1)."""

    def read_less(q, k, v, place):
        heads = read(q, k, v, place)
        return heads * share.to(heads)

    return read_less


@contextmanager
def replaced(owner: nn.Module, name: str, value) -> Iterator[None]:
    """Replaces an attribute, buffer or method of a module, and puts the same object back afterwards."""
    own, before = name in vars(owner) or name in dict(owner.named_buffers(recurse=False)), getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)
