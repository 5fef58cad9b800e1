"""What a model will cost before it is built: parameters, FLOPs per token, memory. Imports no torch.

FLOPs count matrix products alone, two for each multiply-add: every weight of a linear layer once per token, the head
included, and attention's scores and mixing over all T = context_length keys, although a causal kernel may skip half.
The backward pass takes twice the forward's; checkpointing computes the blocks' forward a second time, all but a last
projection whose result nothing needs.

Memory counts tensors, in eager PyTorch on a CPU. The process holds more: interpreter and libraries, about 0.3 GB, and
what malloc keeps back for reuse (glibc: a third to a half of the tensors again; with checkpointing once or more).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from config import ModelConfig, Preset, TrainConfig
from lab.costs.component_costs import FP32, Pass
from lab.costs.model_costs import Section, count, loss_working, sections, state, step_working
from settings.errors import ConfigError

VALUE_BYTES = {"fp32": 4, "bf16": 2}  # of a number inside a sub-layer


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes alive at the fullest moment, and which that is. activations: all that is kept for the backward pass."""

    moment: str
    weights: int
    optimizer: int = 0
    gradients: int = 0
    activations: int = 0
    cache: int = 0
    temporary: int = 0

    def parts(self) -> dict[str, int]:
        names = ("weights", "optimizer", "gradients", "activations", "cache", "temporary")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    @property
    def total(self) -> int:
        return sum(self.parts().values())


def training_memory(model: ModelConfig, train: TrainConfig, precision: str) -> Memory:
    """The fullest moment of a training step in "fp32" or under "bf16" autocast, once AdamW has its two moments."""
    return max(training_moments(model, train, precision), key=lambda memory: memory.total)


def training_moments(model: ModelConfig, train: TrainConfig, precision: str) -> Iterator[Memory]:
    """One step as autograd goes through it, with bytes in place of tensors.

    The forward pass keeps what each part needs, and is fullest in the loss. The backward pass releases it part by part,
    last first, while gradients appear. A checkpointed block keeps its input alone, and the rest while it is passed
    backwards; so does a further head, whose input the trunk keeps.
    """
    run = Pass(train.micro_batch_size or train.batch_size, model.context_length, VALUE_BYTES[precision])
    parts = sections(model, run)
    all_gradients = FP32 * count(parts, "parameters")
    stream = FP32 * run.tokens * model.width
    values, gradient = (round(number * stream) for number in state(model))  # of the state between blocks

    def at(moment: str, gradients: int, activations: int = 0, temporary: int = 0) -> Memory:
        return Memory(
            moment=moment, weights=all_gradients + FP32 * count(parts, "buffers"), optimizer=2 * all_gradients,
            gradients=gradients, activations=activations, temporary=temporary,
        )  # fmt: skip

    def recomputed(section: Section) -> bool:
        return section.recomputed or (train.gradient_checkpointing and section.prefix != "")

    def kept(section: Section) -> int:
        return sum(part.kept + part.copies for part in section.parts.values())

    def kept_at_first(section: Section) -> int:
        if recomputed(section):
            return 0 if section.recomputed else values
        return kept(section)

    accumulated = train.accumulation > 1  # then the gradients of earlier micro-batches are there all the time
    gradients = all_gradients if accumulated else 0
    alive = sum(map(kept_at_first, parts))
    unused_copies = count(filter(recomputed, parts), "copies")  # autocast drops them after the loss
    yield at("the loss", gradients, alive, loss_working(model, run) + unused_copies)
    for section in reversed(parts):
        alive += kept(section) - kept_at_first(section)
        for name, part in reversed(section.parts.items()):
            gradients += 0 if accumulated else part.gradients
            working = gradient + section.waiting + part.working + (part.gradients if accumulated else 0)
            yield at(f"the backward pass of {section.prefix}{name}", gradients, alive, working)
            alive -= part.kept + part.copies
    yield at("the update", all_gradients)


def decoding_memory(model: ModelConfig, batch: int = 1, length: int | None = None, bytes_per_value: int = 4) -> Memory:
    """What generating token by token takes with a cache of `length` tokens (None: all positions) for each sequence.

    A prompt's own pass comes on top: its logits alone are prompt length · vocab_size values for each sequence.
    Raises ConfigError where batch, length or bytes_per_value is out of range.
    """
    length = model.position_limit if length is None else length
    if batch < 1 or bytes_per_value < 1:
        raise ConfigError(f"batch and bytes_per_value must be 1 or more, not {batch} and {bytes_per_value}")
    if not 1 <= length <= model.position_limit:
        raise ConfigError(
            f"length must lie between 1 and the {model.position_limit} positions this model accepts, not {length}; "
            "raise max_positions, or context_length for learned positions"
        )
    parts = sections(model, Pass(batch, 1, FP32))
    return Memory(
        moment="a step",
        weights=bytes_per_value * (count(parts, "parameters") + count(parts, "buffers")),
        cache=bytes_per_value * batch * length * count(parts, "cached"),
        temporary=bytes_per_value * batch * step_working(model, length),
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class Estimate:
    """The costs of a model, and of a training where one is given; shows itself as a table.

    components: parameters by module name, a tied head having none of its own. forward_flops and training_flops are per
    token; weights and cache_per_token are bytes in float32; training is by precision.
    """

    model: ModelConfig
    train: TrainConfig | None
    components: dict[str, int]
    forward_flops: int
    training_flops: int
    weights: int
    training: dict[str, Memory]
    cache_per_token: int
    decoding: Memory

    @property
    def parameters(self) -> int:
        return sum(self.components.values())

    @property
    def embedding(self) -> int:
        return self.components["embedding"]

    def block_components(self, layer: int) -> dict[str, int]:
        """The parameters of the parts that have any."""
        prefix = f"blocks.{layer}."
        found = ((name.removeprefix(prefix), n) for name, n in self.components.items() if name.startswith(prefix))
        return {name: n for name, n in found if n}

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """The table's lines: what (indented where part of the line above), how much, and a remark."""
        model, train = self.model, self.train
        yield "parameters", f"{self.parameters:,}", ""
        yield "  embedding", f"{self.embedding:,}", "serves as the head too" if model.tie_weights else ""
        blocks = [self.block_components(i) for i in range(model.n_layers)]
        for i, parts in enumerate(blocks):
            if i and parts == blocks[i - 1]:
                continue
            alike = next((j for j in range(i, model.n_layers) if blocks[j] != parts), model.n_layers) - i
            what = f"each of {model.n_layers} blocks" if alike == model.n_layers else f"block {i}"
            what = f"each of blocks {i} to {i + alike - 1}" if 1 < alike < model.n_layers else what
            yield f"  {what}", f"{sum(parts.values()):,}", ""
            yield from ((f"    {name}", f"{n:,}", "") for name, n in parts.items())
        rest = {name: self.components[name] for name in ("position", "norm", "head")}
        yield from ((f"  {name}", f"{n:,}", "") for name, n in rest.items() if n)
        yield "FLOPs per token", si(self.forward_flops, "FLOP"), f"forward, {model.context_length:,} tokens of context"
        yield "  in training", si(self.training_flops, "FLOP"), "forward and backward"
        if train is not None:
            tokens = train.steps * train.batch_size * model.context_length
            yield "  in the whole training", si(tokens * self.training_flops, "FLOP"), f"{tokens:,} tokens"
        yield "weights", si(self.weights, "B"), "float32"
        for precision, memory in self.training.items():
            yield f"training in {precision}", si(memory.total, "B"), f"tensors at the fullest moment, {memory.moment}"
            yield from ((f"  {name}", si(size, "B"), "") for name, size in memory.parts().items())
        yield "cache per token", si(self.cache_per_token, "B"), "keys and values of one sequence"
        yield "decoding", si(self.decoding.total, "B"), f"one sequence of {model.position_limit:,} tokens"

    def __repr__(self) -> str:
        rows = list(self.rows())
        wide, narrow = (max(len(row[i]) for row in rows) for i in (0, 1))
        return "\n".join(f"{what:{wide}}  {amount:>{narrow}}  {remark}".rstrip() for what, amount, remark in rows)

    def _repr_html_(self) -> str:
        def cell(text: str, side: str) -> str:
            indent = 0.5 + 0.7 * (len(text) - len(text.lstrip()))
            return f'<td style="text-align:{side};padding-left:{indent:.1f}em">{escape(text.lstrip())}</td>'

        sides = ("left", "right", "left")
        lines = ("".join(map(cell, row, sides)) for row in self.rows())
        return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>"


def estimate(model: ModelConfig | Preset, train: TrainConfig | None = None) -> Estimate:
    """What `model` will cost, and with `train` what its training will, in either precision. A preset serves as both."""
    if isinstance(model, Preset):
        model, train = model
    parts = sections(model, Pass(1, model.context_length, FP32))
    products = count(parts, "products")
    computed_twice = [
        part for section in parts for part in section.parts.values()
        if section.recomputed or (section.prefix and train is not None and train.gradient_checkpointing)
    ]  # fmt: skip
    again = sum(part.products - part.unread for part in computed_twice)
    precisions = VALUE_BYTES if train is not None else ()
    return Estimate(
        model=model,
        train=train,
        components={
            section.prefix + name: part.parameters for section in parts for name, part in section.parts.items()
        },
        forward_flops=2 * products,
        training_flops=round(
            2 * (3 * products - count(parts, "constant") + count(parts, "in_losses") + again)
        ),
        weights=FP32 * count(parts, "parameters"),
        training={precision: training_memory(model, train, precision) for precision in precisions},
        cache_per_token=FP32 * count(parts, "cached"),
        decoding=decoding_memory(model),
    )


def si(number: float, unit: str) -> str:
    """12345678, "B" -> "12.3 MB": three digits and a power of a thousand."""
    mantissa, exponent = f"{number:.2e}".split("e")
    power, tens = divmod(int(exponent), 3)
    return f"{float(mantissa) * 10**tens:.{2 - tens if power else 0}f} {('', *'kMGTPEZ')[power]}{unit}"
