"""Does a small draft make greedy decoding faster?

    python -m bench.studies.speculation FOLDER [SEEDS]

trains a draft of one layer and two larger models on tales: half an hour to an hour. Then each model continues a prompt,
plainly and with 2, 4 and 6 drafts a pass, in fresh processes in turn. A study that was stopped goes on where it was.
Writes bench/results/speculation.csv.
"""

import time
from pathlib import Path
from statistics import median

import pandas as pd

from bench.studies.study import small_llama, start, store, train_variants
from bench.timing import in_turn, ratios, table
from config import SAMPLE_PROMPT, Preset
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from lab.generation.speculative import Speculation, speculate
from lab.runs.drafting import load_draft
from lab.runs.run import Run

DRAFT, MODELS = "draft", ("model-256", "model-512")
DRAFTS, TOKENS, ROUNDS = (2, 4, 6), 256, 5


def variants() -> dict[str, Preset]:
    return {
        DRAFT: small_llama(width=128, n_layers=1, steps=2000, learning_rate=4e-3),
        MODELS[0]: small_llama(width=256, n_layers=6, steps=1500, learning_rate=2e-3),
        MODELS[1]: small_llama(width=512, n_layers=6, steps=600, learning_rate=1e-3),
    }


def continued(folder: Path, name: str, draft: str, drafts: int) -> tuple[float, Speculation | None]:
    """Continues the prompt with so many drafts a pass, plainly for 0: the fastest of five times in seconds, and what
    became of the drafts."""
    run = Run.open(name, folder)
    model, drafter = run.load_model(), load_draft(run, Run.open(draft, folder))
    prompts, settings = [run.tokenizer.encode(SAMPLE_PROMPT)], dict(max_tokens=TOKENS, sampling=STRATEGIES["greedy"])
    found, seconds = None, []
    for _ in range(5):
        begin = time.perf_counter()
        if drafts:
            found = speculate(model, prompts, draft=drafter, drafts=drafts, **settings)
        else:
            list(generate(model, prompts, **settings))
        seconds.append(time.perf_counter() - begin)
    return min(seconds), found


def measured(folder: Path, name: str, draft: str) -> list[dict]:
    """A row for each number of drafts: what became of them, and how many times as fast as plain decoding it was."""
    cases = {str(drafts): (folder, name, draft, drafts) for drafts in (0, *DRAFTS)}
    results = in_turn(continued, cases, ROUNDS)
    seconds = {drafts: [time for time, _ in found] for drafts, found in results.items()}
    speed, rows = ratios(seconds, "0"), []
    for drafts in DRAFTS:
        found = results[str(drafts)][0][1]
        rows.append({
            "model": name, "draft": draft, "draft_size": found.draft_size, "drafts": drafts,
            "acceptance": found.acceptance_rate, "tokens_per_pass": found.tokens_per_pass,
            "plain_tokens_per_second": TOKENS / median(seconds["0"]), "speed": speed[str(drafts)],
        })
        # a pass with its drafts, in plain steps: above tokens_per_pass, drafting costs more than it saves
        rows[-1]["cost"] = rows[-1]["tokens_per_pass"] / rows[-1]["speed"]
    return rows


def main(folder: Path, seeds: int) -> None:
    train_variants(variants(), seeds, folder)
    rows = [
        row for seed in range(seeds) for model in MODELS
        for row in measured(folder, f"{model}-seed{seed}", f"{DRAFT}-seed{seed}")
    ]
    results = pd.DataFrame(rows)
    store(results, "speculation.csv")
    print_table(results)


def print_table(results: pd.DataFrame) -> None:
    cells = [
        [row.model, f"{row.draft_size:.3f} ×", str(row.drafts), f"{row.acceptance:.0%}", f"{row.tokens_per_pass:.2f}",
         f"{row.cost:.2f}", f"{row.speed:.2f} ×"]
        for row in results.itertuples()
    ]
    headings = ["model", "bytes of the draft", "drafts a pass", "kept", "tokens per pass",
                "cost of a pass with its drafts (plain steps)", "speed, plain = 1"]
    print(table(f"Greedy speculative decoding of {TOKENS} tokens, batch 1", headings, cells))


if __name__ == "__main__":
    start(main, seeds=1)
