"""LoRA: a frozen linear map W gets a trained addition of low rank, α/r · B·A (Hu et al. 2021, arXiv 2106.09685).

A (`down`) has r rows, B (`up`) r columns. B starts at 0, so an adapted model starts as the base. The addition can be
merged into W, which then costs nothing more, and taken out again.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.dropout import Dropout
from modules.factored import MatrixMixing, Mixing
from modules.heads import Head, LinearHead
from modules.logging_module import LoggingModule
from modules.losses import soft_cap
from modules.quantised import QuantisedLinear
from settings.adapting import LoRAConfig
from settings.errors import ConfigError
from settings.patterns import matching


class LoRALayer(LoggingModule):
    """The base of the three kinds of adapted layers. base: the frozen layer, with a `weight` (…, O, I).

    down (…, R, I) starts as a linear layer does in PyTorch, up (…, O, R) at 0. The leading axes are those of `weight`.
    """

    axis_letters = {"R": "rank"}

    def __init__(self, base: nn.Module, config: LoRAConfig):
        nn.Module.__init__(self)  # a Head or a Mixing is made from other settings
        weight = base.weight.detach()
        *leading, outputs, inputs = weight.shape
        self.base = base.requires_grad_(False)
        self.scale, self.dropout = config.alpha / config.rank, Dropout(config.dropout)
        self.down = nn.Parameter(weight.new_empty(*leading, config.rank, inputs))
        self.up = nn.Parameter(weight.new_zeros(*leading, outputs, config.rank))
        nn.init.uniform_(self.down, -1 / math.sqrt(inputs), 1 / math.sqrt(inputs))

    def delta(self) -> Tensor:
        """What the adapter adds to the weight: α/r · B·A."""
        return self.scale * (self.up @ self.down)  # (…, O, I)

    @property
    def weight(self) -> Tensor:
        """The weight with what the adapter adds to it."""
        return self.base.weight + self.delta()  # (…, O, I)


class LoRALinear(LoRALayer):
    """y = base(x) + α/r · B·A·dropout(x): two thin products beside the frozen one.

        x ─┬─ base (frozen) ───────────────────── + ─ y
           └─ dropout ─ A (R, I) ─ B (O, R) ─ α/r ┘
    """

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.addition(x)  # (…, O)

    def addition(self, x: Tensor) -> Tensor:
        """What the adapter adds to the base's result."""
        low = F.linear(self.dropout(x), self.down)  # (…, R)
        return self.scale * F.linear(low, self.up)  # (…, O)

    @property
    def bias(self) -> Tensor | None:
        """The base's, which has no adapter."""
        return self.base.bias  # (O)


class LoRAHead(LoRALinear, Head):
    """The same for a linear head whose weights are not the embedding's. The cap, if there is one, comes last."""

    def __init__(self, base: LinearHead, config: LoRAConfig):
        super().__init__(base, config)
        self.cap = base.cap

    def forward(self, hidden: Tensor) -> Tensor:
        return soft_cap(self.base.project(hidden) + self.addition(hidden), self.cap)  # (…, V)

    def unembedding(self) -> Tensor:
        return self.weight  # (V, C)


class LoRAMixing(LoRALayer, Mixing):
    """The same for a mixing: what is added to its weight has the mixing's own form, so that it can be merged."""

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.base.mix(self.dropout(x), self.delta())  # (B, T, C)

    def heads_matrix(self) -> Tensor:
        return self.base.heads_matrix() + self.delta()  # (H, H)


def adapted(base: nn.Module, config: LoRAConfig) -> LoRALayer:
    """`base` with an adapter."""
    if isinstance(base, MatrixMixing):
        return LoRAMixing(base, config)
    return LoRAHead(base, config) if isinstance(base, Head) else LoRALinear(base, config)


def adaptable_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers that can have an adapter, by name: linear maps and mixings. A head that is the embedding can't, nor
    one that is more than a linear map and its cap."""
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if isinstance(module, nn.Linear | MatrixMixing) and module.weight is not model.embedding.weight
        and (not isinstance(module, Head) or isinstance(module, LinearHead))
    }


class Adapter:
    """The adapted layers of one model, by name. They are on the model, off it, or merged into its weights.

    Several adapters of the same model can take turns: `take_off()` one, `put_on()` another; no weight is read again.
    """

    def __init__(self, model: nn.Module, config: LoRAConfig, layers: dict[str, LoRALayer]):
        self.model, self.config, self.layers = model, config, layers

    @classmethod
    def attach(cls, model: nn.Module, config: LoRAConfig) -> "Adapter":
        """Puts a new adapter on the layers that `config` names, and freezes everything else.

        Raises ConfigError where a pattern matches no layer.
        """
        layers = adaptable_layers(model)
        chosen = matching("lora.layers", list(layers), config.layers)
        model.requires_grad_(False)
        made: dict[nn.Module, LoRALayer] = {}  # a layer that several blocks share stays one
        for name in chosen:
            if layers[name] not in made:
                made[layers[name]] = adapted(layers[name], config)
        adapter = cls(model, config, {name: made[layers[name]] for name in chosen})
        adapter.put_on()
        return adapter

    @classmethod
    def of(cls, model: nn.Module) -> "Adapter":
        """The adapter that is on the model. Raises ConfigError where there is none."""
        found = {
            name: module for name, module in model.named_modules(remove_duplicate=False)
            if isinstance(module, LoRALayer)
        }
        if not found:
            raise ConfigError("this model has no adapter on it; train one with `train --from RUN --lora.rank 8`")
        return cls(model, model.config.lora, found)

    def tensors(self) -> dict[str, Tensor]:
        """What the adapter learned, by name: A and B of each layer, of a layer with several names once."""
        names = {layer: name for name, layer in reversed(self.layers.items())}
        return {
            f"{name}.{part}": getattr(layer, part) for name, layer in self.layers.items() if names[layer] == name
            for part in ("down", "up")
        }

    def put_on(self) -> None:
        """From now on the model computes with this adapter. Raises ConfigError where another one is on it."""
        for name, layer in self.layers.items():
            if self.model.get_submodule(name) is not layer.base:
                raise ConfigError(f"{name} has an adapter on it, or is another layer; take the other adapter off first")
        for name, layer in self.layers.items():
            self.model.set_submodule(name, layer)
        self.model.config = self.model.config.replace(lora=self.config)

    def take_off(self) -> None:
        """From now on the model computes as its base does. Raises ConfigError where this adapter is not on it."""
        for name, layer in self.layers.items():
            if self.model.get_submodule(name) is not layer:
                raise ConfigError(f"this adapter is not on {name}; put it on first")
        for name, layer in self.layers.items():
            self.model.set_submodule(name, layer.base)
        self.model.config = self.model.config.replace(lora=None)

    def merge(self) -> None:
        """Adds the adapter to the base's weights and takes it off: the same numbers, but for rounding.

        Raises ConfigError for a quantised base, whose weights are too coarse to hold what is added.
        """
        self.check_mergeable()
        self.take_off()
        self.add_to_weights(1)

    def unmerge(self) -> None:
        """The inverse of `merge`: subtracts the adapter from the base's weights and puts it on. Raises ConfigError as
        `merge` does."""
        self.check_mergeable()
        self.put_on()
        self.add_to_weights(-1)

    def check_mergeable(self) -> None:
        quantised = [name for name, layer in self.layers.items() if isinstance(layer.base, QuantisedLinear)]
        if quantised:
            raise ConfigError(
                f"{quantised[0]} is quantised: its few bits can't hold what the adapter adds. Use base and adapter "
                "together, as they were trained; or train the adapter on the base that is not quantised, and merge that"
            )

    @torch.no_grad()
    def add_to_weights(self, sign: int) -> None:
        for layer in dict.fromkeys(self.layers.values()):
            layer.base.weight.add_(layer.delta(), alpha=sign)  # (…, O, I)
