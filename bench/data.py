"""What a batch costs beside the step it feeds: 64 × 128 tokens of tales for llama-tiny."""

from statistics import median

import torch

from bench.timing import alternate, table
from bench.training import stepper
from config import preset
from lab.compute.optimizer import build_optimizer
from lab.data.packing import prepare
from modules.transformer import Transformer


def main(rounds: int = 20) -> None:
    model_config, config = preset("llama-tiny")
    data, model, counter = prepare(config.data), Transformer(model_config), iter(range(10**6))

    def batch() -> torch.Tensor:
        return torch.from_numpy(data.train.batch(0, next(counter), config.batch_size, model_config.context_length))

    step = stepper(model, build_optimizer(model, config), lambda ids: model.losses(batch())["loss"], "bf16")
    seconds = {name: median(times) for name, times in alternate({"batch": batch, "step": step}, rounds).items()}
    share = seconds["batch"] / seconds["step"]
    print(table("Data", ["a batch, µs", "a step, ms", "share"],
                [[f"{seconds['batch'] * 1e6:.0f}", f"{seconds['step'] * 1e3:.0f}", f"{share:.2%}"]]))
