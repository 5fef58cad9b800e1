"""What `bench gpu` measures, rehearsed at tiny sizes on the CPU, in this process."""

import itertools

import pytest
import torch

from bench.gpu import alibi, decoding, memory, resume, training
from bench.gpu.run import main
from bench.gpu.scale import REHEARSAL
from bench.gpu.sections import Failure
from config import RoPEConfig
from lab.training import loop

SIZE = REHEARSAL.sizes["2 × 128"]


def test_without_a_card_it_says_so_and_ends_with_2(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert "needs a CUDA device" in capsys.readouterr().err


@pytest.mark.parametrize("name", [training.NANO, training.OURS, training.THEIRS])
def test_every_contestant_is_measured_at_all_sizes(seeded, name):
    found = training.measure(name, "gpt2", {"2 × 128": SIZE}, REHEARSAL)
    assert found["2 × 128"] > 0


def test_a_training_is_measured_from_within(seeded):
    assert training.within_training({"compile": "off"}, "llama", SIZE, REHEARSAL) > 0


def test_a_table_of_speeds_shows_ratios_and_failures(capsys):
    training.print_table("gpt2", SIZE, {"one": 2000.0, "two": 3000.0, "three": Failure("OutOfMemoryError: 80 GB")})
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "| one | 2,000 | — | 1.00 |", "| two | 3,000 | — | 1.50 |", "| three | OutOfMemoryError: 80 GB | — | — |",
    ]


def test_decoding_attention_and_memory_are_measured(seeded):
    assert min(decoding.speeds("eager", REHEARSAL).values()) > 0
    assert min(alibi.milliseconds(RoPEConfig(), REHEARSAL)) > 0
    assert memory.measured_and_estimated(SIZE, "cpu")[1] > 0


def test_a_resumed_run_is_held_against_an_uninterrupted_one(monkeypatch):
    assert resume.differing("llama", "cpu") == []
    rate, count = loop.learning_rate, itertools.count()
    monkeypatch.setattr(loop, "learning_rate", lambda step, config: rate(step, config) * (1 + 1e-3 * next(count)))
    assert "losses" in resume.differing("llama", "cpu")
