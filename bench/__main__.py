"""The benchmarks, by default all:

python -m bench [training] [attention] [decoding] [data] [streaming] [tracing] [blocks] [comparison] [future] [exchange]
"""

import importlib
import platform
import sys

import torch

ALL = (
    "training", "attention", "decoding", "data", "streaming", "tracing", "blocks", "comparison", "future", "exchange",
)

chosen = sys.argv[1:] or ALL
unknown = set(chosen) - set(ALL)
if unknown:
    sys.exit(f"unknown benchmark {', '.join(sorted(unknown))}; choose from: {', '.join(ALL)}")
print(f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}; medians, runs in turn")
for name in chosen:
    importlib.import_module(f"bench.{name}").main()
