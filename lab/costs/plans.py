"""What a training would take on another machine, before any money is spent.

Memory and FLOPs are counted on the model itself, and peaks are those that makers publish. What a plan assumes beside
that, it says: which share of the peak a training reaches, and how fast ranks talk to each other. It leaves out reading
data, evaluation, checkpoints and waiting for a machine.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from config import ModelConfig, Preset, TrainConfig
from lab.compute.ranks import Ranks, check_divided
from lab.costs.compute_optimal import FITTED_FROM, FITTED_TO, LAWS, TOKENS_PER_PARAMETER, rule_of_thumb, tokens_for
from lab.costs.estimates import sequence_flops, si
from lab.costs.fitting import MARGIN
from lab.costs.hardware import CARDS
from lab.costs.layouts import BUS, SHORT, Layout, kernels_for, lay_out, speed_of
from lab.costs.machines import MFU, Machines, read_machines
from lab.costs.parameters import count_parameters
from lab.costs.rank_memory import rank_memory
from lab.costs.this_machine import Speed
from lab.display.rows import Row, rows_as_html, rows_as_text
from settings.errors import ConfigError

MOST_CARDS = 1024  # that a plan looks for where a training does not fit
WORDS = {"none": "replicated (DDP)", "full": "sharded (FSDP2)"}


@dataclass(frozen=True, kw_only=True, repr=False)
class Plan:
    """What a training takes on `machines`; shows itself as a table. tokens: of the whole training. price: of one card,
    or of this machine, for an hour. layouts: by sharding, "none" and, of several ranks, "full"."""

    model: ModelConfig
    train: TrainConfig
    machines: Machines
    tokens: int
    price: float | None
    mfu: float
    speed: Speed
    layouts: dict[str, Layout]

    @property
    def sharding(self) -> str | None:
        """The simplest one that fits; None: none does."""
        return next((name for name, layout in self.layouts.items() if layout.fits), None)

    @property
    def chosen(self) -> Layout:
        """The layout that fits; where none does, the last one, which needs least."""
        return self.layouts[self.sharding or [*self.layouts][-1]]

    @property
    def steps(self) -> int:
        return self.tokens // (self.train.batch_size * self.model.context_length)

    @property
    def flops(self) -> float:
        """Of the whole training, without what checkpointing computes again."""
        return self.tokens / self.model.context_length * sequence_flops(self.model, False)[1]

    @property
    def seconds(self) -> float:
        return self.steps * self.chosen.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.train.batch_size * self.model.context_length / self.chosen.seconds

    @property
    def cost(self) -> float | None:
        paid = self.machines.ranks if self.machines.card else 1
        return None if self.price is None else self.price * paid * self.seconds / 3600

    @cached_property
    def remedies(self) -> list[str]:
        """What would fit, where this does not."""
        return [] if self.sharding else list(find_remedies(self))

    def rows(self) -> Iterator[Row]:
        """The table's lines: what, how much, and a remark."""
        yield from self.training_rows()
        for layout in self.layouts.values():
            yield from self.memory_rows(layout)
        yield from self.choice_rows()
        yield from self.optimal_rows()
        yield from (("assumed" * (i == 0), "", text) for i, text in enumerate(self.assumptions()))

    def training_rows(self) -> Iterator[Row]:
        model, train = self.model, self.train
        each = f"{train.batch_size} × {model.context_length:,} tokens"
        yield "parameters", f"{count_parameters(model):,}", ""
        yield "tokens", f"{self.tokens:,}", f"{self.steps:,} steps of {each}"
        yield "FLOPs", si(self.flops, "FLOP"), "forward and backward, nothing computed again"
        room = si(next(iter(self.layouts.values())).room, "B")
        yield "hardware", str(self.machines), f"{self.speed.how}; room for {room} of tensors"

    def memory_rows(self, layout: Layout) -> Iterator[Row]:
        alone = self.machines.ranks == 1
        fits = "fits" if layout.fits else "does not fit"
        each = layout.micro_batch // self.machines.ranks
        at_once = f"{each:,} sequence{'s' * (each > 1)} at once"
        yield (
            "memory" if alone else f"memory per rank, {WORDS[layout.sharding]}", si(layout.memory.total, "B"),
            f"{fits}, with {at_once}; the fullest moment is {layout.memory.moment}",
        )
        yield from ((f"  {name}", si(size, "B"), "") for name, size in layout.memory.parts().items())

    def choice_rows(self) -> Iterator[Row]:
        if self.sharding is None:
            yield "fits", "no", "; or ".join(self.remedies) or "train a smaller model"
            return
        if self.machines.ranks > 1:
            yield "sharding needed", self.sharding, self.launch()
        batch = f"of all ranks together; a batch of {self.train.batch_size:,} takes {self.accumulation}"
        yield "micro-batch", f"{self.chosen.micro_batch:,}", batch
        yield "time", duration(self.seconds), f"{1000 * self.chosen.seconds:.3g} ms for a step"
        yield "tokens per second", f"{self.tokens_per_second:,.0f}", ""
        if self.cost is not None:
            what = "card" if self.machines.card else "machine"
            yield "cost", f"{self.cost:,.2f}", f"at {self.price:g} for an hour of one {what}"

    @property
    def accumulation(self) -> str:
        n = self.train.batch_size // self.chosen.micro_batch
        return f"{n:,} of them" if n > 1 else "one"

    def launch(self) -> str:
        """How the training is started."""
        nodes = f"--nnodes {self.machines.nodes} " * (self.machines.nodes > 1)
        threads = f"OMP_NUM_THREADS={self.speed.threads} " * (self.speed.threads > 1)  # torchrun's own is 1
        flag = " --sharding full" * (self.sharding == "full")
        return f"{threads}torchrun {nodes}--nproc-per-node {self.machines.each} tools.py train ...{flag}"

    def optimal_rows(self) -> Iterator[Row]:
        """What the laws of Hoffmann et al. and their critics suggest for as many FLOPs."""
        size = rule_of_thumb(self.flops)
        beyond = not FITTED_FROM <= size <= FITTED_TO
        yield (
            "compute-optimal", si(size, ""),
            f"parameters and {si(tokens_for(size, self.flops), '')} tokens, {TOKENS_PER_PARAMETER} for each"
            + ". Fitted to models of 70M to 16B: this extrapolates" * beyond,
        )
        for law in LAWS:
            best, low, high = law.suggest(self.flops)
            said = f"{si(low, '')} to {si(high, '')} by the range of its exponent"
            yield f"  {law.name}", si(best, ""), f"{said}; {si(tokens_for(best, self.flops), '')} tokens"

    def assumptions(self) -> Iterator[str]:
        machines = self.machines
        if machines.card:
            yield f"{self.mfu:.0%} of the peak (MFU), {machines.card.source}; eager kernels"
            yield f"1 / {MARGIN['cuda']} of a card's {machines.card.memory:g} GB for tensors, the rest for workspace"
            if self.chosen.passes < SHORT:
                yield "no time to launch kernels: passes this short wait for it, so a step takes longer"
            if kernels_for(machines) == "near-cuda":
                yield "a CPU's kernels, since this PyTorch is built without CUDA: a few tensors may differ"
        else:
            yield f"1 / {MARGIN['cpu']} of the free memory for tensors; beside them a process holds about 0.3 GB"
            yield "processes that do not slow each other" if machines.ranks > 1 else "a machine that does nothing else"
        if machines.ranks > 1:
            beside = "beside the passes" if machines.card else "between the passes"
            yield f"{BUS:.0%} of {machines.link:g} GB/s in one direction between ranks, {beside}"
        if self.train.distil:
            yield "no teacher: its passes and its weights come on top"

    def __repr__(self) -> str:
        return rows_as_text(self.rows())

    def _repr_html_(self) -> str:
        return rows_as_html(self.rows())


def plan(
    settings: Preset, hardware: str, tokens: int | None = None, price: float | None = None, mfu: float = MFU
) -> Plan:
    """What training these settings on other machines will take. Nothing is allocated or trained.

    hardware: "h100" is one card, "h100x8" a node of eight, "2xh100x8" two such nodes; "cpu" and "cpux2" are one and two
    processes of this machine, on which passes are timed for a few seconds. tokens: of the whole training; by default
    those of the settings' steps. price: of one card, or of this machine, for an hour. mfu: the share of a card's peak
    that the training reaches. Raises ConfigError for unknown hardware, impossible numbers, and a batch that the ranks
    do not divide.
    """
    model, train = settings
    machines = read_machines(hardware)
    per_step = train.batch_size * model.context_length
    tokens = train.steps * per_step if tokens is None else tokens
    if tokens < per_step:
        raise ConfigError(
            f"tokens={tokens:,} are fewer than the {per_step:,} of one step; give more, or lower batch_size"
        )
    if price is not None and not 0 <= price < float("inf"):
        raise ConfigError(f"price={price:g} must be 0 or more, for an hour of one card or of this machine")
    if not 0 < mfu <= 1:
        raise ConfigError(f"mfu={mfu:g} is a share of a card's peak: from above 0 to 1; trainings reach 0.2 to 0.6")
    check_divided(train, machines.ranks)
    speed = speed_of(model, train, machines, precision_on(machines, train), mfu)
    names = ("none", "full") if machines.ranks > 1 else ("none",)
    return Plan(
        model=model, train=train, machines=machines, tokens=tokens, price=price, mfu=mfu, speed=speed,
        layouts={name: lay_out(model, train, machines, name, speed) for name in names},
    )


def precision_on(machines: Machines, train: TrainConfig) -> str:
    """In which the training computes: with "auto" bf16 on cards that have it. Raises ConfigError for one without it."""
    card = machines.card
    if card is None:
        return train.precision
    precision = ("bf16" if card.bf16 else "fp32") if train.precision == "auto" else train.precision
    if getattr(card, precision) is None:
        raise ConfigError(f"a {card.key} has no units for {precision}: set precision to 'fp32', or leave it at 'auto'")
    return precision


def find_remedies(plan: Plan) -> Iterator[str]:
    """What would hold this training with one sequence in each rank, where the plan's machines do not."""
    train, card, ranks = plan.train, plan.machines.card, plan.machines.ranks
    recomputed = train.replace(gradient_checkpointing=True)
    single = train.replace(batch_size=ranks, micro_batch_size=None)
    for way, words in ((single, f"batch_size={ranks}"), (recomputed, "gradient_checkpointing=True")):
        if way != train and smallest_bytes(plan, way, ranks) <= plan.chosen.room:
            yield f"set {words}"
    if card is None:
        return
    counts = [2**i for i in range(1, MOST_CARDS.bit_length()) if 2**i > ranks]
    for way, words in ((train, ""), (recomputed, " and gradient_checkpointing")):
        enough = next((n for n in counts if smallest_bytes(plan, way, n) <= plan.chosen.room), None)
        if enough:
            yield f"take {enough} × {card.key} with full sharding{words}"
            break
    needed = smallest_bytes(plan, train, 1) * MARGIN["cuda"] / 1e9
    larger = min((c for c in CARDS if c.memory >= needed and c.bf16), key=lambda c: c.memory, default=None)
    if larger:
        yield f"take one card of {larger.memory:g} GB, such as {larger.key}"


def smallest_bytes(plan: Plan, train: TrainConfig, ranks: int) -> int:
    """Of a step on so many ranks, fully sharded, with one sequence in each at a time."""
    parts = 2 if train.batch_size > plan.machines.ranks else 1  # with two, gradients add up, as with more
    share = train.replace(batch_size=parts, micro_batch_size=1)
    sharded = Ranks(size=ranks, sharded=True)
    return rank_memory(plan.model, share, plan.speed.precision, kernels_for(plan.machines), sharded).total


def duration(seconds: float) -> str:
    """7200.0 -> "2.0 h": in the unit that suits."""
    units = (("days", 86_400), ("h", 3600), ("min", 60), ("s", 1))
    name, size = next(((name, size) for name, size in units if seconds >= 2 * size), units[-1])
    return f"{seconds / size:.3g} {name}"
