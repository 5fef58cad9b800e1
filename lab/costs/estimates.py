"""What a model costs before it is trained: parameters, FLOPs per token, memory. Imports no torch by itself.

Nothing here describes a module a second time: parameters are those of the model built on PyTorch's meta device, FLOPs
are what PyTorch's counter sees in a pass there, and memory is what a step on fake tensors keeps alive.

FLOPs count matrix products alone, two for each multiply-add: every weight of a linear layer once per token, the head
included, and attention's scores and mixing over all T = context_length keys, although a causal kernel may skip half.
The backward pass takes twice the forward's; checkpointing computes the blocks' forward a second time, all but a last
projection whose result nothing needs. The forward pass gives logits; the losses with all their heads are in training.

Of a distillation, the student's training alone is counted: not the teacher, the stitches and their losses.

Memory counts tensors in eager PyTorch, but for what a kernel needs while it runs. The process holds more: interpreter
and libraries, about 0.3 GB, and what malloc keeps back for reuse (glibc: a third to a half of the tensors again; with
checkpointing once or more).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from config import ModelConfig, Preset, TrainConfig
from lab.costs.layers import count_by_layers
from lab.costs.memory import Memory, decoding_memory, training_memory
from lab.costs.parameters import parameters_by_part, weight_bytes
from lab.display.rows import Row, rows_as_html, rows_as_text
from lab.files.remembered import remembered


@remembered
def sequence_flops(config: ModelConfig, checkpointing: bool) -> list[int]:
    """Of the forward pass of one sequence, and of its training step."""
    from lab.costs.passes import count_flops

    def count(shorter: ModelConfig) -> dict[str, dict[str, int]]:
        return {"": dict(zip(("forward", "training"), count_flops(shorter, checkpointing)))}

    return list(count_by_layers(config, count)[""].values())


@remembered
def update_flops(config: ModelConfig, train: TrainConfig) -> int:
    """Of one update of all parameters, which does not depend on the batch."""
    from lab.costs.passes import count_update

    return count_by_layers(config, lambda shorter: {"": {"update": count_update(shorter, train)}})[""]["update"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Estimate:
    """The costs of a model, and of a training where one is given; shows itself as a table.

    Each number is measured when it is first asked for, and remembered. components: parameters by module name, a tied
    head having none of its own. forward_flops and training_flops are per token; weights and cache_per_token are bytes
    in float32, quantised weights in their own bits; training is by precision, on the device. Raises IdeaError for a
    part that can't run without numbers.
    """

    model: ModelConfig
    train: TrainConfig | None
    device: str

    @cached_property
    def components(self) -> dict[str, int]:
        return parameters_by_part(self.model)

    @property
    def parameters(self) -> int:
        return sum(self.components.values())

    @property
    def embedding(self) -> int:
        return self.components["embedding"]

    @property
    def forward_flops(self) -> int:
        return round(self.flops[0])

    @property
    def training_flops(self) -> int:
        return round(self.flops[1])

    @cached_property
    def flops(self) -> tuple[float, float]:
        """Per token: of the forward pass and of training."""
        checkpointing = self.train is not None and self.train.gradient_checkpointing
        forward, training = sequence_flops(self.model, checkpointing)
        return forward / self.model.context_length, training / self.model.context_length

    @property
    def weights(self) -> int:
        return weight_bytes(self.model)

    @cached_property
    def training(self) -> dict[str, Memory]:
        if self.train is None:
            return {}
        return {p: training_memory(self.model, self.train, p, self.device) for p in ("fp32", "bf16")}

    @cached_property
    def decoding(self) -> Memory:
        return decoding_memory(self.model)

    @property
    def cache_per_token(self) -> int:
        return self.decoding.cache // self.model.position_limit

    def block_components(self, layer: int) -> dict[str, int]:
        """The parameters of the parts of a layer, counted from 1."""
        prefix = f"blocks.{layer - 1}."
        return {name.removeprefix(prefix): n for name, n in self.components.items() if name.startswith(prefix)}

    def rows(self) -> Iterator[Row]:
        """The table's lines: what (indented where part of the line above), how much, and a remark."""
        model, train = self.model, self.train
        yield "parameters", f"{self.parameters:,}", ""
        yield "  embedding", f"{self.embedding:,}", "serves as the head too" if model.tie_weights else ""
        layers = range(1, model.n_layers + 1)
        for parts, alike in groupby(layers, self.block_components):
            first, *_, last = [*alike] * 2
            what = f"block {first}" if first == last else f"each of blocks {first} to {last}"
            what = f"each of {last} blocks" if first == 1 < last == model.n_layers else what
            yield f"  {what}", f"{sum(parts.values()):,}", ""
            yield from ((f"    {name}", f"{n:,}", "") for name, n in parts.items())
        rest = {name: n for name, n in self.components.items() if name != "embedding" and "." not in name}
        yield from ((f"  {name}", f"{n:,}", "") for name, n in rest.items())
        yield "FLOPs per token", si(self.forward_flops, "FLOP"), f"forward, {model.context_length:,} tokens of context"
        without = ", without the teacher's forward pass" if train is not None and train.distil else ""
        yield "  in training", si(self.training_flops, "FLOP"), f"forward and backward{without}"
        if train is not None:
            tokens = train.steps * train.batch_size * model.context_length
            yield "  in the whole training", si(tokens * self.training_flops, "FLOP"), f"{tokens:,} tokens"
        quantised = self.model.quantised
        yield "weights", si(self.weights, "B"), f"{quantised.bits} bits, the rest float32" if quantised else "float32"
        for precision, memory in self.training.items():
            remark = f"tensors at the fullest moment, {memory.moment}{', without the teacher' * bool(train.distil)}"
            remark += ", all sequences at once" * (train.micro_batch_size == "auto")
            yield f"training in {precision}", si(memory.total, "B"), remark
            yield from ((f"  {name}", si(size, "B"), "") for name, size in memory.parts().items())
        yield "cache per token", si(self.cache_per_token, "B"), "keys and values of one sequence"
        yield "decoding", si(self.decoding.total, "B"), f"one sequence of {model.position_limit:,} tokens"

    def __repr__(self) -> str:
        return rows_as_text(self.rows())

    def _repr_html_(self) -> str:
        return rows_as_html(self.rows())


def estimate(model: ModelConfig | Preset, train: TrainConfig | None = None, device: str = "cpu") -> Estimate:
    """What `model` will cost, and with `train` what its training will, in either precision. A preset serves as both.

    device: whose memory the training's is, "cpu" or "cuda".
    """
    if isinstance(model, Preset):
        model, train = model
    return Estimate(model=model, train=train, device=device)


def si(number: float, unit: str) -> str:
    """12345678, "B" -> "12.3 MB": three digits and a power of a thousand."""
    mantissa, exponent = f"{number:.2e}".split("e")
    power, tens = divmod(int(exponent), 3)
    return f"{float(mantissa) * 10**tens:.{2 - tens if power else 0}f} {('', *'kMGTPEZ')[power]}{unit}"
