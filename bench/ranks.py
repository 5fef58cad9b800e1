"""Several processes against one with the same cores: 2 of one thread each, by DDP and FSDP2, and one of two threads.

All train the same Llama of 6 layers of width 256 with the same global batch, eagerly, in trainings of their own.
"""

from statistics import median

from bench.plan import settings, step_seconds
from bench.timing import ratios, table

STEPS, ROUNDS = 12, 3
SETTINGS = (("adamw", "fp32"), ("adamw", "bf16"), ("muon", "bf16"))  # optimizer, precision
ALONE = "one process, 2 threads"
CASES = {  # ranks, sharding, threads of each
    ALONE: (1, "none", 2),
    "DDP, 2 processes of 1 thread": (2, "none", 1),
    "FSDP2, 2 processes of 1 thread": (2, "full", 1),
}


def main() -> None:
    rows = []
    for optimizer, precision in SETTINGS:
        start = settings(optimizer, steps=STEPS, precision=precision)
        seconds: dict[str, list[float]] = {name: [] for name in CASES}
        for _ in range(ROUNDS):  # alternating, so that a slow minute of the machine hits all alike
            for name, (ranks, sharding, n_threads) in CASES.items():
                seconds[name].append(step_seconds(ranks, sharding, start, n_threads))
        faster = ratios(seconds, ALONE)
        rows.append([f"{optimizer}, {precision}", f"{1e3 * median(seconds[ALONE]):.0f}",
                     *(f"{faster[name]:.2f}" for name in CASES if name != ALONE)])
        print(f"{rows[-1]}", flush=True)
    headings = ["settings", f"{ALONE}, ms a step", *(f"{name}, ×" for name in CASES if name != ALONE)]
    print(table("Tokens per second of several processes, as a share of one's", headings, rows), flush=True)
