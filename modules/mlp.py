"""The multi-layer perceptron of a block: what each position computes on its own."""

from torch import Tensor
from torch.nn import functional as F

from config import MLPConfig
from modules.linear import Linear
from modules.logging_module import LoggingModule


def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)² (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(x).square()  # (B, T, F)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh formula, as GPT-2 computes it (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")  # (B, T, F)


ACTIVATIONS = {
    "relu": F.relu,
    "relu2": squared_relu,
    "gelu": F.gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
    "mish": F.mish,
}


class MLP(LoggingModule):
    """y = down(activation(up(x))): (B, T, C) -> (B, T, F) -> (B, T, C)."""

    def __init__(self, width: int, hidden: int, activation: str, bias: bool):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.up(x))  # (B, T, F)
        return self.down(hidden)  # (B, T, C)


class GatedMLP(LoggingModule):
    """y = down(activation(gate(x)) · up(x)): SwiGLU, GeGLU, ReGLU by its activation (Shazeer 2020, arXiv 2002.05202).

    The gate and up projections are one matrix, gate first, so that x is read once.
    """

    def __init__(self, width: int, hidden: int, activation: str, bias: bool):
        super().__init__()
        self.activation = ACTIVATIONS[activation]
        self.gate_up = Linear(width, 2 * hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)  # (B, T, F)
        hidden = self.activation(gate) * up  # (B, T, F)
        return self.down(hidden)  # (B, T, C)


def build_mlp(config: MLPConfig, width: int, bias: bool) -> MLP | GatedMLP:
    kind = GatedMLP if config.gated else MLP
    return kind(width, config.hidden(width), config.activation, bias)
