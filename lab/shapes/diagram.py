"""A module as a graph: boxes for its parts, the operations that join them, and tensors along the edges."""

import re
from base64 import b64encode
from dataclasses import dataclass
from html import escape
from itertools import groupby

from lab.display.palette import GREY, ORANGE, SKY, translucent
from lab.shapes.axis_colours import axis_colour, axis_texts
from lab.shapes.layout import Item, arrange
from settings.messages import suggest
from tracing.axes import letters
from tracing.flow import Edge, Flow, Node
from tracing.traces import Trace, TraceError

MOST_ALIKE = 4  # up to so many equal blocks in a row are all drawn; of more, the first and the last
CHARACTER = 6.6  # px, the width of a small monospaced letter
SMALLEST = 0.85  # the least scale at which the letters can be read
BOX, SPACE = 40, 58  # px, the heights of a box and of the space between two
FONT = "ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace"
CARD = "max-width:100%;background:#fafafa;border-radius:6px"  # an image does not know the page's colours
FILLS = {"module": SKY, "input": GREY, "output": GREY, "operation": ORANGE}


@dataclass(frozen=True)
class DrawnNode:
    """A node of the diagram: its kind, its name and a line about it."""

    kind: str
    name: str
    about: str = ""

    @property
    def width(self) -> float:
        if self.kind == "operation":
            return max(28.0, len(self.name) * 7.5 + 16)
        return max(len(self.name) * 7.4, len(self.about) * CHARACTER) + 24


@dataclass(frozen=True)
class Diagram:
    """A drawing in a notebook, indented text elsewhere. nodes: by key, in the order in which they ran."""

    title: str
    nodes: dict[int, DrawnNode]
    edges: tuple[tuple[int, int, Edge], ...]

    @property
    def svg(self) -> str:
        """The drawing in SVG, without scripts or links, in the page's text colour.

        If a tensor goes to several nodes, only the first of its edges has a label.
        """
        first = {(source, _label(edge)): place for place, (source, _, edge) in reversed([*enumerate(self.edges)])}
        labelled = [first[source, _label(edge)] == place for place, (source, _, edge) in enumerate(self.edges)]
        edges = [
            (source, target, CHARACTER * len(_label(edge) * said))
            for said, (source, target, edge) in zip(labelled, self.edges)
        ]
        layout = arrange({key: node.width for key, node in self.nodes.items()}, edges)
        tops = [(level // 2) * (BOX + SPACE) + (level % 2) * BOX for level in range(len(layout.layers))]
        width = max(item.x + item.right for row in layout.layers for item in row)
        height = tops[-1] + BOX
        ends = [(self.nodes[source], self.nodes[target]) for source, target, _ in self.edges]
        drawn = [_route(route, tops, *pair) for route, pair in zip(layout.routes, ends)]
        texts = [_text(route[1], tops, edge) for route, (_, _, edge) in zip(layout.routes, self.edges)]
        drawn += [text for text, said in zip(texts, labelled) if said]
        drawn += [_box(layout.boxes[key], tops, node) for key, node in self.nodes.items()]
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{width + 24:.0f}" height="{height + 24:.0f}" '
            f'viewBox="-12 -12 {width + 24:.0f} {height + 24:.0f}" style="max-width:100%;height:auto;color:inherit" '
            f'font-family="{FONT}" font-size="11" fill="currentColor">'
            f"<title>{escape(self.title)}</title><desc>{escape(str(self))}</desc>{''.join(drawn)}</svg>"
        )

    def _repr_html_(self) -> str:
        # JupyterLab removes SVG from a notebook that has not been run here, but keeps images
        svg = self.svg
        data, width = b64encode(svg.encode()).decode(), int(re.search(r' width="(\d+)"', svg)[1])
        style = f"{CARD};min-width:{SMALLEST * width:.0f}px"  # a wide diagram can be scrolled and stays legible
        picture = f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(str(self))}" style="{style}">'
        return f'<div style="overflow-x:auto">{picture}</div>'

    def __str__(self) -> str:
        lines, names = [self.title], self.names()
        for key, node in self.nodes.items():
            lines.append(f"  {names[key]}" + (f" · {node.about}" if node.about else ""))
            lines += [f"    ← {names[a]}: {_label(edge)}" for a, b, edge in self.edges if b == key]
        return "\n".join(lines)

    __repr__ = __str__

    def names(self) -> dict[int, str]:
        """Each node's name, with a number where several have the same."""
        counts: dict[str, int] = {}
        names = {}
        for key, node in self.nodes.items():
            counts[node.name] = counts.get(node.name, 0) + 1
            alike = sum(other.name == node.name for other in self.nodes.values())
            names[key] = f"{node.name} ({counts[node.name]})" if alike > 1 else node.name
        return names


def diagram(trace: Trace, path: str = "") -> Diagram:
    """The diagram of the latest call of the module at `path`. Raises TraceError if there is nothing to draw."""
    drawable = {name for name, flow in trace.flows.items() if flow.edges}
    if path not in drawable:
        raise TraceError(f"the trace has no parts of {path!r} to draw; {suggest(path, drawable)}")
    flow = trace.flows[path]
    folds = _folds(trace, flow)
    drawn: dict[int, DrawnNode] = {}
    keys: dict[Node, int] = {}
    used = {node for edge in flow.edges for node in (edge.source, edge.target)} | {out.source for out in flow.outputs}
    for node in flow.nodes:
        if node not in used:
            continue
        same = folds.get(node)
        keys[node] = keys[same[0]] if same and same[0] in keys else len(drawn)
        drawn[keys[node]] = _drawn_node(trace, path, node, same)
    distinct = {(keys[edge.source], keys[edge.target], _label(edge)): edge for edge in flow.edges}
    edges = [(source, target, edge) for (source, target, _), edge in distinct.items() if source != target]
    for out in flow.outputs:
        key = len(drawn)
        drawn[key] = DrawnNode("output", f"return{out.name}")
        edges.append((keys[out.source], key, Edge(out.source, out.source, out.shape, out.axes)))
    module = trace.model.get_submodule(path)
    return Diagram(f"{path or 'model'} · {type(module).__name__}", drawn, tuple(edges))


def _folds(trace: Trace, flow: Flow) -> dict[Node, list[Node]]:
    """Each inner node of a long row of equal modules, with all these inner nodes: they are drawn as one."""

    def alike(node: Node) -> tuple:
        stem, number = re.fullmatch(r"(.*?)(\.\d+)?", node.name).groups()
        inputs = tuple((edge.shape, edge.axes) for edge in flow.edges if edge.target is node)
        return (node.kind == "module" and bool(number), stem, node.title, _parameters(trace, node), inputs)

    found = {}
    for key, group in groupby(flow.nodes, key=alike):
        row = list(group)
        if key[0] and len(row) > MOST_ALIKE:
            found |= dict.fromkeys(row[1:-1], row[1:-1])
    return found


def _parameters(trace: Trace, node: Node) -> int:
    return sum(p.numel() for p in trace.model.get_submodule(node.name).parameters()) if node.kind == "module" else 0


def _drawn_node(trace: Trace, path: str, node: Node, same: list[Node] | None) -> DrawnNode:
    """same: the modules that are drawn as one with this node."""
    if node.kind != "module":
        return DrawnNode(node.kind, node.name)
    count = _parameters(trace, node)
    about = node.title + (f" · {count:,} parameters" if count else "")
    first, *_, last = [other.name.removeprefix(f"{path}.") for other in same or (node, node)]
    if same:
        return DrawnNode("module", f"{first} … {last}", f"{len(same)} alike, each {about}")
    return DrawnNode("module", first, about)


def _label(edge: Edge) -> str:
    return f"{edge.name.removeprefix('.')} {letters(edge.axes or (), edge.shape)}".strip()


def _route(route: list[Item], tops: list[float], source: DrawnNode, target: DrawnNode) -> str:
    """An edge from top to bottom: straight past boxes and beside labels, curved between them."""
    x, y = _port(route[0], source, route[1]), tops[route[0].layer] + (BOX + _height(source)) / 2
    path = [f"M{x:.1f} {y:.1f}"]
    for item in route[1:]:
        last = item is route[-1]
        label = item.layer % 2 == 1
        top = tops[item.layer] + (SPACE / 2 - 8 if label else 0)
        to = _port(item, target, route[-2]) if last else item.x
        middle = (y + top) / 2
        path.append(f"C{x:.1f} {middle:.1f} {to:.1f} {middle:.1f} {to:.1f} {top:.1f}")
        rest = (BOX - _height(target)) / 2 if last else 16 if label else BOX
        x, y = to, top + rest
        path.append(f"V{y:.1f}" if rest else "")
    head = f'<path d="M{x - 4:.1f} {y - 7:.1f}L{x:.1f} {y:.1f}L{x + 4:.1f} {y - 7:.1f}z" stroke="none"/>'
    return f'<path d="{"".join(path)}" fill="none" stroke="currentColor" stroke-opacity=".6"/>{head}'


def _port(box: Item, node: DrawnNode, towards: Item) -> float:
    """Where an edge meets a box: the point nearest to where the edge comes from."""
    reach = max(0.0, node.width / 2 - 14)
    return min(max(towards.x, box.x - reach), box.x + reach)


def _text(item: Item, tops: list[float], edge: Edge) -> str:
    """An edge's label: the name, and each axis on its colour."""
    pieces = axis_texts(edge.axes or (), edge.shape)
    name = edge.name.removeprefix(".")
    start, y = item.x + 6, tops[item.layer] + SPACE / 2 + 4
    at, marks = start + CHARACTER * (len(name) + bool(name)), ""
    for text, letter in pieces:
        width = len(text) * CHARACTER
        if letter:
            fill = axis_colour(letter)
            marks += f'<rect x="{at:.1f}" y="{y - 10.5:.1f}" width="{width:.1f}" height="14" rx="3" fill="{fill}"/>'
        at += width
    words = f'<tspan font-weight="bold">{escape(name)}</tspan> ' if name else ""
    words += escape("".join(text for text, _ in pieces))
    return f'{marks}<text x="{start:.1f}" y="{y:.1f}" textLength="{at - start:.1f}">{words}</text>'


def _height(node: DrawnNode) -> int:
    return BOX if node.kind == "module" else 28


def _box(item: Item, tops: list[float], node: DrawnNode) -> str:
    height = _height(node)
    y = tops[item.layer] + (BOX - height) / 2
    shape = (
        f'<rect x="{item.x - item.left:.1f}" y="{y:.1f}" width="{node.width:.1f}" height="{height}" '
        f'rx="{6 if node.kind == "module" else 14}" fill="{translucent(FILLS[node.kind], 0.22)}" stroke="currentColor" '
        'stroke-opacity=".7"/>'
    )
    middle = y + height / 2
    name = f'<text x="{item.x:.1f}" y="{middle - 3 if node.about else middle + 4:.1f}" text-anchor="middle" '
    name += f'font-size="12" font-weight="bold">{escape(node.name)}</text>'
    about = f'<text x="{item.x:.1f}" y="{middle + 12:.1f}" text-anchor="middle">{escape(node.about)}</text>'
    return shape + name + (about if node.about else "")
