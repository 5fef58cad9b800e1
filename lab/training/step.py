"""What one optimizer step left behind."""

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one optimizer step left behind.

    step counts from 1; loss is the mean next-token loss of the batch in nats per token, before the update;
    gradient_norm is before clipping; seconds have been spent training so far, memory is in bytes. validation_loss and
    sample are there on the steps that made them; others are the further losses of architectures that have any.
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
