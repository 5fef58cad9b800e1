"""Runs the chosen sections."""

import os
import platform
import sys
import time
from collections.abc import Sequence

import torch

from bench.gpu import alibi, decoding, memory, resume, training
from bench.gpu.scale import CARD, Scale
from bench.own_cache import own_cache

SECTIONS = {
    "training": training.main, "decoding": decoding.main, "alibi": alibi.main, "resume": resume.main,
    "memory": memory.main,
}


def main(chosen: Sequence[str] = (), scale: Scale = CARD) -> int:
    """Prints the tables of these sections, by default all; returns the exit status."""
    unknown = set(chosen) - set(SECTIONS)
    if unknown:
        print(f"unknown section {', '.join(sorted(unknown))}; choose from: {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    if scale.device == "cuda" and not torch.cuda.is_available():
        print(
            f"bench gpu needs a CUDA device, and torch {torch.__version__} finds none; "
            "`python -m bench training` measures a CPU", file=sys.stderr,
        )
        return 2
    card = torch.cuda.get_device_name() if scale.device == "cuda" else f"rehearsal on a {platform.machine()} CPU"
    print(f"{card}, torch {torch.__version__}; each contestant in a process of its own", flush=True)
    os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "4")  # several processes compile at the same time
    failures = []
    with own_cache():
        for name in chosen or SECTIONS:
            start = time.perf_counter()
            failures += SECTIONS[name](scale)
            print(f"\n{name}: {time.perf_counter() - start:.0f} s", flush=True)
    return 1 if failures else 0
