"""micro_batch_size="auto": the most sequences that pass the model at once, by the estimate and by one trial."""

from itertools import islice

import torch

from lab.compute.choice import candidates
from lab.compute.device import autocast, is_out_of_memory, matmul_precision
from lab.compute.training_state import TrainingState
from lab.costs.fitting import divisors, largest_fitting
from lab.runs.run import Run


def settle_micro_batch(run: Run, state: TrainingState) -> bool:
    """Puts a number in the place of "auto" in state.config: the one that was found before a stop on the same kind of
    device, else one that is found now. Returns whether that is new."""
    progress, config = state.progress, state.config
    before = progress.micro_batch_size
    if config.micro_batch_size != "auto":
        progress.micro_batch_size = 0
        return before != 0
    same_device = progress.chosen_for.split()[-1:] == [state.device.type]
    kept = before if same_device and before % state.ranks.size == 0 else 0
    if not kept:
        run.tell("looking for the largest micro-batch that fits into memory")
    progress.micro_batch_size = kept or find_micro_batch(state)
    state.config = config.replace(micro_batch_size=progress.micro_batch_size)
    return not kept


def find_micro_batch(state: TrainingState) -> int:
    """The largest divisor of the batch size that fits by the estimate, and in which a step ran without running out of
    memory. One sequence is not tried: the training itself says what to do where not even that fits.

    The sequences of all ranks together: each takes an equal part. Of a model that is split over the ranks no rank can
    try a step alone: there the estimate decides.
    """
    most, ranks = largest_fitting(state.model.config, state.config, state.device) or 1, state.ranks.size
    for size in reversed(divisors(state.config.batch_size // ranks)):
        if size == 1 or (size <= most and (state.sharded or fits(state, size * ranks))):
            return size * ranks


def fits(state: TrainingState, size: int) -> bool:
    """Whether the first two micro-batches of the next step run, with room for the optimizer's two moments. Changes
    neither weights nor gradients nor random numbers."""
    config, learner = state.config, state.learner
    precision = candidates(state.device)[0] if config.precision == "auto" else config.precision
    trained = [] if state.optimizer.state else [p for p in learner.parameters() if p.requires_grad]
    try:
        moments = [torch.empty_like(parameter) for parameter in trained for _ in range(2)]
        state.config = config.replace(micro_batch_size=size)
        with state.seeded(), matmul_precision(state.device, precision):
            for windows in islice(state.batch(), 2):
                with autocast(state.device, precision):
                    objective = learner.objective(learner.losses(windows))
                objective.backward()
        objective.item()  # waits for the device
        del moments
        return True
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        state.config = config
        learner.zero_grad(set_to_none=True)
