"""A training step of each block, in time and beside the standard one, all of equal parameters and with ALiBi.

6 layers, width 256, 8 heads, 16 × 256 tokens of vocabulary 2,048; forward, backward, clipping and the update.
"""

from bench.steps import Size, ours
from bench.timing import ratios, table, time_in_turn
from config import FactoredBlockConfig, ModelConfig, Preset, ShapedBlockConfig, TrainConfig
from lab.comparison.sweep import matched
from lab.costs.estimates import estimate

SIZE = Size(6, 8, 256, 256, 16)
BLOCKS = {
    "factored, kronecker (the preset)": FactoredBlockConfig(),
    "factored, identity": FactoredBlockConfig(value_mixing="identity", output_mixing="identity"),
    "factored, independent": FactoredBlockConfig(value_mixing="independent", output_mixing="independent"),
    "factored, dense": FactoredBlockConfig(value_mixing="dense", output_mixing="dense"),
    "shaped attention (SASP)": ShapedBlockConfig(),
}


def contestants(size: Size) -> dict[str, ModelConfig]:
    standard = size.model("alibi")
    parameters = estimate(standard).parameters
    made = {
        name: matched(Preset(standard.replace(block=block), TrainConfig()), parameters)
        for name, block in BLOCKS.items()
    }
    return {"standard": standard} | {name: settings.model for name, settings in made.items()}


def main(rounds: int = 3, size: Size = SIZE) -> None:
    print_steps("Blocks at equal parameters, ALiBi, against the standard block", contestants(size), size, rounds)


def print_steps(title: str, configs: dict[str, ModelConfig], size: Size, rounds: int) -> None:
    """The time of a training step of each, not compiled, in both precisions, as a multiple of the first one's."""
    against, rows = next(iter(configs)), []
    measured = {}
    for precision in ("bf16", "fp32"):
        settings = {"precision": precision, "compile": "off"}
        seconds = time_in_turn(ours, {n: (config, size.batch, settings) for n, config in configs.items()}, rounds)
        measured[precision] = ratios(seconds, against)
    for name, config in configs.items():
        cells = [f"{1 / measured[precision][name]:.2f} ×" for precision in measured]
        rows.append([name, f"{estimate(config).parameters:,}", *cells])
    print(table(title, ["model", "parameters", "time of a step, bf16", "fp32"], rows), flush=True)
