"""What "auto" chooses, from measured seconds that the test makes up."""

import os
import subprocess
import sys
import tempfile

import pytest
import torch

from config import ModelConfig, TrainConfig
from lab.compute import choice as choosing
from lab.compute import pass_times
from lab.compute.choice import choose
from lab.compute.device import (
    check_precision,
    is_repeatable,
    matmul_precision,
    pick_device,
    precisions,
    repeatable,
    unmeasured_precision,
)
from modules.transformer import Transformer
from settings.errors import ConfigError, RunError
from settings.paths import ROOT

WINDOWS = torch.zeros(8, 17, dtype=torch.long)


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    """Nothing is remembered from another test."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def model(seeded):
    return Transformer(ModelConfig(vocab_size=50, context_length=16, n_layers=1, n_heads=2, width=16))


def choice(model, monkeypatch, fp32: float, bf16: float, compiler: bool = True, steps=None, **settings):
    seconds = {"fp32": fp32, "bf16": bf16, "bf16 compiled": 0.35}
    monkeypatch.setenv("GLASSBOX_CACHE", tempfile.mkdtemp(dir=os.environ["GLASSBOX_CACHE"]))
    monkeypatch.setattr(pass_times, "time_passes", lambda model, windows, ways, at_once: {w: seconds[w] for w in ways})
    monkeypatch.setattr(choosing, "compiler_problem", lambda device_type: None if compiler else "Python.h is missing")
    return choose(model, WINDOWS, TrainConfig(**{"steps": 1000, "batch_size": 8} | settings), steps=steps)


def test_the_faster_precision_is_chosen_and_the_gain_is_said(model, monkeypatch):
    chosen = choice(model, monkeypatch, fp32=0.02, bf16=0.01)
    assert chosen.precision == "bf16" and "2.00 times" in chosen.why
    assert choice(model, monkeypatch, fp32=0.01, bf16=0.02).precision == "fp32"
    assert choice(model, monkeypatch, fp32=0.02, bf16=0.01, precision="fp32").precision == "fp32"


def test_long_trainings_are_compiled_where_that_can_work(model, monkeypatch):
    # the whole batch is timed: 0.4 s a step, and 1,000 steps take 6.7 minutes
    compiled = choice(model, monkeypatch, fp32=1.0, bf16=0.4)
    assert compiled.compiled and compiled.why.endswith("350 ms in bf16 compiled, 400 in bf16 not compiled")
    assert not choice(model, monkeypatch, fp32=1.0, bf16=0.2).compiled
    assert choice(model, monkeypatch, fp32=1.0, bf16=0.4, batch_size=16, micro_batch_size=8, steps=500).compiled
    assert not choice(model, monkeypatch, fp32=1.0, bf16=0.4, steps=500).compiled, "only what is left counts"
    broken = choice(model, monkeypatch, fp32=1.0, bf16=0.4, compiler=False)
    assert not broken.compiled
    assert broken.why.endswith("not compiled, because the compiler does not work: Python.h is missing")
    assert not choice(model, monkeypatch, fp32=1.0, bf16=0.4, compile="off").compiled
    assert not choice(model, monkeypatch, fp32=1.0, bf16=0.4, dropout_final=0.5).compiled
    assert choice(model, monkeypatch, fp32=0.001, bf16=0.001, compile="on").compiled


BROKEN = """#!/bin/sh
for argument in "$@"; do
    case "$argument" in --version|*--help) echo "g++ (fake) 12.2.0"; exit 0;; esac
done
echo "main.cpp:3:10: fatal error: Python.h: No such file or directory" >&2
exit 1
"""


def test_a_compiler_that_fails_is_found_out_in_one_line(tmp_path):
    """A real torch.compile with a C++ compiler that starts, and can't compile: as without Python's headers."""
    fake = tmp_path / "g++"
    fake.write_text(BROKEN, encoding="utf-8")  # of the shell: a Python may lie in a path with a blank
    fake.chmod(0o755)
    code = (
        "import torch; from lab.compute.compiling import check_compiler, compiler_problem\n"
        "from settings.errors import ConfigError\n"
        "print(compiler_problem('cpu'))\n"
        "try: check_compiler(torch.device('cpu'))\n"
        "except ConfigError as error: print(error)"
    )
    there = dict(os.environ, CXX=str(fake), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=there, capture_output=True, text=True)
    problem, refused = ran.stdout.splitlines()
    assert problem == "main.cpp:3:10: fatal error: Python.h: No such file or directory"
    assert problem in refused and "set compile to 'off'" in refused


def test_devices_are_taken_in_order(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto").type == "cuda" and pick_device("cpu").type == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert pick_device("auto").type == "cpu"


def gpu(monkeypatch, capability: tuple[int, int]) -> torch.device:
    """A CUDA device of this compute capability, as PyTorch describes it."""
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: capability >= (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Tesla T4")
    return torch.device("cuda")


def test_a_precision_that_the_device_lacks_is_refused(monkeypatch):
    cpu = torch.device("cpu")
    assert precisions(cpu) == ["fp32", "bf16"] and unmeasured_precision(cpu) == "fp32"
    with pytest.raises(ConfigError, match="'tf32' is not available on device 'cpu'; choose 'fp32', 'bf16', or leave"):
        check_precision("tf32", cpu)
    ampere = gpu(monkeypatch, (8, 0))
    assert precisions(ampere) == ["fp32", "tf32", "bf16"] and unmeasured_precision(ampere) == "tf32"
    for wanted in ("auto", "fp32", "tf32", "bf16"):
        check_precision(wanted, ampere)
    turing = gpu(monkeypatch, (7, 5))
    assert precisions(turing) == ["fp32"] and unmeasured_precision(turing) == "fp32"
    check_precision("auto", turing)
    for wanted in ("tf32", "bf16"):
        with pytest.raises(ConfigError, match=f"'{wanted}' is not available on Tesla T4; choose 'fp32', or leave"):
            check_precision(wanted, turing)


@pytest.mark.parametrize("before", [(False, False), (True, True), (True, False)])
def test_cuda_steps_are_repeatable_inside_and_then_as_before(before):
    cuda = torch.device("cuda")
    try:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        for precision in ("fp32", "tf32"):
            assert is_repeatable(cuda, precision)
            with repeatable(cuda, precision):
                assert torch.are_deterministic_algorithms_enabled()
                assert not torch.is_deterministic_algorithms_warn_only_enabled()
                assert not torch.utils.deterministic.fill_uninitialized_memory
            said = r"x has no deterministic form.*set precision to 'bf16', or device"
            with pytest.raises(RunError, match=said), repeatable(cuda, precision):
                raise RuntimeError("x has no deterministic form")
            with pytest.raises(RuntimeError, match="shapes"), repeatable(cuda, precision):
                raise RuntimeError("shapes do not fit")
        assert not is_repeatable(cuda, "bf16") and is_repeatable(torch.device("cpu"), "bf16")
        for device, precision in ((cuda, "bf16"), (torch.device("cpu"), "fp32")):
            with repeatable(device, precision):
                assert torch.are_deterministic_algorithms_enabled() == before[0]
        found = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
        assert found == before and torch.utils.deterministic.fill_uninitialized_memory
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("precision, inside", [("fp32", "highest"), ("tf32", "high"), ("bf16", "high")])
@pytest.mark.parametrize("before", ["highest", "high"])
def test_the_precision_of_products_is_that_of_the_step_and_then_as_before(precision, inside, before):
    try:
        torch.set_float32_matmul_precision(before)
        with matmul_precision(torch.device("cuda"), precision):
            assert torch.get_float32_matmul_precision() == inside
        with pytest.raises(KeyError), matmul_precision(torch.device("cuda"), precision):
            raise KeyError
        assert torch.get_float32_matmul_precision() == before
        with matmul_precision(torch.device("cpu"), precision):
            assert torch.get_float32_matmul_precision() == before
    finally:
        torch.set_float32_matmul_precision("highest")
