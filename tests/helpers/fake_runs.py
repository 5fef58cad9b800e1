"""A run that only counts its steps, for what watches a training."""

import types
from dataclasses import dataclass

import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Step:
    step: int
    tokens: int = 0
    seconds: float = 0.0
    loss: float = 2.5
    learning_rate: float = 1e-3
    gradient_norm: float = 1.0
    tokens_per_second: float = 1234.5
    memory: int = 2_000_000_000
    validation_loss: float | None = None
    sample: str | None = None
    mfu: float | None = None


class FakeRun:
    """A run of 100 steps of 5 seconds each on the fake clock; `events` is what happened to it, in order."""

    name, remark, listener = "mine", "", None
    train_config = types.SimpleNamespace(steps=100)

    def __init__(self, clock=None):
        self.clock, self.records, self.events = clock, [], []

    def steps_done(self) -> int:
        return self.records[-1].step if self.records else 0

    def status(self) -> str:
        return "new"

    def log(self) -> pd.DataFrame:
        return pd.DataFrame([vars(record) for record in self.records])

    def train(self, first: int = 1, last: int = 100):
        try:
            for step in range(first, last + 1):
                if self.clock:
                    self.clock.now += 5
                self.records.append(
                    Step(
                        step=step, tokens=step * 64, seconds=step * 5.0,
                        validation_loss=3.25 if step % 10 == 0 else None,
                        sample="Mia <3\nthe boat" if step == 20 else None,
                    )
                )
                yield self.records[-1]
        finally:
            self.events.append("kept")
