"""The learning rate against values worked out by hand from the formulas."""

import math
from itertools import pairwise

import pytest

from config import ScheduleConfig, TrainConfig
from lab.compute.schedule import learning_rate, learning_rates


def config(steps=110, **schedule) -> TrainConfig:
    return TrainConfig(steps=steps, learning_rate=2.0, schedule=ScheduleConfig(**schedule))


def test_warm_up_is_linear_and_reaches_the_peak():
    rates = learning_rates(config(warmup_steps=10))
    assert rates[:10] == pytest.approx([0.2 * (i + 1) for i in range(10)])
    assert rates[10] == max(rates) == 2.0


def test_cosine_passes_half_way_at_half_time():
    rates = learning_rates(config(warmup_steps=10, final_fraction=0.1))
    assert rates[60] == pytest.approx((2.0 + 0.2) / 2)
    assert rates[35] == pytest.approx(0.2 + 1.8 * (1 + math.cos(math.pi / 4)) / 2)


def test_linear_falls_by_equal_amounts():
    rates = learning_rates(config(warmup_steps=10, decay="linear", final_fraction=0.0))
    assert {round(a - b, 9) for a, b in pairwise(rates[10:])} == {0.02}


def test_flat_part_stays_at_the_final_rate():
    rates = learning_rates(config(warmup_steps=10, flat_steps=20, final_fraction=0.25))
    assert rates[90:] == pytest.approx([0.5] * 20)
    assert rates[89] > 0.5


def test_restarts_return_to_the_peak_and_grow():
    rates = learning_rates(config(steps=140, warmup_steps=0, cycles=3, cycle_growth=2.0))
    assert [step for step, rate in enumerate(rates) if rate == 2.0] == [0, 20, 60]  # 20 + 40 + 80 = 140


def test_no_warm_up_starts_at_the_peak():
    assert learning_rate(0, config(warmup_steps=0)) == 2.0
