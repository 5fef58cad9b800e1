"""What each part of a model costs, in functions named and ordered like the classes of `modules/`. Imports no torch.

Parameters and multiply-adds are exact. Bytes are those of eager PyTorch on a CPU, in fp32 or under bf16 autocast: which
tensors a module keeps for its backward pass, and how many more that pass works with. A new kind of position joins by
its entry in POSITIONS, one of block by its entry in model_costs.BLOCKS.
"""

from dataclasses import dataclass
from typing import NamedTuple

from config import ModelConfig

FP32 = 4  # bytes: weights, gradients, AdamW's moments and the residual stream, in every precision
QUERY_BLOCK, LONGEST_WRITTEN_OUT, LOSS_CHUNK = 64, 1024, 1024  # BLOCK and LONGEST of kernels.py, CHUNK of losses.py
LONGEST_TILE = 512  # queries, and keys, that PyTorch's fused kernel takes at once in its backward pass


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
    checkpointed block is computed again, and constant in the backward pass, where a factor has no gradient (below 0:
    where that pass computes some anew); in_losses: those that further losses add to training, both ways; cached:
    values per token in the key-value cache. In bytes: kept for the backward pass, copies of weights kept with them,
    working: what the module's backward pass adds while it runs, gradient: how much of its parameters' gradients exists
    after it (None: all).
    """

    parameters: int = 0
    buffers: int = 0
    products: int = 0
    unread: int = 0
    constant: int = 0
    in_losses: float = 0
    cached: int = 0
    kept: int = 0
    copies: int = 0
    working: int = 0
    gradient: int | None = None

    @property
    def gradients(self) -> int:
        return FP32 * self.parameters if self.gradient is None else self.gradient


def norm(config: ModelConfig, run: Pass, value: int = FP32, heads: int | None = None) -> Part:
    """value: bytes of the input's numbers, below 4 only for a norm that follows a sub-layer under autocast.

    heads: as many as are normed each by itself, and then weighted together.
    """
    weight, numbers, rows = config.norm.weight, run.tokens * config.width, FP32 * run.tokens * (heads or 1)
    kept, tensors = {
        "rms": (FP32 * numbers * (1 + weight) + rows, 3),  # x; x/rms where a weight follows; 1/rms
        "layer": (value * numbers + 2 * rows + (FP32 * numbers * weight if heads else 0), 2),  # x; mean; 1/sd
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


class Kernel(NamedTuple):
    """Bytes that attention without its projections keeps, and that its backward pass works with.

    saves_result: whether the result is among what is kept; copies_result: whether joining the heads copies it.
    """

    kept: int
    working: int
    saves_result: bool
    copies_result: bool


def attention_kernel(config: ModelConfig, run: Pass, first: int = 0, each: int = 1) -> Kernel:
    """For queries that see `first` keys, and `each` more of every position up to their own; as in kernels.py."""
    value, heads, length, biased = run.value, config.n_heads, run.length, config.position.kind in EXTRA_DIMENSIONS
    plain, keys = (first, each) == (0, 1), first + each * length
    extra = EXTRA_DIMENSIONS[config.position.kind][value] if biased and plain else 0
    q = run.tokens * heads * (config.head_dim + extra)
    k = run.sequences * keys * config.kv_heads * (config.head_dim + extra)  # v is as large
    repeated = k * heads // config.kv_heads  # k with the heads of q
    if config.dropout.attention:
        # PyTorch's formula, in float32: q, k, v; weights, noise, their product
        weights = run.tokens * heads * keys
        return Kernel(FP32 * (q + 2 * repeated + 3 * weights), FP32 * (weights + q), False, True)
    if value < FP32 and keys <= LONGEST_WRITTEN_OUT and (plain or not biased):
        return written_out_kernel(run, heads, q, repeated, first, each)
    # PyTorch's fused kernel: q, k, v, result, log-sum-exp; the mask in the type of q
    mask = 0 if plain else length * keys * (heads if biased else 1)
    working = value * ((3 * q + 2 * k - run.tokens * config.width) if extra else (2 * q + 2 * k))
    scores = FP32 * min(LONGEST_TILE, length) * min(LONGEST_TILE, keys)  # a tile of them
    return Kernel(value * (2 * q + 2 * k + mask) + FP32 * run.tokens * heads, working + scores, True, extra > 0)


def written_out_kernel(run: Pass, heads: int, q: int, k: int, first: int, each: int) -> Kernel:
    """CausalAttention: q, k, v with the heads of q; a block of weights for each block of queries."""
    value, rows = run.value, run.sequences * heads
    ends = [min(start + QUERY_BLOCK, run.length) for start in range(0, run.length, QUERY_BLOCK)]
    seen = [first + each * end for end in ends]
    weights = [rows * (end - start) * keys for start, end, keys in zip([0, *ends], ends, seen)]
    kept = value * (q + 2 * k + sum(weights))
    # for each block, gradients of the scores: two of its size or the last one's, with either one of the other's, or
    # the gradient of the keys or values that it sees, which is cast to be added up in float32
    working = max(
        2 * value * max(last, now) + max(value * min(last, now), (value + FP32) * k * keys // seen[-1])
        for last, now, keys in zip([0, *weights], weights, seen)
    )
    return Kernel(kept, working + 2 * value * q + 2 * FP32 * k, False, True)


def attention(config: ModelConfig, run: Pass) -> Part:
    width, key_width = config.width, config.kv_heads * config.head_dim
    projected = width + 2 * key_width
    parameters = width * (projected + width) + config.bias * (projected + width)
    kernel = attention_kernel(config, run)
    # where v is a view of what was projected, all of that lives on beside the turned q and k
    turned = width + key_width if config.position.kind in TURNING and not kernel.copies_result else 0
    return Part(
        parameters=parameters,
        products=width * (projected + width) + 2 * run.length * width,
        cached=2 * key_width,
        kept=run.tokens * run.value * (width + turned + width * kernel.copies_result)
        + kernel.kept
        + dropped(config, run),
        copies=run.copies(parameters),
        working=kernel.working,
    )


MIXINGS = {  # parameters, and multiply-adds per token
    "identity": lambda heads, dim: (0, 0),
    "kronecker": lambda heads, dim: (heads**2, heads**2 * dim),
    "independent": lambda heads, dim: (heads * dim**2, heads * dim**2),
    "dense": lambda heads, dim: ((heads * dim) ** 2, (heads * dim) ** 2),
}


def factored_attention(config: ModelConfig, run: Pass) -> Part:
    width, block, kernel = config.width, config.block, attention_kernel(config, run)
    mixings = [MIXINGS[kind](config.n_heads, config.head_dim) for kind in (block.value_mixing, block.output_mixing)]
    parameters = 2 * width * (width + config.bias) + sum(own for own, _ in mixings)
    # kronecker copies what it mixes; the others keep it as it is, which for the values is xt, and one for all layers
    # where that is frozen; the identity keeps nothing
    shared = block.frozen_tokens and run.value == FP32
    values = {"identity": 0, "kronecker": 1}.get(block.value_mixing, 0 if shared else 1)
    result = {"identity": 0, "kronecker": 1}.get(block.output_mixing, int(kernel.copies_result))
    if shared and block.value_mixing == "identity" and not kernel.copies_result:
        values = -1  # v is xt, and counted by the kernel
    return Part(
        parameters=parameters,
        products=2 * width**2 + 2 * run.length * width + sum(products for _, products in mixings),
        cached=2 * width,
        kept=run.tokens * run.value * width * (1 + values + result) + kernel.kept + dropped(config, run),
        copies=run.copies(parameters),
        working=kernel.working + run.tokens * run.value * width,  # the result's gradient on its way to the kernel
    )


def shaped_attention(config: ModelConfig, run: Pass) -> Part:
    """After the MLP, which in float32 keeps the same normed x."""
    width, heads, kernel = config.width, config.n_heads, attention_kernel(config, run)
    stream = run.tokens * width
    parameters = 2 * width * (width + config.bias) + 3 * heads
    # for the queries x, in float32 that of the MLP; x itself where autocast made others of it
    own = (FP32 + run.value) * stream if run.value < FP32 else 0
    # v of both kernels is x; each result is kept for its gain; by PyTorch's formula, the weights alone of the centre
    views = run.value * stream if not kernel.copies_result and run.value == FP32 else 0
    results = 0 if kernel.saves_result else run.value * stream
    weights = FP32 * heads * run.length * run.tokens if config.dropout.attention else 0
    return Part(
        parameters=parameters,
        products=2 * width**2 + 4 * run.length * width,
        constant=3 * run.length * width,  # scores at query-key products of 0 have no gradient; C·v has that of v alone
        cached=2 * width,
        kept=own + kernel.kept + (weights or kernel.kept) + 2 * (results - views),
        copies=run.copies(parameters - 3 * heads),
        # the gradients of own and read; with dropout more going forward, where the centre's weights and noise are made
        working=max(kernel.working + (2 * FP32 * stream if kernel.saves_result else 0), 3 * weights),
    )


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


def factored_block(config: ModelConfig, run: Pass) -> dict[str, Part]:
    stream_norm = norm(config, run, heads=config.n_heads if config.block.head_norm else None)
    return {
        "attention_norm": stream_norm,
        "attention": factored_attention(config, run),
        "mlp_norm": stream_norm,
        "mlp": mlp(config, run, result_needed=config.dropout.residual > 0),
    }


def shaped_block(config: ModelConfig, run: Pass) -> dict[str, Part]:
    return {
        "norm": norm(config, run),
        "mlp": mlp(config, run),
        "mlp_gain": Part(parameters=1, kept=run.tokens * run.value * config.width),
        "attention": shaped_attention(config, run),
    }
