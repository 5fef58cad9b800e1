"""What the studies of looking ahead have in common: small Llamas on tales, in settings that no timing changes."""

from config import Preset, ScheduleConfig, preset


def small_llama(width: int, n_layers: int, steps: int, learning_rate: float) -> Preset:
    """4 heads, vocabulary 512, batches of 16 × 128 tokens."""
    model, train = preset("llama-tiny")
    data = train.data.replace(tokenizer="bpe-512")
    return Preset(
        model.replace(vocab_size=512, width=width, n_heads=4, n_layers=n_layers),
        train.replace(
            data=data, steps=steps, batch_size=16, learning_rate=learning_rate, precision="bf16", compile="off",
            checkpoint_every=steps // 2, schedule=ScheduleConfig(warmup_steps=100),
        ),
    )  # fmt: skip
