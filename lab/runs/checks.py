"""Checks before a run folder is made: whether its training can start."""

from typing import Protocol

import torch

from config import DistilConfig, ModelConfig, TrainConfig
from lab.compute.compiling import check_compiler
from lab.compute.device import check_precision, pick_device
from lab.compute.optimizer import matrices_of_muon
from lab.compute.ranks import current_ranks
from lab.costs.fitting import check_micro_batch
from lab.costs.parameters import stored_shapes
from lab.data.packing import TokenData
from lab.data.tokenizers import Tokenizer
from modules.distillation import Distillation
from modules.transformer import Transformer
from settings.errors import ConfigError

FOLLOWING = "vocab_size=None follows any tokenizer, and preset(NAME, tokenizer=NAME) gives a pair that fits"
PADDING = 128  # a vocabulary may be rounded up to a multiple of this, as some GPUs like it


class Teacher(Protocol):
    """What is checked of a run that teaches."""

    name: str
    model_config: ModelConfig
    tokenizer: Tokenizer


def check_trainable(
    model: ModelConfig, config: TrainConfig, data: TokenData, teacher: Teacher | None = None
) -> None:
    """Raises ConfigError if vocabulary, device, precision, compiler, optimizer, micro-batches, prompt or teacher can't
    be used, DataError for too little text. teacher: the run that the settings distil, if they do."""
    check_vocabulary(model, data.tokenizer)
    if model.quantised and not model.lora:
        raise ConfigError(
            "a quantised model can't be trained: its weights are whole numbers, without gradients. Train an adapter on "
            "it (train --from RUN --lora.rank 8), or train the model before it is quantised"
        )
    if model.lora:
        stored_shapes(model)  # raises ConfigError where its patterns match no layer
    if config.optimizer == "muon":
        with torch.device("meta"):
            matrices_of_muon(Transformer(model), config)
    if config.distil is not None:
        check_teacher(model, config.distil, data.tokenizer, teacher)
    device = check_device(config)
    if config.compile == "on":
        check_compiler(device)
    if room_for_sample(model, config, data.tokenizer) < 1:
        raise ConfigError(
            f"sample_prompt takes {len(data.tokenizer.encode(config.sample_prompt))} tokens, which leaves none of the "
            f"model's {model.position_limit} positions free; give a shorter prompt, or a model of more positions"
        )
    for side in (data.train, data.validation):
        side.n_windows(model.context_length)
    current_ranks().check(config, device)
    check_micro_batch(model, config, device)


def check_device(config: TrainConfig) -> torch.device:
    """The device to train on. Raises ConfigError if it is absent, or lacks the precision that is set."""
    device = pick_device(config.device)
    check_precision(config.precision, device)
    return device


def check_vocabulary(model: ModelConfig, tokenizer: Tokenizer) -> None:
    """Raises ConfigError if the model's vocabulary does not fit the tokenizer's."""
    needed = tokenizer.vocab_size
    if model.vocab_size < needed:
        raise ConfigError(
            f"vocab_size={model.vocab_size} is smaller than the {needed} tokens of {tokenizer.name!r}; set "
            f"vocab_size={needed} or choose a smaller tokenizer. {FOLLOWING}"
        )
    if model.vocab_size > -(-needed // PADDING) * PADDING:
        raise ConfigError(
            f"vocab_size={model.vocab_size} is larger than the {needed} tokens of {tokenizer.name!r}: "
            f"{model.vocab_size - needed} of them would never occur in the data. Set vocab_size={needed}; "
            f"rounding it up to a multiple of {PADDING} is allowed. {FOLLOWING}"
        )


def check_teacher(model: ModelConfig, distil: DistilConfig, tokenizer: Tokenizer, teacher: Teacher) -> None:
    """Raises ConfigError if the teacher reads other tokens than the model, or can't teach it."""
    if teacher.tokenizer.fingerprint != tokenizer.fingerprint:
        raise ConfigError(
            f"the teacher {teacher.name!r} reads the tokens of {teacher.tokenizer.name!r}, and the data is cut by "
            f"another tokenizer, {tokenizer.name!r}; train on the teacher's tokens, or choose another teacher"
        )
    with torch.device("meta"):
        Distillation(Transformer(model), Transformer(teacher.model_config), distil)


def room_for_sample(model: ModelConfig, config: TrainConfig, tokenizer: Tokenizer) -> int:
    """How many tokens fit behind the run's prompt in a sample."""
    return model.position_limit - len(tokenizer.encode(config.sample_prompt))
