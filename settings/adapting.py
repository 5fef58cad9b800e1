"""The settings of what is done with a trained model: adapters on it, weights of few bits, a student of it. config.py
takes them into the settings of a model and of a training."""

from collections.abc import Iterator
from typing import Annotated, Literal

from annotated_types import MaxLen

from settings.checked import Config, settings
from settings.types import Above, Positive, Real, Text, Whole


@settings
class LoRAConfig(Config):
    """Low-rank adapters: y = W·x + alpha/rank · B·A·x. Only A and B train (Hu et al. 2021, arXiv 2106.09685)."""
    rank: Whole[1, 2**16] = 8
    alpha: Positive = 16.0
    dropout: Real[0, 0.99] = 0.0  # On the x that A reads, while training.
    layers: Text = "blocks.*"  # Which linear layers: patterns of their names, as in "*.attention.*, *.mlp.down".


@settings
class QuantisedConfig(Config):
    """Weights of linear layers as whole numbers: of 8 bits with a scale per output, or of 4 bits with a scale and an
    offset per group of inputs."""
    bits: Literal[8, 4] = 8
    group: Literal[32, 64] | None = None  # Inputs that share a scale and an offset, for 4 bits. None: 32.
    layers: Text = "blocks.*"  # Which linear layers: patterns of their names, as in "*.attention.*, *.mlp.down".

    @property
    def group_size(self) -> int:
        return self.group or 32

    def problems(self) -> Iterator[str]:
        if self.bits == 8 and self.group is not None:
            yield f"group={self.group} is for 4 bits: with 8, each output has one scale; leave it out, or set bits=4"


@settings
class DistilConfig(Config):
    """A trained run, the teacher, from whose logits and hidden states the trained model, the student, learns, too.

    The objective is next_token_weight · loss + logits_weight · distil_logits + hidden_weight · the mean of the
    distil_hidden losses of the matched layers; the losses of the student's own architecture keep their weights.
    mode "whole": the student reads its own states. "blocks": each block reads the teacher's state instead, so that all
    blocks learn at the same time, and none waits for an earlier one.
    """

    teacher: Text  # The name of a run in the same folder, or a run's folder.
    mode: Literal["whole", "blocks"] = "whole"
    temperature: Above[0, 1000] = 2.0  # Both sides' logits are divided by it (arXiv 1503.02531).
    next_token_weight: Real[0, 1e30] = 0.5
    logits_weight: Real[0, 1e30] = 0.5
    hidden_weight: Real[0, 1e30] = 1.0  # 0: states are not matched (whole only).
    # For each of the student's layers the teacher's layer that it is matched with; 0: none. None: evenly spaced.
    layers: Annotated[tuple[Whole[0, 512], ...], MaxLen(512)] | None = None

    def matched_layers(self, student: int, teacher: int) -> dict[int, int]:
        """The teacher's layer by the student's, both from 1 on, for models of so many layers.

        By default layer i of n is matched with layer ⌈i · teacher / n⌉, and so the last one with the last one.
        """
        if not self.hidden_weight:
            return {}
        even = [-(-layer * teacher // student) for layer in range(1, student + 1)]
        layers = even if self.layers is None else self.layers
        return {layer: other for layer, other in enumerate(layers, start=1) if other}

    def problems(self) -> Iterator[str]:
        if not self.teacher.strip():
            yield "teacher is empty; name a trained run"
        if not self.next_token_weight and not self.logits_weight:
            yield "next_token_weight and logits_weight are both 0, and then nothing trains the head: raise one of them"
        if self.mode == "blocks" and not self.hidden_weight:
            yield "hidden_weight=0 would leave all blocks of mode 'blocks' untrained: give it some weight"
        if self.mode == "whole" and not self.hidden_weight and not self.logits_weight:
            yield "logits_weight and hidden_weight are both 0, so nothing comes from the teacher: raise one of them"
        if self.layers is not None and not self.hidden_weight:
            yield "hidden_weight=0 matches no layers: leave layers out, or give it some weight"
        usual = type(self).__dataclass_fields__["temperature"].default
        if not self.logits_weight and self.temperature != usual:
            yield f"logits_weight=0 leaves temperature={self.temperature:g} without use: leave it out"
        yield from self.layer_problems()

    def layer_problems(self) -> Iterator[str]:
        """What is wrong with the matched layers, whatever the models."""
        layers = self.layers
        if layers is None:
            return
        if not any(layers):
            yield "layers matches no layer: leave it out, or set hidden_weight=0"
        matched = [layer for layer in layers if layer]
        if sorted(matched) != matched:
            yield f"layers={list(layers)} must not fall: a later layer is matched with a later one"
        if self.mode == "blocks" and (not all(layers) or len(set(layers)) < len(layers)):
            yield (
                f"mode 'blocks' needs a further layer of the teacher for each of the student's, not "
                f"layers={list(layers)}: let them rise from 1 or more"
            )
