"""The share of a known card's peak, in the steps of a training and on its card."""

import pytest

from lab.costs.estimates import estimate
from lab.data.packing import prepare
from lab.training import storing
from lab.training.loop import train
from tests.helpers.small_trainings import MODEL, TRAIN, new_run


def test_a_known_cards_share_is_in_the_steps_and_on_the_card(tmp_path, monkeypatch):
    """The CPU under the name of a GPU: what is shown is the speed times the FLOPs of a token by the peak."""
    monkeypatch.setattr(storing, "device_name", lambda device: "NVIDIA L4")
    run, data = new_run(tmp_path, steps=4), prepare(TRAIN.data)
    steps = list(train(run, data))
    per_token = estimate(MODEL).training_flops / 30.3e12
    assert [step.mfu for step in steps] == pytest.approx([step.tokens_per_second * per_token for step in steps])
    median = run.log()["tokens_per_second"].median()
    shown = f"{median:,.0f} tokens/s (MFU {median * per_token:.0%}) |"
    assert shown in run.card_path.read_text(encoding="utf-8")
    monkeypatch.undo()
    other = new_run(tmp_path, "other", steps=4)
    assert [step.mfu for step in train(other, data)] == [None] * 4
    assert "MFU" not in other.card_path.read_text(encoding="utf-8")
