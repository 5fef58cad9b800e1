"""Watching the layers while they train: how large activations and gradients are, and which units are dead.

Three kinds of numbers, each with the module path of its layer:

    activation   √mean(x²) of the output of the embedding, each block and the final norm; a row per stream of a block
    gradient     ‖∂loss/∂weights‖ of a layer's parameters, before clipping; the log has the norm over all layers
    dead         share of an MLP's hidden units whose activation is closed for every token

A unit is closed for a token where its input x ≤ 0 and |a(x)| ≤ |x|/100. For ReLU and ReLU² that is a(x) = 0, and no
gradient comes through (Lu et al. 2019, arXiv 1903.06733). GELU, SiLU and Mish are x · gate(x): their gate is under 1 %.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf

import pandas as pd
import torch
from torch import Tensor, nn

from lab.compute.sharding import total_norm
from lab.training.log import StepLog
from modules.mlp import BaseMLP
from modules.transformer import Transformer

COLUMNS = ("step", "layer", "kind", "value")
CLOSED = 0.01  # the largest share of x that comes through a closed unit

# Measured in presets, untrained and trained: gradients from 1/114 of the median layer's on, sizes to 107 × the start.
VANISHING_SHARE = 1e-3  # of the median layer's gradient
VANISHING = 1e-7  # of a hundred weights, each has 1e-8: as small as the ε in AdamW's √v + 1e-8, so their steps shrink
EXPLODING = 1e3  # times the layer's start: its first value above 0, that of the untrained model
DEAD = 0.5  # of a layer's units at the last watched step; early in training many are closed for a while


class Watch:
    """Measures a step of `model` and appends the numbers to `log`. Between watched steps no hook exists.

    learner: what computes the losses of a step, if not the model itself. log: None on every rank but the first, whose
    part of the first micro-batch gives the numbers of activations; the gradients are those of all ranks.
    """

    def __init__(self, model: Transformer, log: StepLog | None, learner: nn.Module | None = None):
        self.model, self.log, self.learner = model, log, model if learner is None else learner
        self.seen: list[tuple[str, str, Tensor]] = []

    def losses(self, windows: Tensor) -> dict[str, Tensor]:
        """The losses of windows (B, T+1), not compiled; measures the activations."""
        self.seen.clear()
        with hooked(self.model, lambda *seen: self.seen.append(seen)):
            return self.learner.losses(windows)

    def write(self, step: int) -> None:
        """Writes the activations measured and the present gradients as the rows of `step`."""
        seen = self.seen + [(layer, "gradient", norm) for layer, norm in gradient_norms(self.model).items()]
        if self.log is None:  # not the first rank, which needed it for the norms of what is split
            return
        values = torch.stack([value for *_, value in seen]).tolist()  # one wait for the device instead of many
        self.log.append(COLUMNS, [(step, layer, kind, value) for (layer, kind, _), value in zip(seen, values)])


@contextmanager
def hooked(model: Transformer, report: Callable[[str, str, Tensor], None]) -> Iterator[None]:
    """Inside the `with`, a forward pass reports (layer, kind, value) of its activations; afterwards no hook is left.

    Each layer is reported once, when it first runs: that is in the pass for the next token. Later, further heads use
    the final norm again, and levels that predict vectors embed their targets. A block that returns its state unchanged,
    as the further heads of multi-token prediction do, is not reported.
    """
    reported = set()

    def look(layer: str):
        def hook(module, inputs, output):
            if layer in reported or untouched(inputs, output):
                return
            reported.add(layer)
            if isinstance(output, Tensor):
                report(layer, "activation", root_mean_square(output))
            else:  # a state of several streams, named by its fields
                for stream, x in output._asdict().items():
                    if not isinstance(x, Tensor) or not x.numel():  # nothing there yet
                        continue
                    report(f"{layer} {stream}", "activation", root_mean_square(x))

        return hook

    def count_dead(layer: str, mlp: BaseMLP):
        def hook(module, inputs, output):
            report(layer, "dead", dead_share(mlp.before_activation(output), mlp.activation))

        return hook

    layers, handles = {model.embedding, *model.blocks, model.norm}, []
    try:
        for layer, module in model.named_modules():
            if module in layers:
                handles.append(module.register_forward_hook(look(layer)))
            elif isinstance(module, BaseMLP):
                handles.append(module.entrance.register_forward_hook(count_dead(layer, module)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def untouched(inputs: tuple, output) -> bool:
    """Whether a block's output state (a tuple of streams) holds the same tensor objects as its input state."""
    if not isinstance(output, tuple) or not inputs:
        return False
    return all(new is old for new, old in zip(output, inputs[0]) if isinstance(new, Tensor))


def root_mean_square(x: Tensor) -> Tensor:
    """√mean(x²) in float32, a scalar."""
    return torch.linalg.vector_norm(x.detach(), dtype=torch.float32) / x.numel() ** 0.5


@torch.no_grad()
def dead_share(x: Tensor, activation: Callable[[Tensor], Tensor]) -> Tensor:
    """The share of the last axis's units that are closed for every token; x is the activation's input."""
    closed = (x <= 0) & (activation(x).abs() <= CLOSED * x.abs())
    return closed.flatten(0, -2).all(dim=0).float().mean()


def gradient_norms(model: nn.Module) -> dict[str, Tensor]:
    """The L2 norm of the gradients of each block, and of each other part of the model that has parameters."""
    gradients: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts = name.split(".")
            layer = ".".join(parts[:2]) if parts[0] == "blocks" else parts[0]
            gradients.setdefault(layer, []).append(parameter.grad)
    return {layer: total_norm(tensors) for layer, tensors in gradients.items()}


# --- what the numbers mean, in words ----------------------------------------------------------------------------------


def by_layer(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    """Run.watch()'s values of one kind: a row for each step, a column for each layer in the model's order.

    A value that was not a number is infinite here, so that NaN means: not measured. In files of earlier versions a
    layer may have several values of one step: the first counts, which is of the pass that gives the next token.
    """
    rows = frame[frame["kind"] == kind].fillna({"value": inf}).drop_duplicates(["step", "layer"])
    return rows.pivot(index="step", columns="layer", values="value").reindex(columns=rows["layer"].unique())


def watch_warnings(frame: pd.DataFrame) -> list[str]:
    """A sentence for each layer of Run.watch()'s rows that vanishes, explodes or is dead; [] if there is none.

    Each gives the first step of it, on how many of the watched steps it was found, the number, and a remedy.
    """
    return [
        *vanishing(by_layer(frame, "gradient")),
        *exploding(by_layer(frame, "gradient"), "the gradient's norm"),
        *exploding(by_layer(frame, "activation"), "the activations' root mean square"),
        *dead(by_layer(frame, "dead")),
    ]


def vanishing(norms: pd.DataFrame) -> Iterator[str]:
    medians = norms.median(axis=1)
    for layer, step, when in flagged(norms.le(VANISHING) | norms.lt(VANISHING_SHARE * medians, axis=0)):
        yield (
            f"{when}: the gradient vanishes, its norm is {norms.at[step, layer]:.2g} where the median layer's is "
            f"{medians[step]:.2g}. Look at the parts between this layer and the loss: norms, residual connections, "
            "weights that start at zero or have grown too large"
        )


def exploding(values: pd.DataFrame, name: str) -> Iterator[str]:
    start = values.where(values > 0).bfill().head(1).min()
    for layer, step, when in flagged(values.gt(EXPLODING * start) | values.eq(inf)):
        yield (
            f"{when}: {name} explodes, from {start[layer]:.2g} at first to {values.at[step, layer]:.2g}. "
            "Lower learning_rate, lengthen the warm-up, or set gradient_clip"
        )


def dead(shares: pd.DataFrame) -> Iterator[str]:
    many = shares.gt(DEAD)
    for layer, step, when in flagged(many.loc[:, many.tail(1).all()]):
        yield (
            f"{when}: {shares.at[step, layer]:.0%} of the hidden units are dead, closed for every token. "
            "Lower learning_rate, lengthen the warm-up, or choose an activation that never closes entirely"
        )


def flagged(table: pd.DataFrame) -> Iterator[tuple[str, int, str]]:
    """For each layer with a True in its column: the layer, the first such step, and both in words."""
    for layer in table.columns[table.any()]:
        step = table[layer].idxmax()
        yield layer, step, f"{layer}, step {step:,} ({table[layer].sum()} of {len(table)} watched steps)"
