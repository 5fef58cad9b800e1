"""One whole training step of each contestant, on random tokens: a call that can be timed."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from bench.rivals import hugging_face, nanogpt
from config import ARCHITECTURES, DataConfig, ModelConfig, TrainConfig
from lab.compute.allocator import keep_freed_memory
from lab.compute.choice import choose
from lab.compute.readings import Readings
from lab.compute.schedule import learning_rate
from lab.compute.training_state import TrainingState
from lab.data.packing import TokenData
from lab.data.token_file import TokenFile

LONG = 100_000  # steps: a training for which compiling pays


class Size(NamedTuple):
    """How large a model is, and its batch."""

    n_layers: int
    n_heads: int
    width: int
    length: int
    batch: int
    vocabulary: int = 2048

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.batch * self.length

    def model(self, architecture: str) -> ModelConfig:
        parts = ARCHITECTURES[architecture]
        if architecture == "gpt2":  # nanoGPT trains it without biases
            parts = parts | {"bias": False, "norm": parts["norm"].replace(bias=False)}
        return ModelConfig(
            vocab_size=self.vocabulary, context_length=self.length, n_layers=self.n_layers, n_heads=self.n_heads,
            width=self.width, **parts,
        )

    def __str__(self) -> str:
        return f"{self.n_layers} × {self.width}, T {self.length:,}, batch {self.batch}, vocabulary {self.vocabulary:,}"


def random_tokens(size: Size) -> np.ndarray:
    return np.random.default_rng(0).integers(size.vocabulary, size=50 * size.tokens, dtype=np.uint16)


def random_windows(stream: np.ndarray, size: Size, device: str) -> Callable[[], Tensor]:
    """A call that takes windows (B, T+1) from random places of a stream and sends them to the device."""

    def windows() -> Tensor:
        starts = torch.randint(len(stream) - size.length, (size.batch,)).tolist()
        rows = np.stack([stream[start : start + size.length + 1] for start in starts])
        made = torch.from_numpy(rows.astype(np.int64))
        return made.pin_memory().to(device, non_blocking=True) if device == "cuda" else made

    return windows


class Way(NamedTuple):
    """How a rival computes."""

    precision: str = "fp32"
    compiled: bool = False
    device: str = "cpu"


def stepper(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss_of: Callable[[Tensor, Tensor], Tensor],
    windows: Callable[[], Tensor], way: Way,
) -> Callable[[], None]:
    """A call that takes one whole step: batch, forward, backward, clipping at 1.0, update."""
    if way.device == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32
    compute = torch.compile(loss_of) if way.compiled else loss_of

    def step() -> None:
        batch = windows()
        with torch.autocast(way.device, torch.bfloat16, enabled=way.precision == "bf16"):
            loss = compute(batch[:, :-1], batch[:, 1:])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def nano_gpt(size: Size, way: Way) -> Callable[[], None]:
    """nanoGPT's GPT-2, its vocabulary padded to a multiple of 64, as it pads GPT-2's 50,257 to 50,304."""
    rows = -(-size.vocabulary // 64) * 64
    config = nanogpt.NanoConfig(rows, size.length, size.n_layers, size.n_heads, size.width)
    model = nanogpt.NanoGPT(config).to(way.device)
    return stepper(model, nanogpt.build_adamw(model), model, random_windows(random_tokens(size), size, way.device), way)


def of_transformers(size: Size, way: Way, architecture: str = "llama", fused: bool = True) -> Callable[[], None]:
    """Hugging Face's Llama or GPT-2."""
    build = {"llama": hugging_face.build_llama, "gpt2": hugging_face.build_gpt2}[architecture]
    model = build(size.model(architecture)).to(way.device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=fused or None)

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        return hugging_face.mean_loss(model, tokens, targets)

    return stepper(model, optimizer, loss_of, random_windows(random_tokens(size), size, way.device), way)


def x_transformers(size: Size, way: Way) -> Callable[[], None]:
    from x_transformers import AutoregressiveWrapper, Decoder, TransformerWrapper

    model = AutoregressiveWrapper(TransformerWrapper(
        num_tokens=size.vocabulary, max_seq_len=size.length, tie_embedding=True, use_abs_pos_emb=False,
        attn_layers=Decoder(
            dim=size.width, depth=size.n_layers, heads=size.n_heads, attn_dim_head=size.width // size.n_heads,
            rotary_pos_emb=True, ff_glu=True, ff_swish=True, ff_no_bias=True, ff_mult=8 / 3, use_rmsnorm=True,
            attn_flash=True,
        ),
    ))

    def loss_of(tokens: Tensor, targets: Tensor) -> Tensor:
        return model(torch.cat((tokens, targets[:, -1:]), dim=1))  # it shifts by itself

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    return stepper(model, optimizer, loss_of, random_windows(random_tokens(size), size, "cpu"), way)


def our_state(model: ModelConfig, batch: int, **settings) -> TrainingState:
    """The start of a training of this model on random tokens. settings: of TrainConfig."""
    size = Size(model.n_layers, model.n_heads, model.width, model.context_length, batch, model.vocab_size)
    stream = random_tokens(size)
    side = TokenFile("random", stream, n_documents=1, n_bytes=len(stream))
    config = TrainConfig(**{"batch_size": batch, "device": "cpu", "steps": LONG} | settings)
    return TrainingState.start(model, config, TokenData(DataConfig(), None, side, side))


def ours(model: ModelConfig, batch: int, settings: dict) -> Callable[[], None]:
    """A step of ours as `train` computes it with these settings of TrainConfig, in a long training."""
    return computing(our_state(model, batch, **settings))


def computing(state: TrainingState) -> Callable[[], None]:
    """A call that takes a step of this training, with precision and compiling as its settings choose them."""
    keep_freed_memory()
    with state.seeded():
        choice = choose(state.learner, next(state.batch()), state.config)
    state.progress.precision = choice.precision
    if choice.compiled:
        state.compile_losses()
    return our_stepper(state)


def our_stepper(state: TrainingState) -> Callable[[], None]:
    """A call that does one whole step of ours, in the order in which `train` does it, and reads its numbers.

    Like `train`, it lets this process keep what it frees.
    """
    keep_freed_memory()

    def step() -> None:
        rate = learning_rate(state.progress.step, state.config)
        readings = Readings(state.backward(state.batch()) | {"gradient_norm": state.clip()})
        if state.runs_ahead:
            state.update(rate)
            state.prepare_batch()
        readings.read()
        if not state.runs_ahead:
            state.update(rate)

    return step
