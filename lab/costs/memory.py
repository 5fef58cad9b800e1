"""The bytes of tensors at the fullest moment of a training step, and of decoding. Imports no torch by itself."""

from dataclasses import dataclass, replace

from config import ModelConfig, TrainConfig
from lab.costs.layers import count_by_layers
from lab.files.remembered import remembered
from settings.errors import ConfigError

PARTS = ("weights", "gathered", "optimizer", "gradients", "activations", "cache", "temporary")


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes alive at the fullest moment, and which that is. activations: all that is kept for the backward pass.
    gathered: of a sharded training, what a rank holds for a moment of the other ranks' parameters and gradients."""

    moment: str
    weights: int
    gathered: int = 0
    optimizer: int = 0
    gradients: int = 0
    activations: int = 0
    cache: int = 0
    temporary: int = 0

    def parts(self) -> dict[str, int]:
        return {name: getattr(self, name) for name in PARTS if getattr(self, name)}

    @property
    def total(self) -> int:
        return sum(self.parts().values())

    @classmethod
    def at_fullest(cls, moments: dict[str, dict[str, int]]) -> "Memory":
        """Of bytes by moment and kind, those of the moment when they are most."""
        return max((cls(moment=moment, **kinds) for moment, kinds in moments.items()), key=lambda memory: memory.total)


@remembered
def step_bytes(config: ModelConfig, train: TrainConfig, precision: str, kernels: str) -> dict[str, dict[str, int]]:
    """By moment and kind. kernels: those of the device "cpu" or "cuda", which keep other tensors, or "near-cuda", which
    any PyTorch can count: those of a CPU, but for attention, where PyTorch's own keeps what a GPU's does."""
    from lab.costs.passes import run_step

    if kernels not in ("cpu", "cuda", "near-cuda"):
        raise ConfigError(f"memory is measured for device 'cpu' or 'cuda', not {kernels!r}; choose one of these")
    return count_by_layers(config, lambda shorter: run_step(shorter, train, precision, kernels).by_moment())


@remembered
def decoding_bytes(config: ModelConfig, batch: int, length: int) -> dict[str, dict[str, int]]:
    from lab.costs.passes import run_decoding

    return run_decoding(config, batch, length).by_moment()


def training_memory(model: ModelConfig, train: TrainConfig, precision: str, device: str = "cpu") -> Memory:
    """The fullest moment of a training step in "fp32" or under "bf16" autocast, once the optimizer has its state.

    device: "cpu" or "cuda", whose kernels keep other tensors. For "cuda" PyTorch must be built with CUDA; a GPU need
    not be there. Raises ConfigError where it is not, IdeaError for a part that can't run without numbers.
    """
    return Memory.at_fullest(step_bytes(model, train, precision, device))


def decoding_memory(model: ModelConfig, batch: int = 1, length: int | None = None, bytes_per_value: int = 4) -> Memory:
    """What generating token by token takes with a cache of `length` tokens (None: all positions) for each sequence.

    A prompt's own pass comes on top: its logits alone are prompt length · vocab_size values for each sequence.
    Raises ConfigError where batch, length or bytes_per_value is out of range.
    """
    length = model.position_limit if length is None else length
    if batch < 1 or bytes_per_value < 1:
        raise ConfigError(f"batch and bytes_per_value must be 1 or more, not {batch} and {bytes_per_value}")
    if not 1 <= length <= model.position_limit:
        raise ConfigError(
            f"length must be from 1 to the {model.position_limit} positions this model accepts, not {length}; "
            "raise max_positions, or context_length for learned positions"
        )
    fullest = Memory.at_fullest(decoding_bytes(model, batch, length))  # in float32
    return replace(fullest, **{name: size * bytes_per_value // 4 for name, size in fullest.parts().items()})
