"""The whole model: tokens in, next-token logits out."""

from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config import ModelConfig
from modules import factored, future, multi_token, residual, shaped  # noqa: F401  each registers its block
from modules.attention import DotProductAttention
from modules.block import Block, Parts
from modules.cache import Cache
from modules.dropout import Dropout
from modules.heads import build_head
from modules.initialise import initialise
from modules.laws import check_ideas
from modules.logging_module import LoggingModule
from modules.lora import Adapter
from modules.losses import shift
from modules.norms import build_norm
from modules.positions import build_position
from modules.quantised import replace_layers
from settings.errors import ConfigError
from settings.registry import part


class Transformer(LoggingModule):
    """A decoder-only transformer built from the parts that its config names.

        tokens (B, T) ─ embedding ─ position ─ split ─ block × L ─ join ─ norm ─ head ─ logits (B, T, V)

    The blocks define the state between them: `split` makes it from the embeddings, and `join` reads it out.
    causal: whether no logit may depend on a later token.
    """

    causal = True

    def __init__(self, config: ModelConfig):
        super().__init__()
        if config.vocab_size is None:
            raise ConfigError(
                "vocab_size=None follows the tokenizer, but no tokenizer is known here, where a model is built or "
                "estimated by itself: give the number, as in config.replace(vocab_size=tokenizer.vocab_size)"
            )
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.embedding_scale = config.width**0.5 if config.embedding_scale else 1.0
        self.position = build_position(config)
        self.dropout = Dropout(config.dropout.embedding)
        norm, head = build_norm(config.norm, config.width), build_head(config)
        self.blocks = nn.ModuleList(part("block", config.block.kind).build_layers(config))
        self.norm, self.head = norm, head
        if config.tie_weights:
            head.tie(self.embedding.weight)
        if any(block.reads_unembedding for block in self.blocks):
            head.unembedding()  # raises ConfigError if there is none
        if config.qk_norm:
            check_norms(self.blocks)
        self.gradient_checkpointing = False
        initialise(self, config)
        if config.quantised:
            replace_layers(self, config.quantised)
        if config.lora:
            Adapter.attach(self, config.lora)
        check_ideas(self)

    @property
    def parts(self) -> Parts:
        """What the model has outside its blocks, for blocks that read it."""
        return Parts(self.embedding, self.norm, self.head)

    @property
    def axis_sizes(self) -> dict[str, int]:
        """The sizes of the axis letters that the config of this model determines."""
        config = self.config
        return {
            "V": config.vocab_size, "C": config.width, "F": config.mlp.hidden(config.width),
            "H": config.n_heads, "G": config.kv_heads, "D": config.head_dim,
        }

    @property
    def next_token_blocks(self) -> list[Block]:
        """The blocks that the next token's logits depend on, in the order of the pass: all but further heads.

        Analyses count these as the layers, from 1.
        """
        return [block for block in self.blocks if block.predicts_next]

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of tokens (B, T); with a cache, tokens continue what it holds."""
        return self.head(self.hidden(tokens, cache))  # (B, T, V)

    def hidden(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """What the head reads: (B, T, C)."""
        return self.read_out(self.state(tokens, cache))  # (B, T, C)

    def read_out(self, state) -> Tensor:
        """What the head reads, from the last block's state: (B, T, C)."""
        return self.norm(self.blocks[-1].join(state))  # (B, T, C)

    def state(self, tokens: Tensor, cache: Cache | None = None, visit: Callable | None = None):
        """The last block's state, in the form that the blocks define.

        visit: called with the state that each block returns; the next block, or the caller, gets what it returns.
        """
        n_tokens = tokens.shape[1]
        if cache is None:
            positions = key_positions = torch.arange(n_tokens, device=tokens.device)  # (T)
            causal, mask = True, None
        else:
            positions, key_positions, causal, mask = cache.begin(n_tokens, self.config.window)  # (…, T), (S), (…, T, S)
        limit = self.config.position_limit
        if key_positions.shape[0] > limit:
            raise ValueError(
                f"{key_positions.shape[0]} tokens are more than the {limit} positions this model accepts: "
                f"{self.config.further_positions}"
            )
        x = self.embedding(tokens) * self.embedding_scale  # (B, T, C)
        x = self.dropout(self.position.embed(x, positions))  # (B, T, C)
        place = self.position.place(positions, key_positions, causal, mask)
        place.window = self.config.window
        state = self.blocks[0].split(x)  # (…, C)
        caches = iter(cache.layers if cache is not None else ())
        for block in self.blocks:
            extra = {"parts": self.parts} if block.reads_parts else {}
            if (self.gradient_checkpointing or block.recomputed) and self.training and cache is None:
                state = checkpoint(block, state, place, use_reentrant=False, **extra)  # (…, C)
            else:
                state = block(state, place, *islice(caches, len(block.cached_heads)), **extra)  # (…, C)
            if visit is not None:
                state = visit(state)  # (…, C)
        if cache is not None:
            cache.advance(n_tokens)
        return state  # (…, C)

    def losses(self, windows: Tensor, visit: Callable | None = None) -> dict[str, Tensor]:
        """The named losses of windows (B, T+1), in nats; "loss" is the next token's, the same in every architecture.

        Training minimises their sum, weighted by `loss_weights`. A loss of weight 0 is only logged. visit: as in
        `state`.
        """
        inputs, targets = shift(windows)  # (B, T)
        state = self.state(inputs, visit=visit)  # (…, C)
        hidden, others = self.read_out(state), {}  # (B, T, C)
        for block in reversed(self.blocks):  # levels from the nearest
            others |= block.losses(state, windows, self.parts)
        del state  # frees memory for the next token's loss
        return {"loss": self.head.loss(hidden, targets)} | others  # ()

    def objective(self, losses: dict[str, Tensor]) -> Tensor:
        """What training minimises: the weighted sum of the losses."""
        return sum(weight * losses[name] for name, weight in self.loss_weights.items() if weight)  # ()

    @property
    def loss_weights(self) -> dict[str, float]:
        """The weight of each loss in training: 1 for the next token's."""
        weights = {"loss": 1.0}
        for block in reversed(self.blocks):
            weights |= block.loss_weights
        return weights

    def stored_tensors(self) -> dict[str, Tensor]:
        """What a file holds of this model, by name: parameters and persistent buffers, each once. Of a model with an
        adapter, the adapter alone."""
        if self.config.lora:
            return Adapter.of(self).tensors()
        tensors = self.state_dict(keep_vars=True)
        names = {id(tensor): name for name, tensor in reversed(tensors.items())}  # tied weights have several names
        return {name: tensor for name, tensor in tensors.items() if names[id(tensor)] == name}

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for `batch` sequences of up to `capacity` tokens, of this model's type and on its device."""
        heads = [n_heads for block in self.blocks for n_heads in block.cached_heads]
        return Cache(heads, batch, capacity, self.config.head_dim, like=self.embedding.weight)


def check_norms(blocks: nn.ModuleList) -> None:
    """Raises ConfigError where an attention has no norms of queries and keys."""
    for name, module in blocks.named_modules():
        if isinstance(module, DotProductAttention) and module.qk_norm is None:
            raise ConfigError(
                f"qk_norm=True, and blocks.{name} was made without norms: a block makes its attention by "
                "Attention.of(config), or calls add_norms(config) and its qk_norm; or leave qk_norm out"
            )
