"""The machines that a training can be planned for, by their names. Imports no torch by itself."""

import re
from dataclasses import dataclass

from lab.costs.hardware import CARDS, Card
from settings.errors import ConfigError
from settings.messages import suggest

MFU = 0.4  # assumed where nothing else is said; GPT-2 reached 0.37 on an H200 here (bench gpu training)
CPU = "cpu"  # this machine, where each process is a rank
MOST = 65_536  # ranks
BETWEEN_NODES = 50.0  # GB/s for each card: a port of 400 Gb/s, as a DGX H100 has for each of its cards (its data sheet)
GLOO = 0.7  # GB/s between processes that have a core each; assumed. So plans agree with trainings in `bench plan`


@dataclass(frozen=True)
class Machines:
    """`nodes` machines of `each` cards, or processes of this machine. card: None for this machine's CPU."""

    nodes: int
    card: Card | None
    each: int

    @property
    def ranks(self) -> int:
        return self.nodes * self.each

    @property
    def link(self) -> float:
        """The slowest way between two ranks, in GB/s in one direction."""
        inside = self.card.link if self.card else GLOO
        return min(inside, BETWEEN_NODES) if self.nodes > 1 else inside

    def __str__(self) -> str:
        if self.card is None:
            return f"this machine's CPU, {self.each} process{'es' * (self.each > 1)}"
        where = f" on each of {self.nodes} nodes" if self.nodes > 1 else ""
        return f"{self.each} × {self.card.key}{where}"


def read_machines(name: str) -> Machines:
    """"h100": one card; "h100x8": a node of eight; "2xh100x8": two such nodes; "cpux2": two processes of this machine.

    Raises ConfigError for anything else.
    """
    cards, text = {card.key: card for card in CARDS} | {CPU: None}, name.strip().lower()
    found = re.fullmatch(r"(?:(\d+)x)?(.*?)(?:x(\d+))?", text)
    kind = text if text in cards else found[2]
    if kind not in cards:
        likely = text if len(kind) < 3 else kind  # rtx4090 ends like a number of cards
        raise ConfigError(
            f"unknown hardware {name!r}; {suggest(likely, cards)}. Behind it x8 means eight of them in a node, and "
            "before it 2x means two such nodes, as in 2xh100x8"
        )
    nodes, each = (1, 1) if kind == text else (int(found[1] or 1), int(found[3] or 1))
    if not 1 <= nodes * each <= MOST:
        raise ConfigError(f"hardware {name!r} has {nodes * each:,} ranks; plan from 1 to {MOST:,}")
    if kind == CPU and nodes > 1:
        raise ConfigError(f"hardware {name!r}: cpu is this machine alone; leave {nodes}x out")
    return Machines(nodes, cards[kind], each)
