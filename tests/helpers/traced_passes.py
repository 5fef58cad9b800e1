"""The passes through which the tests of the tracer trace a model: forwards, backwards, cached, by hand."""

import torch

from modules.transformer import Transformer
from tests.helpers.devices import DEVICE
from tests.helpers.variants import VARIANTS
from tracing.traces import Trace

BATCH, LENGTH = 5, 18  # with the lengths below different from every size in the variants


def shallow(variant: str, n_layers: int) -> Transformer:
    """The variant with so many layers, or as many as its block needs."""
    config = VARIANTS[variant]
    return Transformer(config.replace(n_layers=max(n_layers, config.block.layers_needed), context_length=20))


def tokens(model, length=LENGTH, batch=BATCH):
    return torch.randint(0, model.config.vocab_size, (batch, length))


def traced(model, run) -> Trace:
    with Trace(model) as shapes:
        run()
    return shapes


def cached(model):
    """Prompts of one length, of different lengths, and a single one: what decoding goes through."""
    ids = tokens(model)
    with torch.no_grad():
        for batch, lengths in ((BATCH, None), (BATCH, [12, 9, 6, 12, 8]), (1, None)):
            cache = model.new_cache(batch, 20)
            model(ids[:batch, :12], cache)
            if lengths:
                cache.keep(lengths)
            model(ids[:batch, :7], cache)
            model(ids[:batch, :1], cache)


def in_bfloat16(model):
    with torch.autocast(DEVICE, torch.bfloat16):
        model.objective(model.losses(tokens(model, LENGTH + 1))).backward()


def by_hand(model):
    for module in model.modules():
        if hasattr(module, "fused"):
            module.fused = False
    model(tokens(model))
    cached(model)


PASSES = {
    "forward": lambda model: model(tokens(model)),
    "losses and gradients": lambda model: model.objective(model.losses(tokens(model, LENGTH + 1))).backward(),
    "bfloat16": in_bfloat16,
    "cached": cached,
    "by hand": by_hand,
}


def everything(model) -> Trace:
    def run():
        for passes in PASSES.values():
            passes(model)

    return traced(model, run)
