"""One optimizer step of a Llama of 6 layers, width 256, 8 heads, on 16 × 256 tokens of vocabulary 2,048.

Ours with its default settings against Hugging Face's (eager fp32, and bf16 autocast with fused AdamW) and
x-transformers', all with clipping at 1.0. Peak memory is that of a fresh process each.
"""

import sys
from statistics import median

import numpy as np
import torch

from bench.memory import in_a_fresh_process, peak_of_steps
from bench.timing import alternate, ratios, table
from config import DataConfig, ModelConfig, TrainConfig
from lab.compute.choice import choose
from lab.compute.training_state import TrainingState
from lab.data.packing import TokenData
from lab.data.token_file import TokenFile

VOCABULARY, LENGTH, BATCH = 2048, 256, 16
CONFIG = ModelConfig(vocab_size=VOCABULARY, context_length=LENGTH, n_layers=6, n_heads=8, width=256)


def tokens() -> torch.Tensor:
    return torch.randint(VOCABULARY, (BATCH, LENGTH + 1))


def stepper(model, optimizer, loss_of, precision: str):
    """A call that does one whole step of another library's model."""

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = loss_of(tokens())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def our_state(model: ModelConfig, precision: str, compile: str = "off") -> TrainingState:
    """The start of a training of this model on random tokens."""
    stream = np.random.default_rng(0).integers(VOCABULARY, size=200 * BATCH * LENGTH, dtype=np.uint16)
    side = TokenFile("random", stream, n_documents=1, n_bytes=len(stream))
    config = TrainConfig(precision=precision, compile=compile, batch_size=BATCH, device="cpu")
    return TrainingState.start(model, config, TokenData(DataConfig(), None, side, side))


def our_stepper(state: TrainingState):
    """A call that does one whole step of ours, as `train` does it."""

    def step() -> None:
        state.backward(state.batch())
        state.clip()
        state.update(state.config.learning_rate)

    return step


def ours(precision: str = "auto", compile: str = "auto"):
    state = our_state(CONFIG, precision, compile)
    choice = choose(state.model, tokens(), state.config)
    state.progress.precision = choice.precision
    if choice.compiled:
        state.compile_losses()
    return our_stepper(state)


def hugging_face(precision: str, fused: bool):
    from transformers import LlamaConfig, LlamaForCausalLM

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=CONFIG.width, intermediate_size=CONFIG.mlp.hidden(CONFIG.width),
            num_hidden_layers=CONFIG.n_layers, num_attention_heads=CONFIG.n_heads, max_position_embeddings=1024,
            tie_word_embeddings=True, attn_implementation="sdpa", use_cache=False,
        )
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused or None)
    # one token more than ours sees: its targets are shifted inside, so both predict LENGTH tokens
    return stepper(model, optimizer, lambda ids: model(ids, labels=ids).loss, precision)


def x_transformers():
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    model = AutoregressiveWrapper(
        TransformerWrapper(
            num_tokens=VOCABULARY, max_seq_len=LENGTH, tie_embedding=True, use_abs_pos_emb=False,
            attn_layers=Decoder(
                dim=CONFIG.width, depth=CONFIG.n_layers, heads=CONFIG.n_heads, attn_dim_head=CONFIG.head_dim,
                rotary_pos_emb=True, ff_glu=True, ff_swish=True, ff_no_bias=True, ff_mult=8 / 3, use_rmsnorm=True,
                attn_flash=True,
            ),
        )
    )
    return stepper(model, torch.optim.AdamW(model.parameters(), lr=1e-3), model, "fp32")


CONTESTANTS = {
    "Hugging Face Llama, eager fp32": lambda: hugging_face("fp32", fused=False),
    "Hugging Face Llama, bf16 autocast, fused AdamW": lambda: hugging_face("bf16", fused=True),
    "x-transformers, rotary, fp32": x_transformers,
    "Glassbox, fp32, not compiled": lambda: ours("fp32", "off"),
    "Glassbox, bf16, not compiled": lambda: ours("bf16", "off"),
    "Glassbox, default settings (they choose bf16, compiled)": ours,
}


def measure_peak(name: str) -> float:
    import transformers.models.llama.modeling_llama  # noqa: F401 (no one's imports shall count)
    import x_transformers  # noqa: F401

    return peak_of_steps(CONTESTANTS[name])


def main(rounds: int = 9) -> None:
    seconds = alternate({name: build() for name, build in CONTESTANTS.items()}, rounds)
    plain, mixed = list(CONTESTANTS)[:2]
    against_plain, against_mixed = ratios(seconds, plain), ratios(seconds, mixed)
    rows = [
        [name, f"{BATCH * LENGTH / median(times):,.0f}", f"{against_plain[name]:.2f}", f"{against_mixed[name]:.2f}",
         f"{in_a_fresh_process('bench.training', name):.0f}"]
        for name, times in seconds.items()
    ]
    headings = ["training step", "tokens/s", "× HF fp32", "× HF bf16", "peak memory, MB"]
    print(table("Training, 6 layers × 256, T 256, vocabulary 2,048", headings, rows))


if __name__ == "__main__":
    print(measure_peak(sys.argv[1]))
