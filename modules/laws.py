"""The laws of ideas, parts of a model that are not built in. They are checked once, when a model with an idea is built.

The output of each family has a certain shape, and no position may read a later one.
"""

from collections.abc import Callable
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from modules.positions import Position, PositionContext
from settings.errors import IdeaError
from settings.registry import REGISTRY

LENGTH = 6  # tokens of the passes that check a model
ROUNDING = 100  # times the precision of the logits' type: a larger difference is not rounding


class Idea(NamedTuple):
    """A part of a model that is not built in. module: the part itself, or the MLP that has it as its activation."""

    family: str
    name: str
    part: Any
    module: nn.Module

    def __str__(self) -> str:
        return f"{self.part.__name__} ({self.family} {self.name!r})"


def check_ideas(model: nn.Module) -> None:
    """Raises IdeaError if an idea in a model breaks a law. Changes neither the model nor the state of random numbers.

    A model without ideas runs no pass here. A model on the meta device or of fake tensors is not checked.
    """
    ideas = ideas_in(model)
    if not ideas or not has_numbers(model.embedding.weight):
        return
    device = model.embedding.weight.device
    with ExitStack() as undone, torch.no_grad():
        undone.enter_context(torch.random.fork_rng([device] if device.type == "cuda" else []))
        undone.enter_context(evaluating(model))
        for idea in ideas:
            if idea.family == "position":
                check_encoding(idea, model)
            elif not isinstance(idea.part, type):
                check_function(idea, model)
            else:
                undone.callback(idea.module.register_forward_hook(SHAPES[idea.family](idea, model)).remove)
        check_causality(ideas, model)


def ideas_in(model: nn.Module) -> list[Idea]:
    """Each part of a model that is an instance of a registered idea."""
    known = [
        (family, name, kind.part)
        for family, kinds in REGISTRY.kinds.items()
        for name, kind in kinds.items()
        if kind.part is not None and not kind.built_in
    ]
    return [
        Idea(family, name, part, module)
        for family, name, part in known
        for module in model.modules()
        if type(module) is part or (family == "activation" and getattr(module, "activation", None) is part)
    ]


def has_numbers(weight: Tensor) -> bool:
    """Whether a pass with this weight computes numbers, and not only shapes."""
    plain = type(weight.data) is torch.Tensor and type(torch.empty(0)) is torch.Tensor
    return plain and not weight.is_meta


@contextmanager
def evaluating(model: nn.Module):
    """Puts every module in eval mode, and afterwards in the mode that it had."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


# --- shapes ---------------------------------------------------------------------------------------------------


def check_shape(idea: Idea, output: object, expected: tuple[int, ...], law: str) -> None:
    if not isinstance(output, Tensor) or output.shape != expected:
        found = f"a tensor {tuple(output.shape)}" if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise IdeaError(f"{idea} gives {found} where {tuple(expected)} is expected: {law}")


def same_shape(idea: Idea, model: nn.Module) -> Callable:
    def hook(module, inputs, output) -> None:
        article = "an" if idea.family == "activation" else "a"
        law = f"{article} {idea.family}'s output has the shape of its input"
        check_shape(idea, output, inputs[0].shape, law)

    return hook


def pool_shape(idea: Idea, model: nn.Module) -> Callable:
    def hook(module, inputs, output) -> None:
        x, count = inputs
        law = "pool(x, count) reduces x (B, N, W, C) to (B, N, count, C)"
        check_shape(idea, output, (*x.shape[:2], count, x.shape[3]), law)

    return hook


def head_shape(idea: Idea, model: nn.Module) -> Callable:
    def hook(module, inputs, output) -> None:
        expected = (*inputs[0].shape[:-1], model.config.vocab_size)
        check_shape(idea, output, expected, "a head gives a logit for each token of the vocabulary, (…, V)")

    return hook


def block_shape(idea: Idea, model: nn.Module) -> Callable:
    def hook(block, inputs, state) -> None:
        try:
            joined = block.join(state)
        except Exception as error:
            raise IdeaError(f"{idea} returns a state that its join() can't read: {error}") from error
        expected = (1, length_for(model), model.config.width)
        check_shape(idea, joined, expected, "join() reads a block's state as (B, T, C)")

    return hook


SHAPES = {
    "norm": same_shape, "activation": same_shape, "mixing": same_shape,
    "pool": pool_shape, "head": head_shape, "block": block_shape,
}


def check_function(idea: Idea, model: nn.Module) -> None:
    """Calls an activation that is a function on numbers from −2 to 2, and checks the shape of its output."""
    hidden = model.config.mlp.hidden(model.config.width)
    x = torch.linspace(-2, 2, 2 * hidden).to(model.embedding.weight).view(1, 2, hidden)
    same_shape(idea, model)(None, (x,), idea.part(x))


def check_encoding(idea: Idea, model: nn.Module) -> None:
    """Calls `embed` and `place`, and checks what they and the context's methods return."""
    position: Position = idea.module
    config, length = model.config, length_for(model)
    positions = torch.arange(length, device=model.embedding.weight.device)
    x = model.embedding(positions[None] % config.vocab_size)
    check_shape(idea, position.embed(x, positions), x.shape, "embed() returns the embeddings, (B, T, C)")
    place = position.place(positions, positions, True, None)
    if not isinstance(place, PositionContext):
        raise IdeaError(f"{idea} gives a {type(place).__name__} in place(): it must return a PositionContext")
    heads = x.unflatten(-1, (config.n_heads, -1)).transpose(1, 2)
    check_shape(idea, place.turn(heads), heads.shape, "turn() returns queries and keys in their shape, (B, N, T, D)")
    bias, scores = place.bias(), (1, config.n_heads, length, length)
    if bias is not None:
        fits = len(bias.shape) <= 4 and all(n in (1, m) for n, m in zip(bias.shape[::-1], scores[::-1]))
        if not fits:
            raise IdeaError(f"{idea} gives a bias {tuple(bias.shape)}: it must fit the scores {scores}, (B, H, T, S)")


# --- causality ------------------------------------------------------------------------------------------------


def length_for(model: nn.Module) -> int:
    return min(LENGTH, model.config.context_length)


def check_causality(ideas: list[Idea], model: nn.Module) -> None:
    """Checks that changing a token changes no earlier logit, and that a head reads each position by itself."""
    length, vocab_size = length_for(model), model.config.vocab_size
    tokens = torch.arange(length, device=model.embedding.weight.device)[None] % vocab_size
    hidden = model.hidden(tokens)
    logits = model.head(hidden)
    names = " and ".join(dict.fromkeys(map(str, ideas)))
    if differ(model.head(hidden[0]), logits[0]):
        raise IdeaError(f"{names}: the logits of (T, C) differ from those of (B, T, C); a head must accept both alike")
    for place in {length // 2, length - 1} if model.causal else ():
        changed = tokens.clone()
        changed[:, place] = (changed[:, place] + 1) % vocab_size
        if differ(model(changed)[:, :place], logits[:, :place]):
            raise IdeaError(
                f"{names} breaks causality: changing token {place} changes logits before it; let every position read "
                "only itself and earlier ones"
            )


def differ(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors differ by more than rounding."""
    largest = torch.finfo(other.dtype).eps * ROUNDING * other.abs().amax() if other.numel() else 0
    return bool(((one - other).abs() > largest).any())
