"""The draft of a run: another run whose model proposes tokens in speculative decoding."""

from typing import TYPE_CHECKING

from lab.runs.run import Run
from settings.errors import RunError

if TYPE_CHECKING:
    import torch

    from modules.transformer import Transformer


def load_draft(run: Run, draft: Run, device: "torch.device | str" = "cpu") -> "Transformer":
    """The model of `draft`, to propose tokens for that of `run`. Raises RunError where their tokenizers differ."""
    own, other = run.tokenizer, draft.tokenizer
    if own.fingerprint != other.fingerprint:
        raise RunError(
            f"{draft.name!r} can't draft for {run.name!r}: its tokenizer is {other.name} ({other.fingerprint}), not "
            f"{own.name} ({own.fingerprint}); give a run that was trained with the same tokenizer"
        )
    return draft.load_model(device)
