"""Quantising a run: a new run whose linear layers have weights of 8 or 4 bits, and what that costs and saves.

    run = quantise_run(Run.open("llama-tiny-tales"), bits=4)
    measure_quantisation(run)      # loss, size and speed, before and after
"""

import math
import time
from dataclasses import dataclass
from pathlib import Path

from config import QuantisedConfig
from lab.adapting.derived import Derived, choose_name, derive_run
from lab.data.packing import TokenData
from lab.display.html import render
from lab.evaluation.evaluate import evaluate
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from lab.runs.code_version import code_version
from lab.runs.run import Run
from lab.runs.weights import read_tensors
from modules.quantised import QuantisedLinear, kernels_used, quantise
from modules.transformer import Transformer
from settings.errors import RunError

TURNS = 5  # of the measured decodings before and after, alternating; the fastest of each counts
TABLE = """
<table><tr><th></th><th>before</th><th>after</th><th></th></tr>
{% for row in rows %}
<tr>{% for cell in row %}<td style="text-align:{{ 'left' if loop.first or loop.last else 'right' }}">{{ cell }}</td>
{% endfor %}</tr>
{% endfor %}
</table>
"""


def quantise_run(
    run: Run, *, bits: int = 8, group: int | None = None, layers: str = "blocks.*", name: str | None = None,
    folder: Path | None = None,
) -> Run:
    """A run of its own with the weights of `run` quantised; `run` stays as it is.

    bits, group, layers: as in QuantisedConfig. name: None adds -int8 or -int4. The facts in its weights tell the
    validation loss before and after, on the run's evaluation tokens.

    Raises ConfigError for other bits or layers that it has not, RunError for a run that is quantised or an adapter.
    """
    config = QuantisedConfig(bits=bits, group=group, layers=layers)
    check_quantisable(run)
    name, model, data = choose_name(run, f"-int{bits}", name, folder), run.load_model(), run.load_data()
    stored = {key: tensor.dtype for key, tensor in read_tensors(run.weights_path)[0].items()}
    losses = [validation_loss(run, model, data)]
    quantise(model, config)
    losses.append(validation_loss(run, model, data))
    if not all(map(math.isfinite, losses)):
        raise RunError(f"the loss of {run.name!r} is {losses[0]} before and {losses[1]} after: its weights are damaged")
    tensors = {key: tensor.to(stored.get(key, tensor.dtype)) for key, tensor in model.stored_tensors().items()}
    facts = {
        "step": run.stored_at(), "validation_loss": losses[1], "loss_before": losses[0], "code": code_version(),
        "quantised": describe(model, losses),
    }
    return derive_run(run, Derived("quantised", model, tensors, facts), name, folder)


def check_quantisable(run: Run) -> None:
    """Raises RunError for a run that is quantised, and for an adapter."""
    if run.model_config.lora:
        raise RunError(
            f"{run.name!r} is an adapter for {run.origin.run!r}. Merge it into a run of its own first: python tools.py "
            f"merge {run.name}"
        )
    if run.model_config.quantised:
        raise RunError(
            f"{run.name!r} is quantised already, to {run.model_config.quantised.bits} bits; quantise the run that it "
            f"was made from{f', {run.origin.run!r}' if run.origin else ''}"
        )


def validation_loss(run: Run, model: Transformer, data: TokenData) -> float:
    """Nats per token on the run's evaluation tokens."""
    return evaluate(model, data.validation, run.tokenizer, run.train_config.evaluation_tokens).loss


def matrix_bytes(model: Transformer) -> tuple[int, int]:
    """What the quantised matrices would take in float32, and what they take."""
    layers = {module for module in model.modules() if isinstance(module, QuantisedLinear)}
    before = sum(4 * layer.in_features * layer.out_features for layer in layers)
    return before, sum(buffer.nbytes for layer in layers for buffer in layer.matrix.buffers())


def describe(model: Transformer, losses: list[float]) -> str:
    """The card's sentence about a quantised model."""
    (float32, now), config = matrix_bytes(model), model.config.quantised
    kind = f"{config.bits} bits" + (f" in groups of {config.group_size}" if config.bits == 4 else "")
    return (
        f"{kind}, layers {config.layers}: validation loss {losses[0]:.4f} before and {losses[1]:.4f} after; the "
        f"quantised matrices take {now:,} bytes, {now / float32:.3f} of what float32 takes"
    )


@dataclass(frozen=True, kw_only=True, repr=False)
class Quantisation:
    """A quantised run beside the run that it was made from; shows itself as a table. Pairs are before and after.

    losses: nats per token, on the run's evaluation tokens. matrices: bytes of the quantised ones, in float32 before.
    files: bytes of model.safetensors. speeds: tokens per second, decoding one sequence with a cache. kernel: what
    multiplied, in words.
    """

    bits: int
    losses: tuple[float, float]
    matrices: tuple[int, int]
    files: tuple[int, int]
    speeds: tuple[float, float]
    kernel: str

    def rows(self) -> list[tuple[str, str, str, str]]:
        """The table's lines: what, before, after, and the change."""
        (loss, loss_now), (speed, speed_now) = self.losses, self.speeds
        return [
            ("validation loss", f"{loss:.4f}", f"{loss_now:.4f}", f"{100 * (loss_now / loss - 1):+.2f} %"),
            ("quantised matrices", *(f"{size:,} B" for size in self.matrices), f"{ratio(self.matrices)} of float32"),
            ("model.safetensors", *(f"{size:,} B" for size in self.files), f"{ratio(self.files)} of the file before"),
            ("decoding", f"{speed:,.0f} tokens/s", f"{speed_now:,.0f} tokens/s", f"{ratio(self.speeds)} of the speed"),
        ]

    def __repr__(self) -> str:
        rows = [("", "before", "after", ""), *self.rows()]
        wide = [max(len(row[i]) for row in rows) for i in range(3)]
        lines = [f"{a:{wide[0]}}  {b:>{wide[1]}}  {c:>{wide[2]}}  {d}".rstrip() for a, b, c, d in rows]
        return "\n".join([*lines, f"{self.bits} bits, computed by: {self.kernel}"])

    def _repr_html_(self) -> str:
        return render(TABLE, rows=self.rows()) + f"<p>{self.bits} bits, computed by: {self.kernel}</p>"


def ratio(pair: tuple[float, float]) -> str:
    return f"{pair[1] / pair[0]:.3f}"


def measure_quantisation(run: Run, tokens: int = 64) -> Quantisation:
    """A quantised run beside the one that it was made from; decodes so many tokens with each, several times in turn.

    Raises RunError for a run that `quantise_run` did not make, and where the other run is gone.
    """
    if not run.origin or run.origin.how != "quantised":
        raise RunError(f"{run.name!r} was not made by `python tools.py quantise RUN`; give a run that was")
    source, facts = run.base(), run.weights_facts()
    models = source.load_model(), run.load_model()
    speeds = decoding_speeds(models, run.tokenizer.end_of_text, min(tokens, run.model_config.position_limit - 1))
    kernels = kernels_used(models[1], models[1].embedding.weight.dtype)
    return Quantisation(
        bits=run.model_config.quantised.bits, losses=(float(facts["loss_before"]), run.validation_loss()),
        matrices=matrix_bytes(models[1]), speeds=speeds, kernel=" or ".join(kernels),
        files=(source.weights_path.stat().st_size, run.weights_path.stat().st_size),
    )


def decoding_speeds(models: tuple[Transformer, ...], start: int, tokens: int) -> tuple[float, ...]:
    """Tokens per second of greedy decoding behind one token, for each model, in turns."""
    best = [math.inf] * len(models)
    for _ in range(TURNS):
        for i, model in enumerate(models):
            begun = time.perf_counter()
            for _ in generate(model, [[start]], max_tokens=tokens, sampling=STRATEGIES["greedy"]):
                pass
            best[i] = min(best[i], time.perf_counter() - begun)
    return tuple(tokens / seconds for seconds in best)
