"""The passes that "auto" goes by: they are those of a step, they leave nothing behind, and they are remembered."""

import copy
import os

import pytest
import torch
from torch._dynamo.exc import BackendCompilerFailed

from config import DistilConfig, ModelConfig, TrainConfig
from lab.compute import choice as choosing
from lab.compute import pass_times
from lab.compute.choice import choose
from lab.compute.pass_times import PassTimes, time_passes
from lab.files import remembered as memo
from modules.distillation import Distillation
from modules.transformer import Transformer

MODEL = ModelConfig(vocab_size=50, context_length=16, n_layers=1, n_heads=2, width=16)
WINDOWS = torch.zeros(8, 17, dtype=torch.long)
BOTH = ["fp32", "bf16"]


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path))
    return tmp_path / "costs"


@pytest.fixture
def model(seeded):
    return Transformer(MODEL)


@pytest.fixture
def calls(monkeypatch):
    """The ways of each measurement, whose seconds are made up."""
    found = []

    def timed(model, windows, ways, at_once):
        found.append(ways)
        return {way: len(way) / 1000 for way in ways}

    monkeypatch.setattr(pass_times, "time_passes", timed)
    return found


def test_passes_are_of_the_whole_micro_batch_and_leave_nothing_behind(model):
    seen, before = [], copy.deepcopy(model.state_dict())
    model.embedding.register_forward_hook(lambda module, inputs, output: seen.append(tuple(inputs[0].shape)))
    seconds = time_passes(model, WINDOWS, BOTH)
    assert seconds.keys() == set(BOTH) and all(value > 0 for value in seconds.values())
    assert set(seen) == {(8, 16)} and len(seen) % 2 == 0
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_slow_passes_are_timed_once_after_the_one_that_warms_up(model, monkeypatch):
    monkeypatch.setattr(pass_times, "ENOUGH", -1.0)
    seen = []
    model.embedding.register_forward_hook(lambda *_: seen.append(1))
    time_passes(model, WINDOWS, BOTH)
    assert len(seen) == 4


@pytest.mark.parametrize("bf16, rounds", [
    ([1.0] * 9, 2), ([1.6] * 9, 2), ([1.6, 1.7, 1.6, 1.6], 6), ([1.0, 2.5, 1.0, 1.0], 6), ([2.5] * 9, 2),
    ([2.1] * 9, 6),
], ids=["faster", "just clear", "once not clear", "once slower", "slower", "hardly slower"])
def test_rounds_end_where_the_first_two_are_clear(model, monkeypatch, bf16, rounds):
    """fp32 takes 2 seconds each time; the first of all rounds warms up."""
    taken = {"fp32": iter([9.0] + [2.0] * 9), "bf16": iter([9.0, *bf16, *[2.0] * 9])}
    seen = []

    def time_pass(model, losses_of, windows, way):
        seen.append(way)
        return next(taken[way])

    monkeypatch.setattr(pass_times, "time_pass", time_pass)
    seconds = time_passes(model, WINDOWS, BOTH)
    assert seen == BOTH * (1 + rounds)
    assert seconds["fp32"] == 2.0


def test_of_one_way_alone_a_few_rounds_are_enough(model, monkeypatch):
    seen = []
    monkeypatch.setattr(pass_times, "time_pass", lambda *_: seen.append(1) or 1.0)
    assert time_passes(model, WINDOWS, ["fp32"]) == {"fp32": 1.0} and len(seen) == 3


def test_a_way_that_runs_out_of_memory_is_out_and_where_all_do_it_is_told(model, monkeypatch):
    losses, full = model.losses, ["bf16"]

    def limited(windows):
        precision = "bf16" if torch.is_autocast_enabled("cpu") else "fp32"
        if precision in full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return losses(windows)

    monkeypatch.setattr(model, "losses", limited)
    for out, left in ("bf16", "fp32"), ("fp32", "bf16"):
        full[:] = [out]
        chosen = choose(model, WINDOWS, TrainConfig(batch_size=8))
        assert chosen.precision == left and chosen.why.startswith(f"{left}: {out} runs out of memory;")
    assert all(parameter.grad is None for parameter in model.parameters())
    full[:] = BOTH
    with pytest.raises(torch.OutOfMemoryError):
        choose(model, WINDOWS, TrainConfig(batch_size=8))


def test_what_was_measured_is_remembered_and_said(model, calls, cache_folder):
    config = TrainConfig(batch_size=8)
    first = choose(model, WINDOWS, config)
    assert "remembered" not in first.why and "1.00 times" in first.why
    second = choose(Transformer(MODEL), WINDOWS, config)
    assert second.why == first.why.replace("of fp32", "of fp32 (remembered from an earlier training)")
    assert calls == [BOTH] and len(list(cache_folder.iterdir())) == 1


@pytest.mark.parametrize("other", ["model", "windows", "threads", "checkpointing", "code", "device", "distillation"])
def test_what_the_times_depend_on_is_measured_anew(model, calls, monkeypatch, other):
    PassTimes(model, WINDOWS).of(BOTH)
    windows, learner = WINDOWS, model
    if other == "model":
        learner = Transformer(MODEL.replace(n_heads=4))
    elif other == "windows":
        windows = WINDOWS[:4]
    elif other == "threads":
        monkeypatch.setattr(torch, "get_num_threads", lambda: 63)
    elif other == "checkpointing":
        model.gradient_checkpointing = True
    elif other == "code":
        monkeypatch.setattr(memo, "code_digest", lambda: "another")
    elif other == "device":
        monkeypatch.setattr(pass_times, "device_name", lambda device: "another CPU")
    else:
        learner = Distillation(model, Transformer(MODEL), DistilConfig(teacher="any"))
    PassTimes(learner, windows).of(BOTH)
    assert calls == [BOTH, BOTH]


def test_a_damaged_file_is_measured_anew(model, calls, cache_folder):
    PassTimes(model, WINDOWS).of(BOTH)
    (file,) = cache_folder.iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    PassTimes(model, WINDOWS).of(BOTH)
    assert calls == [BOTH, BOTH] and not PassTimes(model, WINDOWS).of(BOTH).keys() ^ set(BOTH)


def test_numbers_that_are_compared_are_measured_together(model, calls):
    times = PassTimes(model, WINDOWS)
    times.of(BOTH)
    times.of(["bf16"])
    times.of(["bf16", "bf16 compiled"])
    assert calls == [BOTH, ["bf16", "bf16 compiled"]]


def test_forgotten_measurements_are_measured_anew(model, calls, cache_folder):
    PassTimes(model, WINDOWS).of(BOTH)
    size = sum(os.path.getsize(path) for path in cache_folder.iterdir())
    assert memo.measurements_kept() == (1, size)
    assert memo.forget_measurements() == size and memo.measurements_kept() == (0, 0)
    PassTimes(model, WINDOWS).of(BOTH)
    assert calls == [BOTH, BOTH]


def test_a_compiled_step_that_is_slower_is_not_kept(model, monkeypatch):
    monkeypatch.setitem(choosing.COMPILING_PAYS, "cpu", 0)
    monkeypatch.setattr(choosing, "compiler_problem", lambda device_type: None)
    seconds = {"fp32": 0.1, "bf16": 0.2, "fp32 compiled": 0.12}
    monkeypatch.setattr(pass_times, "time_passes", lambda model, windows, ways, at_once: {w: seconds[w] for w in ways})
    chosen = choose(model, WINDOWS, TrainConfig(batch_size=8))
    assert (chosen.precision, chosen.compiled) == ("fp32", False)
    assert chosen.why.endswith(
        "not compiled: a forward and backward pass takes 120 ms in fp32 compiled, 100 in fp32 not compiled"
    )


def test_a_model_that_can_not_be_compiled_is_not(model, monkeypatch):
    """The compiler works on a small function, and fails on this model."""

    def failing(function):
        def call(windows):
            raise BackendCompilerFailed(failing, RuntimeError("no kernel for this"), None)

        return call

    monkeypatch.setitem(choosing.COMPILING_PAYS, "cpu", 0)
    monkeypatch.setattr(choosing, "compiler_problem", lambda device_type: None)
    monkeypatch.setattr(torch, "compile", failing)
    chosen = choose(model, WINDOWS, TrainConfig(batch_size=8))
    assert not chosen.compiled and "not compiled, because this model can't be: " in chosen.why
    assert "no kernel for this" in chosen.why
    assert all(parameter.grad is None for parameter in model.parameters())


class OnCUDA:
    """Windows as on a GPU, of which only the device's kind is asked."""

    device, shape = torch.device("cuda"), WINDOWS.shape


@pytest.mark.parametrize(
    "steps, settings, expected, said",
    [
        (100, {}, ("tf32", False), "less than a minute for 100 steps, too few for compiling to pay"),
        (1000, {}, ("bf16", True), "20 ms in bf16 compiled, 50 in tf32 not compiled"),
        (1000, {"precision": "tf32"}, ("tf32", True), "40 ms in tf32 compiled, 50 in tf32 not compiled"),
        (100, {"compile": "on"}, ("bf16", True), "compile on as set"),
        (1000, {"compile": "off"}, ("tf32", False), "compile off as set"),
    ],
)
def test_on_cuda_what_is_compiled_is_bf16_though_an_eager_step_gains_nothing_by_it(
    model, monkeypatch, steps, settings, expected, said
):
    """As measured on one H200 with small models: launches fill an eager step, so that bf16 is no faster there."""
    seconds = {"tf32": 0.05, "bf16": 0.06, "bf16 compiled": 0.02, "tf32 compiled": 0.04}
    monkeypatch.setattr(pass_times, "time_passes", lambda model, windows, ways, at_once: {w: seconds[w] for w in ways})
    monkeypatch.setattr(pass_times, "device_name", lambda device: "a GPU")
    monkeypatch.setattr(choosing, "precisions", lambda device: ["fp32", "tf32", "bf16"])
    monkeypatch.setattr(choosing, "compiler_problem", lambda device_type: None)
    chosen = choose(model, OnCUDA(), TrainConfig(batch_size=8, **settings), steps=steps)
    assert (chosen.precision, chosen.compiled) == expected and said in chosen.why


def test_on_a_gpu_without_bf16_and_on_mps_the_precision_is_fp32(monkeypatch):
    monkeypatch.setattr(choosing, "precisions", lambda device: ["fp32"])
    assert choosing.candidates(torch.device("cuda")) == ["fp32"]
    monkeypatch.undo()
    assert choosing.candidates(torch.device("mps")) == ["fp32"]
    assert choosing.candidates(torch.device("cpu")) == BOTH
