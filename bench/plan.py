"""What a plan says of trainings on this machine's CPU, against what they take: memory of a rank, and time of a step.

Each training is a command of the terminal, alone or through torchrun, in float32 and not compiled. Memory is the peak
of a process's resident set in the steps after the first, of which a plan knows the tensors alone. So the peak of the
same command for a model of next to no tensors is taken off: the interpreter, the libraries, the text. And malloc is
told to return at once what is freed (MALLOC_MMAP_THRESHOLD_); by itself it keeps a third to a half of the tensors
again. Time is without that.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from statistics import mean, median
from unittest import mock

import pandas as pd
import psutil

from bench.timing import table
from config import Preset, preset
from lab.comparison.settings_file import write_settings
from lab.costs.plans import Plan, plan
from settings.paths import ROOT

BATCH, STEPS, WARM = 8, 6, 2  # the first WARM steps are left out
CASES = ((1, "none"), (2, "none"), (2, "full"), (4, "none"), (4, "full"))  # ranks and sharding
NEXT_TO_NOTHING = dict(n_layers=1, n_heads=1, width=8, context_length=32)
MANY, PAUSE = 300, 0.02  # steps of such a model; seconds between two looks at a process


def settings(optimizer: str, small: bool = False, steps: int = STEPS, precision: str = "fp32") -> Preset:
    """A Llama of 6 layers of width 256; small: one of next to no tensors."""
    model, train = preset("llama-256x6")
    model = model.replace(max_positions=None, **(NEXT_TO_NOTHING if small else {}))
    return Preset(model, train.replace(
        steps=steps, batch_size=BATCH, micro_batch_size=BATCH, optimizer=optimizer, precision=precision, compile="off",
        device="cpu", evaluate_every=steps, evaluation_tokens=256, checkpoint_every=10**6,
    ))


@contextmanager
def training(
    ranks: int, sharding: str, start: Preset, n_threads: int, environment: Mapping[str, str] = {}
) -> Iterator[tuple[subprocess.Popen, Path]]:
    """The process of a training that leaves nothing behind, and its log. Waits for its end, which must be a good one.

    n_threads: of a rank. environment: variables beside those of this process.
    """
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", str(ranks)] if ranks > 1 else []
    shared = ["--sharding", sharding] if ranks > 1 else []
    variables = os.environ | {"OMP_NUM_THREADS": str(n_threads)} | environment
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "output.txt", "w+", encoding="utf-8") as output:
        file = Path(folder) / "settings.json"
        write_settings(file, start)
        command = [sys.executable, *launch, "-m", "bench.into_folder", folder, "train", *shared]
        command += ["--config", str(file), "--name", "planned"]
        process = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=output, stderr=output)
        yield process, Path(folder) / "planned" / "log_data.csv"
        if process.wait():
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}: {output.read()[-2000:]}")


def step_seconds(ranks: int, sharding: str, start: Preset, n_threads: int) -> float:
    """The median seconds of a step."""
    seconds = 0.0
    with training(ranks, sharding, start, n_threads) as (process, log):
        if process.wait() == 0:  # else leaving the `with` says what went wrong
            seconds = median(pd.read_csv(log)["seconds"].diff().iloc[WARM:])
    return seconds


def step_peak(ranks: int, sharding: str, start: Preset, n_threads: int) -> int:
    """The largest resident set, in bytes, of any process of a training, between its first step and the last.

    With the last one come pictures.
    """
    with training(ranks, sharding, start, n_threads, {"MALLOC_MMAP_THRESHOLD_": "65536"}) as (process, log):
        while process.poll() is None and steps_in(log) < 1:
            time.sleep(PAUSE)
        started = running(process)
        for one in started:
            (one / "clear_refs").write_text("5")  # Linux sets the peak to what is resident now
        peak = 0
        while process.poll() is None and steps_in(log) < start.train.steps:
            peak = max([peak, *map(peak_so_far, started)])
            time.sleep(PAUSE)
        return peak


def steps_in(log: Path) -> int:
    """How many steps the log has, below its headings."""
    return log.read_text().count("\n") - 1 if log.exists() else 0


def running(process: subprocess.Popen) -> list[Path]:
    """Where Linux tells of this process and of those that it started."""
    with suppress(psutil.NoSuchProcess):  # it has just ended
        first = psutil.Process(process.pid)
        return [Path(f"/proc/{one.pid}") for one in (first, *first.children(recursive=True))]
    return []


def peak_so_far(process: Path) -> int:
    """Bytes that were resident at most, as Linux keeps count: a tensor that lives for a moment counts as well."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
        found = re.search(r"VmHWM:\s+(\d+) kB", (process / "status").read_text())
        return 1024 * int(found[1]) if found else 0  # one that is ending has none
    return 0


def compare(ranks: int, sharding: str, optimizer: str) -> list[str]:
    """A row of the table: planned, measured and their ratio, in memory and time.

    Passes are timed anew for each plan, and again after the training that it is compared with: the machine may do other
    work meanwhile.
    """
    start = settings(optimizer)
    before = plan_anew(start, ranks)
    n_threads, both = before.speed.threads, [start, settings(optimizer, small=True, steps=MANY)]
    seconds, _ = [step_seconds(ranks, sharding, each, n_threads) for each in both]  # leaves estimates for what follows
    planned_seconds = mean(each.layouts[sharding].seconds for each in (before, plan_anew(start, ranks)))
    resident = [step_peak(ranks, sharding, each, n_threads) for each in both]
    totals = [plan(each, f"cpux{ranks}").layouts[sharding].memory.total for each in both]
    planned, measured = totals[0] - totals[1], resident[0] - resident[1]
    return [
        f"{ranks}, {sharding}, {optimizer}", f"{planned / 1e6:.0f}", f"{measured / 1e6:.0f}",
        f"{planned / measured:.2f}", f"{1e3 * planned_seconds:.0f}", f"{1e3 * seconds:.0f}",
        f"{planned_seconds / seconds:.2f}",
    ]


def plan_anew(start: Preset, ranks: int) -> Plan:
    """The plan for processes of this machine, with no time that was measured before."""
    with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, {"GLASSBOX_CACHE": folder}):
        return plan(start, f"cpux{ranks}")


def main(cases: tuple[tuple[int, str], ...] = CASES, optimizers: tuple[str, ...] = ("adamw", "muon")) -> None:
    if sys.platform != "linux":
        print("\nplan: left out, because it reads the peak of memory as Linux keeps it")
        return
    rows = []
    for optimizer in optimizers:
        for ranks, sharding in cases:
            rows.append(compare(ranks, sharding, optimizer))
            print(f"{rows[-1]}", flush=True)
    model, train_config = settings("adamw")
    title = f"Plan and training, {model.n_layers} × {model.width}, batch {train_config.batch_size}, CPU"
    headings = ["ranks, sharding, optimizer", "planned, MB", "measured, MB", "ratio", "planned, ms a step",
                "measured, ms", "ratio"]
    print(table(title, headings, rows), flush=True)
