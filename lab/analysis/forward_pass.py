"""One pass of a model with the state after each block. The hooks that read the states are removed afterwards."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from lab.display.token_box import readable
from lab.generation.request import check_prompts
from modules.attention import DotProductAttention
from modules.transformer import Transformer
from settings.errors import GenerationError, GlassboxError

LIMIT = 2**30  # bytes, the most for one result


class AnalysisError(GlassboxError, ValueError):
    """An analysis that this model does not allow, or whose result would be too large."""


class Prompt(NamedTuple):
    """Token ids, and a label for each in pictures and tables."""

    ids: list[int]
    labels: list[str]


def read_prompt(model: Transformer, prompt: str | Sequence[int], tokenizer: Tokenizer | None) -> Prompt:
    """The ids and labels of a text, or of token ids. Raises GenerationError for a prompt that the model can't take."""
    if isinstance(prompt, str) and tokenizer is None:
        raise GenerationError("a text needs the tokenizer; give tokenizer=, or token ids instead")
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    (ids,) = check_prompts([ids], model.config.vocab_size)
    limit = model.config.position_limit
    if len(ids) > limit:
        raise GenerationError(
            f"the prompt has {len(ids)} tokens, this model accepts {limit} positions; shorten it. "
            f"Why: {model.config.further_positions}"
        )
    return Prompt(ids, [token_label(id, tokenizer) for id in ids])


def check_size(n_bytes: int, limit: int, formula: str, remedy: str) -> None:
    """Raises AnalysisError if a result would take more bytes than the limit."""
    if n_bytes > limit:
        raise AnalysisError(
            f"this takes {n_bytes / 2**20:,.0f} MiB ({formula} · bytes per number), more than the limit of "
            f"{limit / 2**20:,.0f} MiB; {remedy}, or give a larger limit="
        )


def token_label(id: int, tokenizer: Tokenizer | None) -> str:
    """The token's text with its spaces marked; its id if there is no tokenizer, or the tokenizer lacks the token."""
    known = tokenizer is not None and id < tokenizer.vocab_size
    return readable(tokenizer.token_bytes(id)).replace("\n", "") if known else f"#{id}"


@dataclass(frozen=True, kw_only=True)
class Pass:
    """states: the first block's input, then the output of each of `next_token_blocks`. hidden (B, T, C): the head's
    input."""

    states: list
    hidden: Tensor


def record(
    model: Transformer, tokens: Tensor, hooks: dict[nn.Module, Callable[[nn.Module, tuple, object], None]] | None = None
) -> Pass:
    """Passes tokens (B, T) through the model, in eval mode and without gradients.

    hooks: functions to call with (module, inputs, output) of some modules.
    """
    states, handles = [], []
    try:
        blocks = model.next_token_blocks
        handles.append(blocks[0].register_forward_pre_hook(lambda _, inputs: states.append(inputs[0])))
        for block in blocks:
            handles.append(block.register_forward_hook(lambda _, __, state: states.append(state)))
        for module, hook in (hooks or {}).items():
            handles.append(module.register_forward_hook(hook))
        with torch.no_grad(), eval_mode(model):
            return Pass(states=states, hidden=model.hidden(tokens.to(model.embedding.weight.device)))
    finally:
        for handle in handles:
            handle.remove()


def readers(model: Transformer) -> dict[str, Callable[[object], Tensor]]:
    """The streams of a state between blocks: names, each with a function from the state to (B, T, C).

    The last one is what the model's final norm reads.
    """
    return model.blocks[-1].streams()


def token_attentions(model: Transformer) -> list[DotProductAttention]:
    """The self-attention of each of `next_token_blocks`. Raises AnalysisError for a block without exactly one."""
    found = []
    for layer, block in enumerate(model.next_token_blocks, 1):
        own = [attention for attention in block.attentions.values() if attention.reads == "tokens"]
        if len(own) != 1:
            raise AnalysisError(
                f"layer {layer}, a {type(block).__name__}, has {len(own)} attentions over tokens, and this analysis "
                "needs one; ask a model whose blocks have one DotProductAttention"
            )
        found += own
    return found
