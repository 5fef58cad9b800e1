"""What a training measures and stores beside its steps: validation losses, samples, the best weights, the card."""

from lab.compute.device import device_name
from lab.compute.sharding import whole
from lab.compute.training_state import TrainingState
from lab.costs.hardware import mfu_per_token
from lab.evaluation.evaluate import evaluate
from lab.generation.generate import generate_text
from lab.runs.checks import room_for_sample
from lab.runs.code_version import code_version
from lab.runs.run import Run
from lab.runs.weights import write_tensors
from lab.training.card import write_card
from lab.training.checkpoint import save_checkpoint
from lab.training.diagnosis import check_validation_loss
from lab.training.step import Step
from modules.transformer import Transformer


def evaluate_on_validation(run: Run, state: TrainingState) -> float:
    """Nats per token on the run's held-out tokens. Raises RunError if that is not finite. Every rank must call it."""
    run.tell("validating on held-out tokens")
    found = evaluate(state.model, state.data.validation, run.tokenizer, state.config.evaluation_tokens)
    state.let_go()
    check_validation_loss(run, state, found.loss)
    return found.loss


def sample_of(run: Run, state: TrainingState) -> str | None:
    """A sample, on the first rank; the others help where they have a part of each parameter."""
    if not state.sharded and not state.ranks.is_first:
        return None
    run.tell("writing a sample")
    text = sample_text(state.model, run, "eager" if state.sharded else "auto")  # no rank decides by itself to compile
    state.let_go()
    return text


def sample_text(model: Transformer, run: Run, decode: str = "auto") -> str:
    """A continuation of the run's prompt, always with the same seed, within the positions that the model accepts."""
    config = run.train_config
    n_tokens = min(config.sample_tokens, room_for_sample(run.model_config, config, run.tokenizer))
    settings = {"max_tokens": n_tokens, "seed": config.seed, "decode": decode}
    return generate_text(model, run.tokenizer, config.sample_prompt, **settings)


def store_if_best(run: Run, state: TrainingState, record: Step) -> None:
    """Stores the weights if the record's validation loss is the best so far.

    Call it on every rank, after the record's row is in the log, so that the log never ends before the weights.
    """
    loss, progress = record.validation_loss, state.progress
    if loss is not None and (progress.best_loss is None or loss < progress.best_loss):
        progress.best_loss = loss
        store_weights(run, state, {"step": record.step, "validation_loss": loss})


def store_run(run: Run, state: TrainingState) -> None:
    """Stores all that a training leaves when it ends or stops: checkpoint, weights if there are none yet, card.

    Every rank must call it. A process that is killed here can do it again. The card comes last, because it says at
    which step the rest is.
    """
    progress = state.progress
    run.tell("storing the run")
    save_checkpoint(run, state)
    if progress.step == 0:
        return
    never_validated = progress.best_loss is None
    if state.ranks.first(lambda: never_validated or not run.weights_path.exists()):
        loss = {} if never_validated else {"validation_loss": evaluate_on_validation(run, state)}
        store_weights(run, state, {"step": progress.step} | loss)
    sample = sample_of(run, state)
    if state.ranks.is_first:
        write_card(run, state.data, sample, progress.why, mfu_of(state))


def mfu_of(state: TrainingState) -> float | None:
    """The MFU per token and second of this training, on all its cards; None where it is not known."""
    of_one = mfu_per_token(state.model.config, state.config, device_name(state.device), state.precision)
    return of_one and of_one / state.ranks.size


def store_weights(run: Run, state: TrainingState, facts: dict) -> None:
    """Writes model.safetensors, or adapter.safetensors."""
    first = state.ranks.is_first
    tensors = {name: whole(tensor) for name, tensor in state.model.stored_tensors().items() if state.sharded or first}
    if first:
        write_tensors(run.weights_path, tensors, facts | {"code": code_version()})
