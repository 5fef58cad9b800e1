"""The benchmarks, by default all that need neither a GPU nor a file:

python -m bench [training] [presets] [attention] [decoding] [data] [streaming] [tracing] [blocks] [comparison] [future]
    [exchange] [plan] [ranks] [gpu] [alibi] [resume] [memory] [shakespeare] [FILE]

What follows `gpu` names its sections (training, decoding, alibi, resume, memory); FILE follows `shakespeare`.
"""

import importlib
import platform
import sys

import torch

ALL = (
    "training", "attention", "decoding", "data", "streaming", "tracing", "blocks", "comparison", "future", "exchange",
    "plan", "ranks",
)


def main(words: list[str]) -> int:
    """Runs the chosen benchmarks; returns the exit status."""
    if words[:1] == ["gpu"]:
        from bench.gpu.run import main as measure_card

        return measure_card(words[1:])
    if words[:1] == ["shakespeare"]:
        from bench.shakespeare import main as learn

        return learn(words[1:])
    unknown = set(words) - {*ALL, "presets"}
    if unknown:
        choice = f"{', '.join(ALL)}, presets; or, alone, gpu or shakespeare FILE"
        print(f"unknown benchmark {', '.join(sorted(unknown))}; choose from: {choice}", file=sys.stderr)
        return 2
    threads = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print(f"{platform.machine()}, {threads}; medians, each contestant in processes of its own, in turn", flush=True)
    for name in words or ALL:
        importlib.import_module(f"bench.{name}").main()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
