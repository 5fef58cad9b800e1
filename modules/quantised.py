"""Weight-only quantisation: the weights of linear layers are stored as whole numbers, of 8 or of 4 bits.

    8 bits   W[o, i] ≈ scale[o] · code[o, i]                    codes from −127 to 127
    4 bits   W[o, i] ≈ scale[o, n] · code[o, i] + offset[o, n]  codes from 0 to 15; input i is in group n

Inputs and outputs of a layer stay floating-point numbers, and so does its bias.
"""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from modules.factored import DenseMixing
from modules.heads import LinearHead
from modules.kernels import int8_linear, runs_int8_kernel
from modules.linear import Linear
from modules.logging_module import LoggingModule
from settings.adapting import QuantisedConfig
from settings.errors import ConfigError
from settings.patterns import matching

LARGEST = 127  # code of 8 bits; −128 is left out, so that codes are as many below 0 as above
LEVELS = 15  # the largest code of 4 bits
SHARES = 1.0, 0.85, 0.7  # of a group's smallest and of its largest weight, at which the search begins
FITS = 4  # of the codes from each beginning; more hardly lower the error


class Int8Matrix(LoggingModule):
    """A matrix (O, I) as codes of 8 bits with one scale for each row, the row's largest |weight| / 127.

    Rounding to the nearest code moves a weight by scale/2 at most.
    """

    def __init__(self, weight: Tensor, config: QuantisedConfig, search: bool):
        super().__init__()
        scale = positive(weight.abs().amax(dim=1) / LARGEST)
        self.register_buffer("codes", (weight / scale[:, None]).round().to(torch.int8))  # (O, I)
        self.register_buffer("scale", scale)  # (O)

    def dequantise(self) -> Tensor:
        return self.codes.to(self.scale.dtype) * self.scale[:, None]  # (O, I)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, I) times the matrix: (…, O)."""
        return int8_linear(x, self.codes, self.scale)  # (…, O)

    @torch.no_grad()
    def kernel(self, dtype: torch.dtype) -> str:
        """What computes `forward` without gradients for inputs of this type, in words."""
        row = self.scale.new_empty(self.codes.shape[1], dtype=dtype)  # (I)
        first = "torch._weight_int8pack_mm" if runs_int8_kernel(row, len(self.codes)) else "a product with the codes"
        return f"{first}, then the scales"


class Int4Matrix(LoggingModule):
    """A matrix (O, I) as codes of 4 bits, with a scale and an offset in bfloat16 for each group of inputs of a row.

    A byte holds two neighbouring codes of a row, the first in its lower half. The last group of a row may be smaller
    than the others; while it is computed with, it is filled up.
    """

    axis_letters = {"M": "inputs of a group"}

    def __init__(self, weight: Tensor, config: QuantisedConfig, search: bool):
        super().__init__()
        self.in_features, self.group = weight.shape[1], config.group_size
        last = weight[:, -1:].expand(-1, -self.in_features % self.group)  # copies of it widen no range
        groups = torch.cat([weight, last], dim=1).unflatten(1, (-1, self.group))
        codes, scale, offset = fit_groups(groups, search)
        self.register_buffer("codes", pack(codes.flatten(1)[:, : self.in_features].to(torch.uint8)))
        self.register_buffer("scale", scale.to(torch.bfloat16))  # (O, N, 1)
        self.register_buffer("offset", offset.to(torch.bfloat16))  # (O, N, 1)

    def dequantise(self) -> Tensor:
        dtype = torch.promote_types(self.scale.dtype, torch.float32)
        codes = unpack(self.codes)  # (O, P)
        codes = F.pad(codes, (0, -codes.shape[1] % self.group)).unflatten(1, (-1, self.group))  # (O, N, M)
        groups = codes.to(dtype) * self.scale.to(dtype) + self.offset.to(dtype)  # (O, N, M)
        return groups.flatten(1)[:, : self.in_features]  # (O, I)

    def forward(self, x: Tensor) -> Tensor:
        """x (…, I) times the matrix: (…, O)."""
        return F.linear(x, self.dequantise().to(x.dtype))  # (…, O)

    def kernel(self, dtype: torch.dtype) -> str:
        """What computes `forward` for inputs of any type, in words."""
        return "the weights in floating-point numbers, then a product"


def positive(scale: Tensor) -> Tensor:
    """The scale, and 1 where it is 0 or no number: there all weights are equal."""
    return torch.where(scale > 0, scale, 1.0)


def pack(codes: Tensor) -> Tensor:
    """Codes (O, I) from 0 to 15, two in a byte, with a last half of 0 where I is odd."""
    codes = F.pad(codes, (0, codes.shape[1] % 2))
    return codes[:, 0::2] | codes[:, 1::2] << 4


def unpack(packed: Tensor) -> Tensor:
    """The inverse of `pack`, but for the last code of an odd row."""
    return torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)  # (O, P)


def fit_groups(groups: Tensor, search: bool) -> list[Tensor]:
    """Codes (O, N, M), scales and offsets (O, N, 1) for groups of weights (O, N, M).

    The codes are spread evenly from each group's smallest to its largest weight. search: also over parts of that range,
    and each time least squares fit scale and offset to the codes, weights get the codes that are nearest then, and so
    on; each group takes what has the smallest squared error.
    """
    low, high = groups.amin(dim=-1, keepdim=True), groups.amax(dim=-1, keepdim=True)
    best = nearest(groups, (high - low) / LEVELS, low)
    if not search:
        return best[:3]
    for least, most in product(SHARES, SHARES):
        scale, offset = (most * high - least * low) / LEVELS, least * low
        for _ in range(FITS):
            found = nearest(groups, scale, offset)
            best = [torch.where(found[3] < best[3], new, old) for new, old in zip(found, best)]
            codes = found[0]
            centred = codes - codes.mean(dim=-1, keepdim=True)
            scale = (centred * groups).sum(dim=-1, keepdim=True) / centred.square().sum(dim=-1, keepdim=True)
            offset = groups.mean(dim=-1, keepdim=True) - scale * codes.mean(dim=-1, keepdim=True)
    return best[:3]


def nearest(groups: Tensor, scale: Tensor, offset: Tensor) -> list[Tensor]:
    """The nearest codes under a scale and an offset, these in the precision that is stored, and the squared error."""
    scale, offset = positive(scale.to(torch.bfloat16).to(groups)), offset.to(torch.bfloat16).to(groups)
    codes = ((groups - offset) / scale).round().clamp(0, LEVELS)
    error = (codes * scale + offset - groups).square().sum(dim=-1, keepdim=True)
    return [codes, scale, offset, error]


class QuantisedLinear(Linear):
    """y = x·Ŵᵀ + b, where Ŵ is `matrix`. `weight` is Ŵ in floating-point numbers, computed each time it is read."""

    def __init__(self, base: Linear, config: QuantisedConfig, search: bool):
        nn.Module.__init__(self)
        self.in_features, self.out_features, self.bias = base.in_features, base.out_features, base.bias
        self.matrix = (Int8Matrix if config.bits == 8 else Int4Matrix)(base.weight.detach(), config, search)

    @property
    def weight(self) -> Tensor:
        return self.matrix.dequantise()  # (O, I)

    def forward(self, x: Tensor) -> Tensor:
        y = self.matrix(x)  # (…, O)
        return y if self.bias is None else y + self.bias.to(y.dtype)  # (…, O)


class QuantisedMixing(QuantisedLinear, DenseMixing):
    """The same for a dense mixing of heads."""

    def __init__(self, base: DenseMixing, config: QuantisedConfig, search: bool):
        super().__init__(base, config, search)
        self.n_heads, self.head_dim = base.n_heads, base.head_dim


class QuantisedHead(QuantisedLinear, LinearHead):
    """The same for a head whose weights are not the embedding's."""

    project = QuantisedLinear.forward

    def __init__(self, base: LinearHead, config: QuantisedConfig, search: bool):
        super().__init__(base, config, search)
        self.cap = base.cap

    def forward(self, hidden: Tensor) -> Tensor:
        return LinearHead.forward(self, hidden)  # (…, V)


KINDS = {Linear: QuantisedLinear, DenseMixing: QuantisedMixing, LinearHead: QuantisedHead}


def quantisable_layers(model: nn.Module) -> dict[str, Linear]:
    """The layers that can be quantised, by name. A head that is the embedding can't."""
    return {
        name: module
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module) in KINDS and module.weight is not model.embedding.weight
    }


def replace_layers(model: nn.Module, config: QuantisedConfig, search: bool = False) -> None:
    """Puts quantised layers in the place of those that `config` names. Raises ConfigError where a pattern matches none.

    A layer that several blocks share stays one. search: for the codes of 4 bits with the smallest error, which takes
    longer; a model that has not been trained needs none.
    """
    layers, made = quantisable_layers(model), {}
    for name in matching("quantised.layers", list(layers), config.layers):
        base = layers[name]
        if base not in made:
            made[base] = KINDS[type(base)](base, config, search)
        model.set_submodule(name, made[base])


def quantise(model: nn.Module, config: QuantisedConfig) -> None:
    """Quantises the layers of a Transformer that `config` names, from now on.

    Raises ConfigError for a model that is quantised or has an adapter on it, and where a pattern matches no layer.
    """
    if model.config.quantised:
        raise ConfigError(f"this model is quantised already, to {model.config.quantised.bits} bits; quantise the first")
    if model.config.lora:
        raise ConfigError("this model has an adapter on it; merge it first: Adapter.of(model).merge()")
    replace_layers(model, config, search=True)
    model.config = model.config.replace(quantised=config)


def kernels_used(model: nn.Module, dtype: torch.dtype) -> list[str]:
    """What computes the quantised layers of a model without gradients for inputs of this type, in words."""
    found = {}
    for layer in model.modules():
        if isinstance(layer, QuantisedLinear):
            found[layer.matrix.kernel(dtype)] = None
    return list(found)
