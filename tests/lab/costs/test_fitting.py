"""How many sequences fit into memory at once, by the estimate, and what is said where they don't."""

import pytest
import torch

from config import ModelConfig, TrainConfig
from lab.compute import device as devices
from lab.compute.device import training_memory_limit
from lab.costs import fitting
from lab.costs.fitting import MARGIN, check_micro_batch, divisors, explain_out_of_memory, largest_fitting
from lab.costs.memory import training_memory
from settings.errors import ConfigError, RunError

MODEL = ModelConfig(vocab_size=300, context_length=16, n_layers=2, n_heads=2, width=32)
TRAIN = TrainConfig(batch_size=12, precision="fp32", device="cpu")
CPU = torch.device("cpu")


def bytes_at(size: int, precision: str = "fp32", **changes) -> int:
    return training_memory(MODEL, TRAIN.replace(micro_batch_size=size, **changes), precision).total


def limit(monkeypatch, size: int) -> None:
    monkeypatch.setattr(fitting, "training_memory_limit", lambda device: size)


def test_divisors():
    assert divisors(12) == [1, 2, 3, 4, 6, 12] and divisors(1) == [1] and divisors(7) == [1, 7]


@pytest.mark.parametrize("size, below", [(12, 6), (6, 4), (4, 3), (3, 2), (2, 1), (1, None)])
def test_the_largest_divisor_that_fits_with_its_margin_is_found(monkeypatch, size, below):
    """The estimate of each size alone is the independent source."""
    limit(monkeypatch, round(MARGIN["cpu"] * bytes_at(size)) + 1)
    assert largest_fitting(MODEL, TRAIN, CPU) == size
    limit(monkeypatch, round(MARGIN["cpu"] * bytes_at(size)) - 2)
    assert largest_fitting(MODEL, TRAIN, CPU) == below


def test_an_open_precision_counts_with_the_one_that_needs_most(monkeypatch):
    both = [bytes_at(6), bytes_at(6, "bf16")]
    assert both[0] != both[1]
    limit(monkeypatch, round(MARGIN["cpu"] * max(both)) - 2)
    assert largest_fitting(MODEL, TRAIN.replace(precision="auto"), CPU) < 6
    limit(monkeypatch, min(both))
    check_micro_batch(MODEL, TRAIN.replace(precision="auto", micro_batch_size=6), CPU)


@pytest.mark.parametrize("wanted, size, said", [
    (12, 12, r"micro_batch_size=12 can't fit into memory: by the estimate a step takes .* set micro_batch_size=[1-6]"),
    ("auto", 1, "even one sequence can't fit into memory: .*set gradient_checkpointing=True; or train a smaller model"),
])
def test_what_can_not_fit_is_refused(monkeypatch, wanted, size, said):
    limit(monkeypatch, bytes_at(size) - 1)
    config = TRAIN.replace(micro_batch_size=wanted)
    with pytest.raises(ConfigError, match=said):
        check_micro_batch(MODEL, config, CPU)
    limit(monkeypatch, bytes_at(size))
    check_micro_batch(MODEL, config, CPU)


def test_where_nothing_is_estimated_auto_is_refused_and_a_number_is_taken():
    mps = torch.device("mps")
    with pytest.raises(ConfigError, match="not for 'mps': set a divisor of batch_size=12"):
        check_micro_batch(MODEL, TRAIN.replace(micro_batch_size="auto"), mps)
    check_micro_batch(MODEL, TRAIN.replace(micro_batch_size=6), mps)
    check_micro_batch(MODEL, TRAIN, mps)


@pytest.mark.parametrize("fitting_size, said", [
    (3, r"set micro_batch_size=3 \(now 12 sequences pass the model at once; by the estimate 3 fit\); or set gradient"),
    (12, r"set micro_batch_size=6 \(now 12 .*by the estimate 6 fit"),
    (0, r"set micro_batch_size=1 \(now 12 .*by the estimate not even one fits\); or set gradient_checkpointing=True"),
])
def test_out_of_memory_names_the_micro_batch_that_fits(monkeypatch, fitting_size, said):
    limit(monkeypatch, round(MARGIN["cpu"] * bytes_at(fitting_size)) + 1 if fitting_size else 1)
    with pytest.raises(RunError, match=said), explain_out_of_memory(MODEL, TRAIN):
        raise torch.OutOfMemoryError("CUDA out of memory")


def test_one_sequence_and_checkpointing_leave_a_smaller_model():
    config = TRAIN.replace(micro_batch_size=1, gradient_checkpointing=True)
    with pytest.raises(RunError) as raised, explain_out_of_memory(MODEL, config):
        raise MemoryError("no room")
    assert str(raised.value) == "out of memory (no room): train a smaller model, or one of shorter context_length"


def test_the_limit_is_what_is_free_and_what_this_process_holds(monkeypatch):
    import psutil

    free, held = psutil.virtual_memory().available, psutil.Process().memory_info().rss
    found = training_memory_limit(CPU)
    assert held / 2 < found < 1.1 * (free + held), "a container may allow less than is free"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (3 * 10**9, 8 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 10**9)
    assert training_memory_limit(torch.device("cuda")) == 4 * 10**9


def test_a_containers_limit_counts(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "CONTAINER", tmp_path)
    monkeypatch.setattr(devices, "memory_in_use", lambda device: 5)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\nactive_file 50\n")
    assert training_memory_limit(CPU) == 1000 - (700 - 150) + 5
    (tmp_path / "memory.max").write_text("max\n")
    assert training_memory_limit(CPU) > 10**6
