"""What a batch costs beside the step it feeds: 64 × 128 tokens of tales for llama-tiny."""

from statistics import median

import torch

from bench.timing import alternate, table
from bench.training import our_stepper
from config import preset
from lab.compute.training_state import TrainingState
from lab.data.packing import prepare


def main(rounds: int = 20) -> None:
    model_config, config = preset("llama-tiny")
    data, counter = prepare(config.data), iter(range(10**6))
    state = TrainingState.start(model_config, config.replace(precision="bf16", device="cpu"), data)

    def batch() -> torch.Tensor:
        return torch.from_numpy(data.train.batch(0, next(counter), config.batch_size, model_config.context_length))

    calls = {"batch": batch, "step": our_stepper(state)}
    seconds = {name: median(times) for name, times in alternate(calls, rounds).items()}
    share = seconds["batch"] / seconds["step"]
    print(table("Data", ["a batch, µs", "a step, ms", "share"],
                [[f"{seconds['batch'] * 1e6:.0f}", f"{seconds['step'] * 1e3:.0f}", f"{share:.2%}"]]))
