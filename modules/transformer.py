"""The whole model: tokens in, next-token logits out."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from config import ModelConfig
from modules.blocks import build_block
from modules.cache import Cache
from modules.dropout import Dropout
from modules.initialise import initialise
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.losses import next_token_loss, shift
from modules.norms import build_norm
from modules.positions import build_position


class Transformer(LoggingModule):
    """A decoder-only transformer built from the parts that its config names.

        tokens (B, T) ─ embedding ─ position ─ split ─ block × L ─ join ─ norm ─ head ─ logits (B, T, V)

    The state between blocks is theirs to define: `split` makes it from the embeddings and `join` reads it out.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.width)
        self.embedding_scale = config.width**0.5 if config.embedding_scale else 1.0
        self.position = build_position(config)
        self.dropout = Dropout(config.dropout.embedding)
        self.blocks = nn.ModuleList(build_block(config) for _ in range(config.n_layers))
        self.norm = build_norm(config.norm, config.width)
        self.head = Linear(config.width, config.vocab_size, bias=False)
        if config.tie_weights:
            self.head.weight = self.embedding.weight
        self.gradient_checkpointing = False
        initialise(self)

    @property
    def axis_sizes(self) -> dict[str, int]:
        """What the letters of the axis comments mean in this model, as far as its config says."""
        config = self.config
        return {
            "V": config.vocab_size, "C": config.width, "F": config.mlp.hidden(config.width), "L": config.n_layers,
            "H": config.n_heads, "G": config.kv_heads, "D": config.head_dim,
        }  # fmt: skip

    def forward(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """Logits (B, T, V) of the token after each of tokens (B, T); with a cache, tokens continue what it holds."""
        return self.head(self.hidden(tokens, cache))  # (B, T, V)

    def hidden(self, tokens: Tensor, cache: Cache | None = None) -> Tensor:
        """What the head reads: (B, T, C)."""
        n_tokens = tokens.shape[1]
        if cache is None:
            positions = key_positions = torch.arange(n_tokens, device=tokens.device)  # (T)
            causal, mask = True, None
        else:
            positions, key_positions, causal, mask = cache.begin(n_tokens)  # (…, T), (S), (…, T, S)
        limit = self.config.position_limit
        if len(key_positions) > limit:
            raise ValueError(f"{len(key_positions)} tokens are more than the {limit} positions this model accepts")
        x = self.embedding(tokens) * self.embedding_scale  # (B, T, C)
        x = self.dropout(self.position.embed(x, positions))  # (B, T, C)
        place = self.position.place(positions, key_positions, causal, mask)
        state = self.blocks[0].split(x)  # (B, T, C)
        for i, block in enumerate(self.blocks):
            if self.gradient_checkpointing and self.training and cache is None:
                state = checkpoint(block, state, place, use_reentrant=False)  # (B, T, C)
            else:
                state = block(state, place, cache.layers[i] if cache is not None else None)  # (B, T, C)
        if cache is not None:
            cache.advance(n_tokens)
        return self.norm(self.blocks[-1].join(state))  # (B, T, C)

    def losses(self, windows: Tensor) -> dict[str, Tensor]:
        """The named losses of windows (B, T+1), in nats; "loss" is the next token's, alike in every architecture."""
        inputs, targets = shift(windows)  # (B, T)
        return {"loss": next_token_loss(self.hidden(inputs), self.head.weight, targets)}  # ()

    def new_cache(self, batch: int, capacity: int) -> Cache:
        """An empty cache for `batch` sequences of up to `capacity` tokens, like this model in type and device."""
        weight, config = self.head.weight, self.config  # (V, C)
        return Cache(
            config.n_layers, batch, config.kv_heads, capacity, config.head_dim, weight.dtype, weight.device
        )
