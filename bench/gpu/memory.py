"""The most memory that PyTorch allocates in training steps, against the estimate."""

import torch

from bench.gpu.scale import Scale
from bench.gpu.sections import Failure, attempt_apart
from bench.steps import Size, our_state, our_stepper
from bench.timing import table
from lab.costs.memory import training_memory


def measured_and_estimated(size: Size, device: str) -> tuple[float, float]:
    """GB at most, not compiled, in bf16. On a CPU nothing is measured, so that the first is 0."""
    state = our_state(size.model("gpt2"), size.batch, precision="bf16", compile="off", device=device)
    step = our_stepper(state)
    for _ in range(3):
        step()
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
    return peak / 1e9, training_memory(state.model.config, state.config, "bf16", device).total / 1e9


def main(scale: Scale) -> list[Failure]:
    """Prints the table."""
    rows, failures = [], []
    for label, size in scale.sizes.items():
        found = attempt_apart(measured_and_estimated, size, scale.device)
        if isinstance(found, Failure):
            failures.append(found)
            rows.append([label, found.why, "", ""])
            continue
        rows.append([label, *(f"{size:.2f}" for size in found), f"{found[0] / found[1]:.2f}"])
    headings = ["gpt2, bf16, not compiled", "allocated at most, GB", "estimate, GB", "ratio"]
    print(table("Memory of a training step", headings, rows), flush=True)
    return failures
