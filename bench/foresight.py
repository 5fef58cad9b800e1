"""Does seeing the future help? The future-sighted network against a plain one, and against multi-token prediction.

    python -m bench.foresight FOLDER [SEEDS]

trains the three on tales, two to five minutes each: same tokens in the same order per seed, equal parameters. Reads
the same held-out tokens with all. Stopped, it goes on where it was. Writes bench/results/foresight.csv.
"""



from lab.scores import score

from config import ROOT, FutureBlockConfig, MultiTokenBlockConfig, Preset, preset
from lab.data import prepare
from lab.estimates import estimate
from lab.evaluation import probe_accuracy
from lab.runs import Run
from lab.sweep import matched
from lab.tales import probes

RESULTS = ROOT / "bench" / "results" / "foresight.csv"
TOKENS, PROBES = 65_536, 200


def variants() -> dict[str, Preset]:
    model, train = preset("llama-tiny")
    data = train.data.replace(tokenizer="bpe-512")
    train = train.replace(
        data=data, steps=1000, batch_size=32, learning_rate=3e-3, precision="bf16", compile="off", checkpoint_every=500
    )
    model = model.replace(vocab_size=512, width=96, n_heads=4, n_layers=5)
    future = matched(Preset(model.replace(block=FutureBlockConfig()), train), estimate(model).parameters)
    return {
        "plain": Preset(model, train),
        "future": future,
        "multi-token": Preset(model.replace(block=MultiTokenBlockConfig()), train),
    }


def measured(run: Run) -> dict:
    """Loss, its standard error, accuracies and probes of a run, on the same held-out tokens as every other."""
    model, data = run.load_model(), prepare(run.train_config.data)
    scores = score(model, data, TOKENS)
    skills = probe_accuracy(model, data.tokenizer, probes(PROBES))
    name, _, seed = run.name.rpartition("-seed")
    return {
        "variant": name, "seed": int(seed), "loss": scores.loss, "standard_error": scores.standard_error(),
        "top_1": scores.accuracy(1), "top_5": scores.accuracy(5),
    } | {f"probe {skill}": accuracy for skill, accuracy in skills.items()}  # fmt: skip
