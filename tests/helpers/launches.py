"""Processes that torchrun starts for a test, and an activation that fails in one of them."""

import os
import subprocess
import sys
from pathlib import Path

from settings.paths import ROOT

# FAULT=kind:rank:step says what happens, where and when; only in the first attempt of an elastic launch
FAULTY = '''
import os
import signal

from torch import Tensor
from torch.nn import functional as F

from lab.compute.ranks import current_ranks
from settings.registry import register


@register("activation", "faulty")
def faulty(x: Tensor) -> Tensor:
    kind, rank, step = os.environ["FAULT"].split(":")
    ranks, first = current_ranks(), os.environ.get("TORCHELASTIC_RESTART_COUNT") == "0"
    if first and (ranks.rank, ranks.step) == (int(rank), int(step)):
        if kind == "nan":
            return x * float("nan")  # (B, T, F)
        os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[kind])
    return F.silu(x)  # (B, T, F)
'''
SMALL = [
    "--train.data.tokenizer", "byte", "--train.data.max-documents", "60", "--train.data.validation-fraction", "0.3",
    "--model.context-length", "16", "--model.n-layers", "1", "--model.n-heads", "2", "--model.width", "16",
    "--train.batch-size", "4", "--train.precision", "fp32", "--train.compile", "off", "--train.device", "cpu",
    "--train.evaluation-tokens", "64", "--train.sample-tokens", "3", "--train.checkpoint-every", "2",
]


def start(size: int, *command: str, options: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
    """`torchrun --nproc-per-node size command`, one thread each. environment: more variables."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(size), *options]
    return subprocess.Popen(
        [*torchrun, *command], cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environment,
    )


def start_training(
    folder: Path, size: int, *flags: str, fault: str = "none:-1:0", options: tuple[str, ...] = ()
) -> subprocess.Popen:
    """`torchrun tools.py train` of a small model, whose runs appear in `folder`."""
    (folder / "faulty.py").write_text(FAULTY, encoding="utf-8")
    idea = ["--idea", str(folder / "faulty.py"), "--model.mlp.activation", "faulty"]
    command = ["-m", "bench.into_folder", str(folder / "trained"), "train"]
    return start(size, *command, *SMALL, *idea, *flags, options=options, FAULT=fault, GLASSBOX_PLAIN="1")


def errors_in(text: str) -> list[str]:
    """The messages of the terminal, without torchrun's own."""
    return [line for line in text.splitlines() if line.startswith("error:")]
