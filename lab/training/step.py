"""The record of one optimizer step."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Step:
    """The record of one optimizer step.

    step counts from 1. loss is the mean next-token loss of the batch in nats per token, before the update.
    gradient_norm is the norm before clipping. seconds is the training time so far, memory is in bytes. validation_loss
    and sample are set on the steps that made them. others holds the further losses of architectures that have any.
    shares: of each source of a mixture in the batch, by "share of ...".
    note says how the training computes, on the first step that a call of `train` takes.
    mfu: the share of the card's peak that it used (lab/costs/hardware.py); None on a device whose peak is not known.
    """

    step: int
    tokens: int
    seconds: float
    loss: float
    learning_rate: float
    gradient_norm: float
    tokens_per_second: float
    memory: int
    validation_loss: float | None = None
    sample: str | None = None
    others: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    note: str | None = None
    mfu: float | None = None
