"""Published checkpoints' sizes: the most memory that importing, evaluating and generating take, each in a new process.

The checkpoints are built by transformers with random weights: GPT-2 (124M, fp32) and SmolLM2-135M (bf16), in shards.
"""

import resource
import tempfile
import time
from pathlib import Path

from bench.timing import apart

STEPS = ("import", "evaluate", "generate")
MODELS = {
    "gpt2": ("GPT2", {}),
    "smollm2-135m": ("Llama", dict(
        vocab_size=49_152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 100_000.0}, dtype="bfloat16",
    )),
}
TEXT = " ".join(f"Sentence {number} of a text about nothing in particular." for number in range(300))


def main() -> None:
    print("exchange: the most MB resident while a checkpoint of this size is imported, evaluated, continued")
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            apart(build, name, Path(folder) / name)
            start = time.perf_counter()
            taken = [apart(peak_of, step, name, Path(folder)) for step in STEPS]
            seconds = time.perf_counter() - start
            print(f"  {name:13} {' / '.join(f'{peak:,.0f}' for peak in taken)} MB, {seconds:.0f} s in all", flush=True)


def build(name: str, folder: Path) -> None:
    """Saves the model as transformers does, in shards, with one of our tokenizers."""
    import torch
    import transformers

    from lab.data.tokenizers import load_tokenizer
    from lab.exchange.tokenizer_files import tokenizer_files

    kind, settings = MODELS[name]
    config = getattr(transformers, f"{kind}Config")(**settings, bos_token_id=256, eos_token_id=256)
    architecture = "GPT2LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    model = getattr(transformers, architecture)(config).to(getattr(torch, settings.get("dtype", "float32")))
    model.save_pretrained(folder, max_shard_size="100MB")
    for file, text in tokenizer_files(load_tokenizer("bpe-8192")).items():
        (folder / file).write_text(text, encoding="utf-8")


def peak_of(step: str, name: str, folder: Path) -> float:
    """MB at most resident in this process, after one step."""
    from lab.evaluation.evaluate import evaluate_text
    from lab.exchange.importing import import_hf
    from lab.generation.generate import generate_text
    from lab.runs.run import Run

    if step == "import":
        import_hf(folder / name, folder / "runs")
    else:
        run = Run.open(name, folder / "runs")
        model = run.load_model()
        if step == "evaluate":
            evaluate_text(model, TEXT, run.tokenizer)
        else:
            generate_text(model, run.tokenizer, "Once there was", max_tokens=20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
