"""Distillation: a student learns the next token, a teacher's distribution over it, and the teacher's hidden states."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from config import DistilConfig
from modules.heads import Head, chunks
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.losses import CHUNK, IGNORE, shift
from modules.transformer import Transformer
from settings.errors import ConfigError


class Distillation(LoggingModule):
    """A student in training, with the stitches that join it to its teacher: linear maps between the two widths.

    whole:    tokens ─ block ─┬─ block ─┬─ norm ─ head ─ logits ≈ the teacher's
                           stitch     stitch
                              ≈         ≈ the teacher's states

    blocks:   tokens ─ block ≈ x₁ ─ block ≈ x₂ ─ norm ─ head ─ logits ≈ the teacher's
                               x = stitch(the teacher's state)

    whole: the student runs on its own states. A stitch maps the state of each matched layer to the teacher's width, for
    the mean squared error against the teacher's state (FitNets; Romero et al. 2014, arXiv 1412.6550). blocks: a stitch
    maps the teacher's state of each matched layer to the student's width. A block must turn one such state into the
    next. The first block reads the tokens, and the final norm and the head read the last stitched state. So all blocks
    learn at the same time, without a gradient from one to another. A stitch learns from the loss of what reads it, and
    never from the loss of the block that is to give its result. With tied weights, the gradients of embedding and head
    add up in their one matrix, as always.

    Both states of a comparison are divided by their root mean square in each position: an error of 1 is that of a
    constant 0. The teacher is no part of this module: it has no gradients, is not trained, moved or stored with it,
    and stays in eval mode.
    """

    axis_letters = {"U": "channels of the teacher"}

    def __init__(self, student: Transformer, teacher: Transformer, settings: DistilConfig):
        super().__init__()
        problems = list(pair_problems(student, teacher, settings))
        if problems:
            raise ConfigError("\n  ".join([f"{settings.teacher!r} can't teach this model:", *problems]))
        self.student, self.settings = student, settings
        self.__dict__["teacher"] = teacher.eval().requires_grad_(False)  # keeps it out of parameters and modules
        self.layers = settings.matched_layers(len(student.next_token_blocks), len(teacher.next_token_blocks))
        widths = (student.config.width, teacher.config.width)[:: -1 if settings.mode == "blocks" else 1]
        self.stitches = nn.ModuleDict({str(layer): Linear(*widths, bias=True) for layer in self.layers})

    def losses(self, windows: Tensor) -> dict[str, Tensor]:
        """The student's losses of windows (B, T+1); distil_logits, in nats; and distil_hidden_1, ... by its layers.

        In mode blocks, "loss" is that of the head on the teacher's states. What weighs nothing is not computed.
        """
        inputs, targets = shift(windows)  # (B, T), (B, T)
        taught, read = self.ask(inputs)  # (B, T, U)
        given = self.stitched(taught)  # (B, T, C)
        states = []

        def visit(state):
            states.append(state)
            return given.get(len(states), state)  # (…, C)

        losses = self.student.losses(windows, visit)  # ()
        if self.settings.logits_weight:
            hidden = self.student.read_out(given.get(len(states), states[-1]))  # (B, T, C)
            heads = self.student.head, self.teacher.head
            losses["distil_logits"] = logit_loss(*heads, hidden, read, targets, self.settings.temperature)  # ()
        return losses | self.hidden_losses(states, taught, given)  # ()

    @torch.no_grad()
    def ask(self, inputs: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """The teacher's state for each matched layer of the student (B, T, U), and what its head reads (B, T, U)."""
        states = []

        def visit(state):
            states.append(state)
            return state  # (…, U)

        read = self.teacher.read_out(self.teacher.state(inputs, visit=visit))  # (B, T, U)
        found = layer_states(self.teacher, states)  # (B, T, U)
        return {layer: found[other - 1] for layer, other in self.layers.items()}, read  # (B, T, U)

    def stitched(self, taught: dict[int, Tensor]) -> dict[int, Tensor]:
        """In mode blocks the teacher's states as the student's blocks read them (B, T, C); else nothing."""
        if self.settings.mode == "whole":
            return {}
        return {layer: self.stitch(layer, taught[layer]) for layer in self.layers}  # (B, T, C)

    def stitch(self, layer: int, state: Tensor) -> Tensor:
        """A state of one model over its root mean square, mapped to the width of the other: (B, T, C) or (B, T, U)."""
        mapped = self.stitches[str(layer)](over_rms(state))  # (…)
        return over_rms(mapped) if self.settings.mode == "blocks" else mapped  # (…)

    def hidden_losses(self, states: list, taught: dict[int, Tensor], given: dict[int, Tensor]) -> dict[str, Tensor]:
        """The mean squared error of each matched layer."""
        own, losses = layer_states(self.student, states), {}  # (B, T, C)
        for layer in self.layers:
            if given:
                found, wanted = own[layer - 1], given[layer].detach()  # (B, T, C), (B, T, C)
            else:
                found, wanted = self.stitch(layer, own[layer - 1]), over_rms(taught[layer])  # (B, T, U), (B, T, U)
            losses[f"distil_hidden_{layer}"] = F.mse_loss(found.float(), wanted.float())  # ()
        return losses  # ()

    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        """What training minimises: the weighted sum of the losses."""
        return sum(weight * losses[name] for name, weight in self.loss_weights.items() if weight)  # ()

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each loss in training."""
        settings = self.settings
        weights = self.student.loss_weights | {"loss": settings.next_token_weight}
        each = settings.hidden_weight / max(1, len(self.layers))
        return weights | {"distil_logits": settings.logits_weight} | {
            f"distil_hidden_{layer}": each for layer in self.layers
        }


def pair_problems(student: Transformer, teacher: Transformer, settings: DistilConfig) -> Iterator[str]:
    """A sentence for each reason why one model can't teach the other, with its remedy."""
    ours, theirs = student.config, teacher.config
    if ours.vocab_size != theirs.vocab_size:
        yield f"it has vocab_size={theirs.vocab_size}, not {ours.vocab_size}; give both models the same"
    if ours.context_length > theirs.position_limit:
        yield (
            f"it accepts {theirs.position_limit} positions, and the student reads context_length="
            f"{ours.context_length}; give the student {theirs.position_limit} or less"
        )
    n_ours, n_theirs = len(student.next_token_blocks), len(teacher.next_token_blocks)
    if settings.layers is not None and len(settings.layers) != n_ours:
        yield f"layers has {len(settings.layers)} entries, and the student has {n_ours} layers; give one for each"
    if settings.layers is not None and max(settings.layers, default=0) > n_theirs:
        yield f"layers names layer {max(settings.layers)}, and it has {n_theirs}; name layers from 1 to {n_theirs}"
    if settings.mode == "blocks":
        if n_ours > n_theirs:
            yield (
                f"mode 'blocks' needs a layer of the teacher for each of the student's {n_ours}, and it has {n_theirs};"
                " take a student of fewer layers, or mode 'whole'"
            )
        if not isinstance(student.blocks[0].split(student.embedding.weight[None, :1]), Tensor):
            yield (
                f"mode 'blocks' makes each block's input from one state of the teacher, and the state of a "
                f"{ours.block.kind} block has several parts; take mode 'whole', or a student of residual blocks"
            )


def layer_states(model: Transformer, states: list) -> list[Tensor]:
    """Of the states that all blocks returned, those of the layers, read out: a list of (B, T, C), or (B, T, U)."""
    of_layers = [state for block, state in zip(model.blocks, states) if block.predicts_next]
    return [model.blocks[-1].join(state) for state in of_layers]  # (B, T, C|U)


def over_rms(x: Tensor) -> Tensor:
    """x / √mean(x²) over the channels, in float32."""
    return F.rms_norm(x.float(), x.shape[-1:])  # (…)


def logit_loss(
    head: Head, other_head: Head, hidden: Tensor, other_hidden: Tensor, targets: Tensor, temperature: float
) -> Tensor:
    """τ² · KL(q ‖ p) in nats, the mean over positions: p is softmax(logits / τ) of `head` for hidden (B, T, C), q that
    of the teacher's head for its own (B, T, U). Positions whose target is IGNORE do not count.

    The gradient of a logit is τ · (p − q), so τ² keeps its size as τ grows (Hinton et al. 2015, arXiv 1503.02531,
    section 2). Never more than (CHUNK, V) logits of each exist. The backward pass computes those of a chunk again.
    """
    total = torch.zeros((), device=hidden.device)  # ()
    for (rows, answers), taught in zip(chunks(hidden, targets), other_hidden.flatten(0, 1).split(CHUNK)):
        found = checkpoint(divergences, head, other_head, rows, taught, temperature, use_reentrant=False)  # (N)
        total = total + found.where(answers != IGNORE, 0).sum()  # ()
    return total / (targets != IGNORE).sum()  # ()


def divergences(head: Head, other_head: Head, rows: Tensor, taught: Tensor, temperature: float) -> Tensor:
    """τ² · KL(q ‖ p) of each row: (N)."""
    with torch.no_grad():
        log_q = (other_head(taught).float() / temperature).log_softmax(dim=-1)  # (N, V)
    log_p = (head(rows).float() / temperature).log_softmax(dim=-1)  # (N, V)
    return temperature**2 * F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(dim=-1)  # (N)
