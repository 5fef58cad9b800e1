"""Several processes against one with the same cores: 2 of one thread each, by DDP and FSDP2, and one of two threads.

All train the same Llama of 6 layers of width 256 with the same global batch, eagerly, in trainings of their own.
"""

from statistics import median

from bench.plan import settings, train
from bench.timing import ratios, table

STEPS, ROUNDS = 12, 3
ALONE = "one process, 2 threads"
CASES = {  # ranks, sharding, threads of each
    ALONE: (1, "none", 2),
    "DDP, 2 processes of 1 thread": (2, "none", 1),
    "FSDP2, 2 processes of 1 thread": (2, "full", 1),
}


def main(optimizers: tuple[str, ...] = ("adamw", "muon"), precisions: tuple[str, ...] = ("fp32", "bf16")) -> None:
    rows = []
    for optimizer in optimizers:
        for precision in precisions:
            start = settings(optimizer, steps=STEPS, precision=precision)
            seconds: dict[str, list[float]] = {name: [] for name in CASES}
            for _ in range(ROUNDS):  # alternating, so that a slow minute of the machine hits all alike
                for name, (ranks, sharding, n_threads) in CASES.items():
                    seconds[name].append(train(ranks, sharding, start, n_threads, give_back=False)[1])
            faster = ratios(seconds, ALONE)
            rows.append([optimizer, precision, f"{1e3 * median(seconds[ALONE]):.0f}",
                         *(f"{faster[name]:.2f}" for name in CASES if name != ALONE)])
            print(f"{rows[-1]}", flush=True)
    headings = ["optimizer", "precision", f"{ALONE}, ms a step", *(f"{name}, ×" for name in CASES if name != ALONE)]
    print(table("Tokens per second of several processes, as a share of one's", headings, rows), flush=True)
