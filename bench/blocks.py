"""A training step of each block, in time and beside the standard one, all of equal parameters and with ALiBi.

6 layers, width 256, 8 heads, 16 × 256 tokens of vocabulary 2,048; forward, backward, clipping and AdamW.
"""


from bench.timing import alternate, ratios, table
from bench.training import CONFIG, our_state, our_stepper
from config import ARCHITECTURES, FactoredBlockConfig, ModelConfig, Preset, ShapedBlockConfig, TrainConfig
from lab.comparison.sweep import matched
from lab.costs.estimates import estimate

STANDARD = CONFIG.replace(**ARCHITECTURES["alibi"])
BLOCKS = {
    "factored, kronecker (the preset)": FactoredBlockConfig(),
    "factored, identity": FactoredBlockConfig(value_mixing="identity", output_mixing="identity"),
    "factored, independent": FactoredBlockConfig(value_mixing="independent", output_mixing="independent"),
    "factored, dense": FactoredBlockConfig(value_mixing="dense", output_mixing="dense"),
    "shaped attention (SASP)": ShapedBlockConfig(),
}


def contestants() -> dict[str, ModelConfig]:
    parameters = estimate(STANDARD).parameters
    made = {
        name: matched(Preset(STANDARD.replace(block=block), TrainConfig()), parameters)
        for name, block in BLOCKS.items()
    }
    return {"standard": STANDARD} | {name: settings.model for name, settings in made.items()}


def main(rounds: int = 9) -> None:
    print_steps("Blocks at equal parameters, ALiBi, against the standard block", "block", contestants(), rounds)


def print_steps(title: str, what: str, configs: dict[str, ModelConfig], rounds: int) -> None:
    """The time of a training step of each, in both precisions, as a multiple of the first one's."""
    against, rows = next(iter(configs)), []
    measured = {}
    for precision in ("bf16", "fp32"):
        steppers = {name: our_stepper(our_state(config, precision)) for name, config in configs.items()}
        measured[precision] = ratios(alternate(steppers, rounds), against)
    for name, config in configs.items():
        cells = [f"{1 / measured[precision][name]:.2f} ×" for precision in measured]
        rows.append([name, f"{estimate(config).parameters:,}", *cells])
    print(table(title, [what, "parameters", "time of a step, bf16", "fp32"], rows))
