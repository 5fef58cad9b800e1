"""The graph of a module's call: its parts, and the operations that join them."""

from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

from tracing.axes import Axes
from tracing.tensor_table import TensorTable

JOINING = {
    "add": "+", "add_": "+", "__add__": "+", "__radd__": "+", "__iadd__": "+", "sub": "−", "mul": "×", "mul_": "×",
    "__mul__": "×", "__rmul__": "×", "div": "÷", "__truediv__": "÷", "matmul": "@", "bmm": "@", "einsum": "einsum",
    "addcmul": "turn", "cat": "join", "where": "where", "scaled_dot_product_attention": "attention",
}
ACTIVATIONS = {"softmax", "relu", "gelu", "silu", "mish", "square"}


@dataclass(eq=False)
class Node:
    """kind: "input", "module" or "operation"; name: the argument's, the module's path, or the operation's sign."""

    kind: str
    name: str
    title: str = ""


@dataclass(eq=False)
class Edge:
    """name: the variable of the value, or its part of a module's result, as in ".xt"."""

    source: Node
    target: Node
    shape: tuple[int, ...]
    axes: Axes | None
    name: str = ""


class Origin(NamedTuple):
    """The node that made a tensor; its axes and its name, where they are known."""

    node: Node
    axes: Axes | None = None
    name: str = ""


class Output(NamedTuple):
    """A tensor that a module returned. name: its part of a tuple, "" for a single tensor."""

    source: Node
    axes: Axes | None
    shape: tuple[int, ...]
    name: str


Named = list[tuple[str, Tensor, Axes | None]]


@dataclass(eq=False)
class Flow:
    """The graph of a module's latest call: nodes in the order in which they ran, and the tensors between them."""

    path: str
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    origins: TensorTable[Origin] = field(default_factory=TensorTable, repr=False)

    def enter(self, name: str, tensor: Tensor, axes: Axes | None) -> None:
        """Adds an argument of the module."""
        if self.origins.get(tensor) is None:
            self._make(Node("input", name), [("", tensor, axes)])

    def call(self, path: str, title: str, inputs: list[Tensor], outputs: Named) -> None:
        """Adds the call of a part, unless the part returns its input unchanged."""
        if any(all(out is not x for x in inputs) for _, out, _ in outputs):
            self._join(Node("module", path, title), inputs, outputs)

    def operate(self, operation: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Follows an operation between the parts. It becomes a node if it joins two values or is an activation."""
        if operation == "__setitem__":  # a stored value can be read again, as from a cache
            inputs, outputs = inputs[-1:], inputs[:1]
        known = [origin for origin in map(self.origins.get, inputs) if origin]
        if known and (operation in ACTIVATIONS or (operation in JOINING and len(known) > 1)):
            self._join(Node("operation", JOINING.get(operation, operation)), inputs, [("", x, None) for x in outputs])
        elif known:
            for out in outputs:
                self.origins.set(out, Origin(known[0].node, None, known[0].name))

    def name(self, tensor: Tensor, axes: Axes | None, name: str) -> None:
        """Notes the name and axes that a statement gave a value."""
        origin = self.origins.get(tensor)
        if origin is None:
            return
        node, known, _ = origin
        self.origins.set(tensor, Origin(node, axes or known, name.removeprefix("return").strip()))
        for edge in self.edges:  # intermediate values of the same statement with the same shape
            if edge.target is node and edge.axes is None and edge.shape == tuple(tensor.shape):
                edge.axes = axes

    def leave(self, returned: list[tuple[str, Tensor]]) -> None:
        """Notes what the module returned."""
        known = [(name, x, self.origins.get(x)) for name, x in returned]
        self.outputs = [Output(origin.node, origin.axes, tuple(x.shape), name) for name, x, origin in known if origin]

    def _join(self, node: Node, inputs: list[Tensor], outputs: Named) -> None:
        """Adds a new node, and an edge to it from each different input."""
        alike = {}  # a sum has the axes of its terms until a comment names them
        joined = set()
        for x, origin in zip(inputs, map(self.origins.get, inputs)):
            if origin:
                source, axes, name = origin
                alike[x.shape] = axes or alike.get(x.shape)
                if (source, name) not in joined:
                    joined.add((source, name))
                    self.edges.append(Edge(source, node, tuple(x.shape), axes, name))
        self._make(node, [(name, x, axes or alike.get(x.shape)) for name, x, axes in outputs])

    def _make(self, node: Node, outputs: Named) -> None:
        self.nodes.append(node)
        for name, x, axes in outputs:
            self.origins.set(x, Origin(node, axes, name))
