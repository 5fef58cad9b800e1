"""Values that are impossible together: a sentence for each, with its remedy.

The settings classes of config.py take these functions as their methods `problems` and `model_problems`.
"""

import codecs
from collections.abc import Iterator

from settings.messages import short

MOST_MIXED_STEPS = 10**7  # The rows of each source are counted for all steps before the first one.


def learned_in_model(position, model) -> Iterator[str]:
    if model.max_positions not in (None, model.context_length):
        yield "learned positions end at context_length: leave max_positions out, or choose another encoding"


def sinusoidal_in_model(position, model) -> Iterator[str]:
    if model.width % 2:
        yield f"sinusoidal positions come in pairs: width={model.width} must be even"


def rope_in_model(position, model) -> Iterator[str]:
    if not model.width % model.n_heads and model.head_dim % 2:
        yield f"RoPE turns pairs: width/n_heads={model.head_dim} must be even; change width or n_heads"


def alibi_in_model(position, model) -> Iterator[str]:
    if position.slopes is not None and len(position.slopes) != model.n_heads:
        yield f"ALiBi has {len(position.slopes)} slopes for n_heads={model.n_heads}; give one per head"


def factored(block) -> Iterator[str]:
    usual = type(block).__dataclass_fields__["mixing_init"].default
    if block.value_mixing == block.output_mixing == "identity" and block.mixing_init != usual:
        yield f"mixing_init={block.mixing_init!r} would start nothing: both mixings are the identity; leave it out"


def factored_in_model(block, model) -> Iterator[str]:
    yield from one_group_per_head(block, model)
    if block.head_norm and model.norm.kind == "layer" and model.head_dim == 1:
        yield "head_norm of layer norms needs heads of 2 channels or more: one by itself is always 0"


def shaped_in_model(block, model) -> Iterator[str]:
    yield from one_group_per_head(block, model)


def future(block) -> Iterator[str]:
    if block.loss_weight == 0 and block.of_vocabulary:
        yield f"loss_weight=0 would leave the prediction of a {block.predicts} untrained: give it some weight"
    if block.share and block.levels == 1:
        yield "share=True has nothing to share with one level: leave it out, or raise levels"
    if block.share and block.pool in ("sum", "mean", "max") and not (block.norm_before or block.linear_after):
        yield f"share=True shares nothing: pool {block.pool!r} has no weights; leave it out, or set linear_after"


def future_in_model(block, model) -> Iterator[str]:
    parameterless = block.pool in ("sum", "mean", "max") and not block.linear_after
    if block.share and parameterless and not (model.norm.weight or model.norm.bias):
        yield "block.share has nothing to share: the pool and the norm have no weights; leave it out"
    if model.n_layers < block.layers_needed:
        yield (
            f"{block.levels} levels need n_layers={block.layers_needed} or more (a body, one for each level, the "
            f"last), not {model.n_layers}; raise n_layers, or lower block.levels"
        )
    if block.look_ahead >= model.context_length:
        yield (
            f"{block.levels} levels of factor {block.factor} look {block.look_ahead} tokens ahead, which must be "
            f"below context_length={model.context_length}; lower block.levels or block.factor, or raise the context"
        )


def multi_token_in_model(block, model) -> Iterator[str]:
    if model.n_layers < block.layers_needed:
        yield (
            f"{block.heads} heads need n_layers={block.layers_needed} or more (a trunk, a layer for each head), not "
            f"{model.n_layers}; raise n_layers, or lower block.heads"
        )
    if block.heads >= model.context_length:
        yield f"{block.heads} heads look as far as context_length={model.context_length}; lower block.heads"


def model(model) -> Iterator[str]:
    if model.width % model.n_heads:
        yield f"n_heads={model.n_heads} must divide width={model.width}; change one of them"
    if model.n_heads % model.kv_heads:
        yield f"n_kv_heads={model.n_kv_heads} must divide n_heads={model.n_heads}"
    yield from model.position.model_problems(model)
    yield from model.block.model_problems(model)
    if model.max_positions is not None and model.max_positions < model.context_length:
        yield f"max_positions={model.max_positions} must be at least context_length={model.context_length}"
    if model.window is not None and model.window > model.context_length:
        yield (
            f"window={model.window} is more than context_length={model.context_length}, so that no token would miss "
            "any; lower window, or leave it out"
        )
    if model.logit_cap is not None and model.head.kind != "linear":
        yield f"logit_cap caps a linear head, and a head of kind {model.head.kind!r} is another: leave one of them out"
    if model.zero_init and getattr(model.block, "post_norm", False):
        yield (
            "zero_init would be undone by block.post_norm: after one step its norms bring what was 0 to full size; "
            "leave one of them out"
        )


def data(data) -> Iterator[str]:
    if data.validation_fraction >= 1:
        yield f"validation_fraction must lie between 0 and 1, both excluded, not {data.validation_fraction}"
    if not data.source.strip():
        yield "source is empty; name a built-in set such as 'tales', or a file, folder or glob"
    if data.tokens_per_epoch is not None and not data.hub.streamed:
        yield "tokens_per_epoch belongs to a streamed set; leave it out, or set hub.streamed"
    if data.mixture.sources and data.source != "tales":
        yield f"source={data.source!r} stands beside mixture.sources; leave it out, or put it among them"
    if data.encoding is not None and not is_text_encoding(data.encoding):
        yield f"encoding {short(data.encoding)} is none that Python knows; there is 'cp1252', 'shift_jis', ..."
    if not all(pattern.strip("/") for pattern in (*data.include, *data.exclude)):
        yield "a pattern of include or exclude is empty; leave it out, or give one such as '**/*.md'"


def hub(hub) -> Iterator[str]:
    for name in ("subset", "split", "revision"):
        if getattr(hub, name) is not None and not getattr(hub, name).strip():
            yield f"hub.{name} is empty; name one, or leave it out"


def is_text_encoding(name: str) -> bool:
    """Whether Python can decode text by that name, bit by bit."""
    try:
        return codecs.getincrementaldecoder(name)().decode("a".encode(name), final=True) == "a"
    except (LookupError, ValueError, TypeError):  # unknown, not from text to bytes, or only of whole texts
        return False


def at_once(train) -> int:
    """Sequences that pass the model at once. Where "auto" has not been settled yet, all of the batch."""
    return train.batch_size if train.micro_batch_size in (None, "auto") else train.micro_batch_size


def accumulation(train) -> int:
    """How many micro-batches a step has."""
    return train.batch_size // train.at_once


def train(train) -> Iterator[str]:
    if train.batch_size % train.at_once:
        yield f"micro_batch_size={train.micro_batch_size} must divide batch_size={train.batch_size}"
    used = train.warmup_steps + train.schedule.flat_steps + train.schedule.cycles
    if used > train.steps:
        yield (
            f"warm-up, flat part and one step per cycle take {used} of steps={train.steps}; "
            "lower schedule.warmup_steps or schedule.flat_steps, or train longer"
        )
    if train.data.mixture.sources and train.steps > MOST_MIXED_STEPS:
        yield f"a mixture is planned for {MOST_MIXED_STEPS:,} steps at most, not {train.steps:,}"
    if train.compile == "on" and train.dropout_final != 1:
        yield "compile 'on' would compile each new dropout rate again; choose 'off', or leave dropout_final at 1"


def one_group_per_head(block, model) -> Iterator[str]:
    if model.n_kv_heads not in (None, model.n_heads):
        yield (
            f"a {block.kind} block's values are the heads of its stream: n_kv_heads={model.n_kv_heads} must be "
            f"n_heads={model.n_heads}; leave it out, or choose the residual block"
        )


def further_positions(model) -> str:
    """Why the model accepts no more positions, and what to do for more: the end of an error message."""
    if model.position.ends_with_context:
        return (
            "learned positions end at context_length, and the model has no vector for a later one; for longer "
            "texts train a model with RoPE, ALiBi, sinusoidal or no positions"
        )
    return (
        f"it was trained on context_length={model.context_length}, but no weight depends on its max_positions; for "
        "more, open the run with run.load_model(max_positions=N), or build it with config.replace(max_positions=N)"
    )
