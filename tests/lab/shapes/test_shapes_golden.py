"""The printed table of every component, held against tests/golden/; `--overwrite` writes these anew."""

from collections.abc import Callable

import pytest
import torch

from config import ALiBiConfig, ModelConfig, SinusoidalConfig
from lab.shapes.views import Shapes
from modules.transformer import Transformer
from settings.paths import ROOT
from tests.helpers.variants import GROUPED, PARALLEL, POST, VARIANTS, mlp, vary

GOLDEN = ROOT / "tests" / "golden"
BATCH, TIME = 3, 7  # unlike each other and every size of the variants


def traced(config: ModelConfig, fused: bool = True) -> Shapes:
    model = Transformer(config).eval()
    model.blocks[0].attention.fused = fused
    with Shapes(model) as shapes:
        model(torch.arange(BATCH * TIME).view(BATCH, TIME))
    return shapes


def part(path: str, config: ModelConfig, fused: bool = True) -> Callable[[], Shapes]:
    return lambda: traced(config, fused)[path]


def decoding() -> Shapes:
    """A prompt, then one more token."""
    model = Transformer(vary("llama", n_layers=1, **GROUPED)).eval()
    cache = model.new_cache(BATCH, 11)
    tokens = torch.arange(BATCH * TIME).view(BATCH, TIME)
    with Shapes(model) as shapes, torch.no_grad():
        model(tokens, cache)
        model(tokens[:, -1:], cache)
    return shapes


COMPONENTS: dict[str, Callable[[], Shapes]] = {
    "norm-rms": part("norm", VARIANTS["rms-bias"]),
    "norm-layer": part("norm", VARIANTS["gpt2"]),
    "norm-cosine": part("norm", VARIANTS["cosine-bias"]),
    "mlp": part("blocks.0.mlp", VARIANTS["gpt2"]),
    "mlp-squared-relu": part("blocks.0.mlp", vary("llama", mlp=mlp("relu2", False))),
    "mlp-gated": part("blocks.0.mlp", VARIANTS["llama"]),
    "attention-multi-head": part("blocks.0.attention", VARIANTS["gpt2"]),
    "attention-grouped": part("blocks.0.attention", VARIANTS["gpt2-grouped"]),
    "attention-rope": part("blocks.0.attention", VARIANTS["llama-grouped"]),
    "attention-alibi": part("blocks.0.attention", VARIANTS["alibi"]),
    "attention-by-hand": part("blocks.0.attention", VARIANTS["llama-grouped"], fused=False),
    "attention-by-hand-alibi": part("blocks.0.attention", VARIANTS["alibi"], fused=False),
    "block": part("blocks.0", VARIANTS["llama"]),
    "block-post-norm": part("blocks.0", vary("llama", block=POST)),
    "block-parallel": part("blocks.0", vary("gpt2", block=PARALLEL)),
    "block-factored": part("blocks.0", VARIANTS["factored-alibi"]),
    "block-factored-head-norm": part("blocks.0", VARIANTS["factored-head-norm"]),
    "block-shaped": part("blocks.0", VARIANTS["sasp"]),
    "mixing-independent": part("blocks.0.attention.value_mixing", VARIANTS["factored-independent"]),
    "position-none": part("position", VARIANTS["no-position"]),
    "position-learned": part("position", VARIANTS["gpt2"]),
    "position-sinusoidal": part("position", vary("llama", position=SinusoidalConfig())),
    "position-rope": part("position", VARIANTS["llama"]),
    "position-alibi": part("position", vary("alibi", position=ALiBiConfig())),
    "model-gpt2": lambda: traced(vary("gpt2", n_layers=1)),
    "model-llama": lambda: traced(vary("llama", n_layers=1)),
    "decoding": decoding,
}


@pytest.mark.parametrize("name", COMPONENTS)
def test_the_table_is_as_it_was(name, request, seeded):
    shapes = COMPONENTS[name]()
    shapes.check()  # what is written down as right must be true
    printed, path = f"{shapes}\n", GOLDEN / f"{name}.txt"
    if request.config.getoption("--overwrite"):
        path.write_text(printed, encoding="utf-8", newline="\n")
    assert printed == path.read_text(encoding="utf-8"), "if the change is meant, run this file with --overwrite"


def test_every_golden_text_belongs_to_a_component():
    assert {path.stem for path in GOLDEN.glob("*.txt")} == set(COMPONENTS)


def test_tables_stay_within_their_width_and_name_no_place():
    for path in GOLDEN.glob("*.txt"):
        text = path.read_text(encoding="utf-8")
        assert max(map(len, text.splitlines())) <= 150
        assert ".py" not in text and str(ROOT) not in text
