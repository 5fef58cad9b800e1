"""Positions for the boxes of a graph: layers from top to bottom, long edges in lanes (Sugiyama 1981)."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import pairwise

SWEEPS = 12  # of ordering and of placing; more than enough for small graphs


@dataclass(eq=False)
class Item:
    """A box, or the piece of an edge that crosses a layer. left, right: the distances from x to its sides, in px.

    above, below: the items that it is connected to, each with a weight.
    """

    layer: int
    left: float
    right: float
    x: float = 0.0
    above: list[tuple["Item", float]] = field(default_factory=list)
    below: list[tuple["Item", float]] = field(default_factory=list)

    def ties(self, upwards: bool) -> list[tuple["Item", float]]:
        return self.below if upwards else self.above


@dataclass(eq=False)
class Layout:
    """boxes: key -> item, in even layers. routes: the items of each edge from its source to its target. The second one
    is the edge's label, in the odd layer under the source."""

    boxes: dict[Hashable, Item]
    routes: list[list[Item]]
    layers: list[list[Item]]


def arrange(
    widths: dict[Hashable, float], edges: list[tuple[Hashable, Hashable, float]], gap: float = 18.0
) -> Layout:
    """widths: of each box, sources before targets. edges: source, target, width of the label.

    Boxes without outgoing edges stand at the bottom.
    """
    layer = dict.fromkeys(widths, 0)
    for key in widths:
        layer[key] = max([layer[source] + 2 for source, target, _ in edges if target == key], default=0)
    bottom, tied = max(layer.values(), default=0), {source for source, _, _ in edges}
    layer = {key: level if key in tied else bottom for key, level in layer.items()}
    boxes = {key: Item(layer[key], width / 2, width / 2) for key, width in widths.items()}
    items, routes = list(boxes.values()), []
    for source, target, width in edges:
        route = [boxes[source]]
        for level in range(layer[source] + 1, layer[target]):
            route.append(Item(level, 8, 8 + width if level == layer[source] + 1 else 8))
        items += route[1:]
        route.append(boxes[target])
        routes.append(route)
        for upper, lower in pairwise(route):
            # a long edge is straight, and does not pull its boxes out of the main line
            tie = 1.0 if len(route) == 3 else 0.1 if upper is route[0] or lower is route[-1] else 8.0
            upper.below.append((lower, tie))
            lower.above.append((upper, tie))
    layers = [[item for item in items if item.layer == level] for level in range(bottom + 1)]
    _order(layers)
    _place(layers, gap)
    return Layout(boxes, routes, layers)


def _order(layers: list[list[Item]]) -> None:
    """Moves each item to the mean of its neighbours, down and up in turn, so that fewer edges cross."""
    for sweep in range(SWEEPS):
        for row in layers[:: -1 if sweep % 2 else 1]:
            for item in row:
                near = item.ties(upwards=sweep % 2 == 1)
                item.x = sum(other.x for other, _ in near) / len(near) if near else item.x
            row.sort(key=lambda item: item.x)
            for index, item in enumerate(row):
                item.x = index - (len(row) - 1) / 2


def _place(layers: list[list[Item]], gap: float) -> None:
    for row in layers:
        for item in row:
            item.x *= 100
    for sweep in range(2 * SWEEPS):
        for row in layers[:: -1 if sweep % 2 else 1]:
            _place_row(row, upwards=sweep % 2 == 1, gap=gap)
    left = min(item.x - item.left for row in layers for item in row)
    for row in layers:
        for item in row:
            item.x -= left


def _place_row(row: list[Item], upwards: bool, gap: float) -> None:
    """Moves each item as near to its neighbours as order and distance allow: least squares, by pooling violators."""
    offsets = [0.0]
    for a, b in pairwise(row):
        offsets.append(offsets[-1] + a.right + gap + b.left)
    pools: list[tuple[float, float, int]] = []  # mean, weight, number of members
    for item, offset in zip(row, offsets):
        near = item.ties(upwards) or [(item, 0.1)]
        weight = sum(tie for _, tie in near)
        pools.append((sum(other.x * tie for other, tie in near) / weight - offset, weight, 1))
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            (a, a_weight, m), (b, b_weight, n) = pools.pop(-2), pools.pop()
            pools.append(((a * a_weight + b * b_weight) / (a_weight + b_weight), a_weight + b_weight, m + n))
    places = [mean for mean, _, members in pools for _ in range(members)]
    for item, place, offset in zip(row, places, offsets):
        item.x = place + offset
