"""The multi-layer perceptron of a block: what each position computes on its own."""

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from config import MLPConfig, ModelConfig
from modules.initialise import initialise_writer
from modules.linear import Linear
from modules.logging_module import LoggingModule
from settings.registry import built_in, part


@built_in("activation", "relu2")
def squared_relu(x: Tensor) -> Tensor:
    """max(x, 0)² (So et al. 2021, arXiv 2109.08668)."""
    return F.relu(x).square()  # (B, T, F)


@built_in("activation", "gelu_tanh")
def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its tanh formula, as GPT-2 computes it (Hendrycks & Gimpel 2016, arXiv 1606.08415)."""
    return F.gelu(x, approximate="tanh")  # (B, T, F)


built_in("activation", "relu")(F.relu)
built_in("activation", "gelu")(F.gelu)
built_in("activation", "silu")(F.silu)
built_in("activation", "mish")(F.mish)


def build_activation(name: str, hidden: int) -> Callable[[Tensor], Tensor]:
    """The activation of that name: a function, or a module that is made for `hidden` units."""
    found = part("activation", name)
    return found(hidden) if isinstance(found, type) else found


class BaseMLP(LoggingModule):
    """What both MLPs share: an activation of F hidden units, and the projection `down` into the residual stream."""

    activation: Callable[[Tensor], Tensor]
    down: Linear

    @property
    def entrance(self) -> nn.Module:
        """The linear map whose output goes into the activation."""
        raise NotImplementedError

    def before_activation(self, projected: Tensor) -> Tensor:
        """The activation's input, from what `entrance` puts out: (B, T, F)."""
        raise NotImplementedError

    def initialise(self, config: ModelConfig) -> None:
        initialise_writer(self.down, config)


class MLP(BaseMLP):
    """y = down(activation(up(x))): (B, T, C) -> (B, T, F) -> (B, T, C)."""

    def __init__(self, width: int, hidden: int, activation: str, bias: bool):
        super().__init__()
        self.activation = build_activation(activation, hidden)
        self.up = Linear(width, hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.activation(self.up(x))  # (B, T, F)
        return self.down(hidden)  # (B, T, C)

    @property
    def entrance(self) -> Linear:
        return self.up

    def before_activation(self, projected: Tensor) -> Tensor:
        return projected  # (B, T, F)


class GatedMLP(BaseMLP):
    """y = down(activation(gate(x)) · up(x)): SwiGLU, GeGLU, ReGLU by its activation (Shazeer 2020, arXiv 2002.05202).

    The gate and up projections are one matrix, gate first, so that x is read once.
    """

    def __init__(self, width: int, hidden: int, activation: str, bias: bool):
        super().__init__()
        self.activation = build_activation(activation, hidden)
        self.gate_up = Linear(width, 2 * hidden, bias=bias)
        self.down = Linear(hidden, width, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)  # (B, T, F)
        hidden = self.activation(gate) * up  # (B, T, F)
        return self.down(hidden)  # (B, T, C)

    @property
    def entrance(self) -> Linear:
        return self.gate_up

    def before_activation(self, projected: Tensor) -> Tensor:
        return projected.chunk(2, dim=-1)[0]  # (B, T, F)


def build_mlp(config: MLPConfig, width: int, bias: bool) -> MLP | GatedMLP:
    kind = GatedMLP if config.gated else MLP
    return kind(width, config.hidden(width), config.activation, bias)
