"""Who computed from whom, inside one module: calls of its parts and the operations that join them."""

from dataclasses import dataclass, field

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from modules.tracing.axes import Axes

JOINING = {
    "add": "+", "add_": "+", "__add__": "+", "__radd__": "+", "__iadd__": "+", "sub": "−", "mul": "×", "mul_": "×",
    "__mul__": "×", "__rmul__": "×", "matmul": "@", "bmm": "@", "addcmul": "turn", "cat": "join", "where": "where",
    "scaled_dot_product_attention": "attention",
}  # fmt: skip
SHAPING = {"softmax", "relu", "gelu", "silu", "mish", "square"}


@dataclass(eq=False)
class Node:
    """kind: "input", "module" or "operation"; name: the argument's, the module's path, or the operation's sign."""

    kind: str
    name: str
    title: str = ""


@dataclass(eq=False)
class Edge:
    source: Node
    target: Node
    shape: tuple[int, ...]
    axes: Axes | None


@dataclass(eq=False)
class Flow:
    """The graph of one module's latest call: nodes in the order in which they ran, edges with what runs along them."""

    path: str
    nodes: list[Node] = field(default_factory=list)
    edges: list[Edge] = field(default_factory=list)
    outputs: list[tuple[Node, Axes | None, tuple[int, ...]]] = field(default_factory=list)
    origins: WeakTensorKeyDictionary = field(default_factory=WeakTensorKeyDictionary, repr=False)

    def enter(self, name: str, tensor: Tensor) -> None:
        """An argument that the module was called with."""
        if tensor not in self.origins:
            self._made(Node("input", name), [tensor])

    def call(self, path: str, title: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """A part was called; one that hands its input on is no node."""
        if any(out is not x for out in outputs for x in inputs):
            self._joined(Node("module", path, title), inputs, outputs)

    def operate(self, operation: str, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """An operation ran between the parts: a node where it joins two values or bends one, else it passes on."""
        known = [x for x in inputs if x in self.origins]
        sources = {id(self.origins[x][0]) for x in known}
        joins = operation in JOINING and (len(known) > 1 or len(sources) > 1)
        if joins or (known and operation in SHAPING):
            self._joined(Node("operation", JOINING.get(operation, operation)), known, outputs)
        elif known:
            for out in outputs:
                self.origins[out] = (self.origins[known[0]][0], None)

    def name(self, tensor: Tensor, axes: Axes | None) -> None:
        """A statement has given a value its axes."""
        if axes and tensor in self.origins:
            self.origins[tensor] = (self.origins[tensor][0], axes)

    def leave(self, tensors: list[Tensor]) -> None:
        """What the module returned."""
        self.outputs = [self.origins[x] + (tuple(x.shape),) for x in tensors if x in self.origins]

    def _joined(self, node: Node, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        for x in inputs:
            if x in self.origins:
                source, axes = self.origins[x]
                if not any(edge.source is source and edge.target is node for edge in self.edges):
                    self.edges.append(Edge(source, node, tuple(x.shape), axes))
        self._made(node, outputs)

    def _made(self, node: Node, outputs: list[Tensor]) -> None:
        self.nodes.append(node)
        for out in outputs:
            self.origins[out] = (node, None)
