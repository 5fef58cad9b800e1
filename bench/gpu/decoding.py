"""Greedy decoding with a cache against Hugging Face's `generate`, the same weights in float32."""

from bench.decoding import Decoding, measure
from bench.gpu.scale import Scale
from bench.gpu.sections import Failure, attempt_apart, cell
from bench.timing import table

CONTESTANTS = {"transformers, `generate`": "Hugging Face", "Glassbox, not compiled": "eager", "Glassbox": "auto"}


def speeds(way: str, scale: Scale) -> dict[str, float]:
    """Tokens a second for each size and batch, in this process."""
    found = {}
    for label, size in scale.decoders.items():
        for batch in scale.batches:
            case = Decoding(size.model("llama"), batch, scale.start, scale.end, scale.device)
            found[f"{label}, batch {batch}"] = case.tokens / measure(way, case, times=2)["seconds"]
    return found


def main(scale: Scale) -> list[Failure]:
    """Prints the table."""
    cases = [f"{label}, batch {batch}" for label in scale.decoders for batch in scale.batches]
    found = {name: attempt_apart(speeds, way, scale) for name, way in CONTESTANTS.items()}
    failures = [result for result in found.values() if isinstance(result, Failure)]
    rows = [
        [name, *(cell(result if isinstance(result, Failure) else result[case], ",.0f") for case in cases)]
        for name, result in found.items()
    ]
    title = f"Greedy decoding, llama, {scale.start} → {scale.end} tokens, fp32, tokens/s"
    print(table(title, ["", *cases], rows), flush=True)
    return failures
