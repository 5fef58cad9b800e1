"""What each part of a model costs, in functions named and ordered like the classes of `modules/`. Imports no torch.

Parameters and multiply-adds are exact. Bytes are those of eager PyTorch on a CPU, in fp32 or under bf16 autocast: which
tensors a module keeps for its backward pass, and how many more that pass works with. A new kind of block or position
joins by its entry in BLOCKS or POSITIONS.
"""

from dataclasses import dataclass
from typing import NamedTuple

from config import ModelConfig

FP32 = 4  # bytes: weights, gradients, AdamW's moments and the residual stream, in every precision
QUERY_BLOCK, LONGEST_WRITTEN_OUT, LOSS_CHUNK = 128, 1024, 1024  # BLOCK and LONGEST of kernels.py, CHUNK of losses.py


class Pass(NamedTuple):
    """Sequences that go through the model at once, tokens in each, bytes of a value inside the sub-layers."""

    sequences: int
    length: int
    value: int

    @property
    def tokens(self) -> int:
        return self.sequences * self.length

    def copies(self, parameters: int) -> int:
        """Bytes of the low-precision copies that autocast makes of a layer's weights and holds until its backward."""
        return self.value * parameters if self.value < FP32 else 0


@dataclass(frozen=True, kw_only=True)
class Part:
    """The counts of one module.

    parameters, and buffers in values; products: multiply-adds per token, of which unread are spared when a
    checkpointed block is computed again; cached: values per token in the key-value cache. In bytes: kept for the
    backward pass, copies of weights kept with them, working: what the module's backward pass adds while it runs,
    gradient: how much of its parameters' gradients exists after it (None: all).
    """

    parameters: int = 0
    buffers: int = 0
    products: int = 0
    unread: int = 0
    cached: int = 0
    kept: int = 0
    copies: int = 0
    working: int = 0
    gradient: int | None = None

    @property
    def gradients(self) -> int:
        return FP32 * self.parameters if self.gradient is None else self.gradient


def norm(config: ModelConfig, run: Pass, value: int = FP32) -> Part:
    """value: bytes of the input's numbers, below 4 only for a norm that follows a sub-layer under autocast."""
    weight, numbers, rows = config.norm.weight, run.tokens * config.width, FP32 * run.tokens
    kept, tensors = {
        "rms": (FP32 * numbers * (1 + weight) + rows, 3),  # x; x/rms where a weight follows; 1/rms
        "layer": (value * numbers + 2 * rows, 2),  # x; mean; 1/sd
        "cosine": (value * numbers * (1 + weight) + 2 * rows, 4),  # x; its direction likewise; two lengths
    }[config.norm.kind]
    parameters = config.width * (weight + config.norm.bias)
    return Part(parameters=parameters, kept=kept, working=tensors * FP32 * numbers)


POSITIONS = {
    "none": lambda config: Part(),
    "learned": lambda config: Part(parameters=config.position_limit * config.width),
    "sinusoidal": lambda config: Part(buffers=config.position_limit * config.width),
    "rope": lambda config: Part(buffers=2 * config.position_limit * config.head_dim),
    "alibi": lambda config: Part(buffers=config.n_heads),
}
TURNING = {"rope"}  # the encodings that make q and k anew
EXTRA_DIMENSIONS = {"alibi": {4: 1, 2: 3}}  # of a head, which carry the bias; by the bytes of a value


def attention(config: ModelConfig, run: Pass) -> Part:
    width, projected = config.width, config.width + 2 * config.kv_heads * config.head_dim
    parameters = width * (projected + width) + config.bias * (projected + width)
    kept, working = attention_kernel(config, run)
    return Part(
        parameters=parameters,
        products=width * (projected + width) + 2 * run.length * width,
        cached=2 * config.kv_heads * config.head_dim,
        kept=run.tokens * (run.value * width + kept) + dropped(config, run),
        copies=run.copies(parameters),
        working=run.tokens * working,
    )


def attention_kernel(config: ModelConfig, run: Pass) -> tuple[int, int]:
    """Bytes per token kept between the two projections, result included, and what the backward pass works with."""
    value, heads, length, width = run.value, config.n_heads, run.length, config.width
    extra = EXTRA_DIMENSIONS.get(config.position.kind, {}).get(value, 0)
    q, k = heads * (config.head_dim + extra), config.kv_heads * (config.head_dim + extra)  # v is as large as k
    if config.dropout.attention:
        # PyTorch's formula, in float32: q, k, v with the heads of q; weights, noise, their product; then the result
        return FP32 * 3 * (q + heads * length) + value * width, FP32 * (heads * length + q)
    if value < FP32 and length <= LONGEST_WRITTEN_OUT:
        # CausalAttention: q, k, v with the heads of q; a block of weights for each block of queries; then the result
        ends = [min(start + QUERY_BLOCK, length) for start in range(0, length, QUERY_BLOCK)]
        blocks = [(end - start) * end for start, end in zip([0, *ends], ends)]
        # gradients of the scores, two of this block's size or the last one's and one of the other's; of q, k and v
        scores = max(now + last + max(now, last) for last, now in zip([0, *blocks], blocks))
        kept = value * (3 * q + heads * sum(blocks) // length + width)
        return kept, value * (heads * scores // length + 2 * q) + FP32 * 2 * q
    # PyTorch's fused kernel: q, k, v, result, log-sum-exp; what was projected lives on where v is a view of it
    if extra:
        return value * (2 * q + 2 * k + width) + FP32 * heads, value * (3 * q + 2 * k - width)
    turned = q + k if config.position.kind in TURNING else 0
    return value * (q + 2 * k + turned + q) + FP32 * heads, value * (2 * q + 2 * k)


HIDDEN = {  # tensors of F numbers, plain and gated: those kept, and those that the backward pass adds
    "relu": ((1, 4), (2, 2)),
    "relu2": ((2, 5), (3, 2)),
    **dict.fromkeys(("gelu", "gelu_tanh", "silu", "mish"), ((2, 4), (1, 2))),
}


def mlp(config: ModelConfig, run: Pass, input_kept: bool = True, result_needed: bool = True) -> Part:
    """input_kept: not where another part already keeps it; result_needed: whether what follows keeps the result."""
    width, hidden, gated = config.width, config.mlp.hidden(config.width), config.mlp.gated
    products = width * hidden * (3 if gated else 2)
    parameters = products + config.bias * (hidden * (2 if gated else 1) + width)
    kept, working = (tensors[gated] * hidden for tensors in HIDDEN[config.mlp.activation])
    return Part(
        parameters=parameters,
        products=products,
        unread=0 if result_needed else width * hidden,
        kept=run.tokens * run.value * (width * input_kept + kept) + dropped(config, run),
        copies=run.copies(parameters),
        working=run.tokens * run.value * working,
    )


def dropped(config: ModelConfig, run: Pass) -> int:
    """The noise that dropout keeps of a sub-layer's result."""
    return run.tokens * run.value * config.width if config.dropout.residual else 0


def residual_block(config: ModelConfig, run: Pass) -> dict[str, Part]:
    parallel, post_norm = config.block.parallel, config.block.post_norm
    shared = parallel and run.value == FP32  # autocast casts the normed x anew for each reader
    result_needed = post_norm or config.dropout.residual > 0
    after = norm(config, run, run.value) if post_norm else Part()
    return {
        "attention_norm": norm(config, run),
        "attention": attention(config, run),
        "attention_post_norm": after,
        "mlp_norm": Part() if parallel else norm(config, run),
        "mlp": mlp(config, run, input_kept=not shared, result_needed=result_needed),
        "mlp_post_norm": after,
    }


BLOCKS = {"residual": residual_block}


def head(config: ModelConfig, run: Pass) -> Part:
    """The head with its loss, which HeadLoss computes with the gradients of its input and weight, kept from then on."""
    table = config.vocab_size * config.width
    return Part(
        parameters=0 if config.tie_weights else table,
        products=table,
        kept=run.tokens * run.value * config.width + FP32 * table,
        working=run.tokens * run.value * config.width,
        gradient=FP32 * table,
    )


def loss_working(config: ModelConfig, run: Pass) -> int:
    """Bytes that HeadLoss works with: the normed x, a copy of the weight, and several forms of one chunk of logits."""
    low = run.value if run.value < FP32 else 0  # a low-precision copy beside the float32 numbers
    table = config.vocab_size * config.width
    rows = min(LOSS_CHUNK, run.tokens)
    softmax = 2 * FP32 * config.vocab_size * rows  # logits and log p
    weight_gradient = (FP32 + low) * (config.vocab_size * rows + table)
    return run.tokens * config.width * (FP32 + low) + low * table + max(softmax, weight_gradient)


Sections = list[tuple[str, dict[str, Part]]]


def sections(config: ModelConfig, run: Pass) -> Sections:
    """The model's parts in the order of the forward pass: a prefix of their names, and the parts."""
    table = config.vocab_size * config.width
    noise = FP32 * run.tokens * config.width if config.dropout.embedding else 0
    tied = dict(gradient=0, working=FP32 * table) if config.tie_weights else {}  # its gradient joins the head's
    start = {
        "embedding": Part(parameters=table, kept=noise, **tied),
        "position": POSITIONS[config.position.kind](config),
    }
    blocks = [(f"blocks.{i}.", BLOCKS[config.block.kind](config, run)) for i in range(config.n_layers)]
    return [("", start), *blocks, ("", {"norm": norm(config, run), "head": head(config, run)})]


def count(parts: Sections, what: str) -> int:
    return sum(getattr(part, what) for _, section in parts for part in section.values())
