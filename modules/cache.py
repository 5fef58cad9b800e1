"""The key-value cache: keys and values of earlier passes, owned outside the model and passed in as an argument.

A token's slot in the cache is its position. A batch of prompts of different lengths is padded on the right. After the
first pass, `keep` sets the true length of each sequence, and the next tokens overwrite the padding. So no query ever
sees padding, and there is one rule: a query sees the slots up to its own position, or with a window the last of these.
The cache keeps the older ones, too, because `keep` may go back; a mask hides them.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def seen_keys(positions: Tensor, key_positions: Tensor, window: int | None) -> Tensor:
    """True where a query sees a key: (…, T, S) for positions (…, T) and key positions (S)."""
    distances = positions[..., None] - key_positions  # (…, T, S)
    return distances >= 0 if window is None else (distances >= 0) & (distances < window)  # (…, T, S)


class LayerCache:
    """Keys and values of one attention, each (B, N, K, D): N heads of keys, K tokens at most."""

    def __init__(self, owner: "Cache", keys: Tensor, values: Tensor):
        self.owner, self.keys, self.values = owner, keys, values  # (B, N, K, D)

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Stores new keys and values (B, N, T, D) in their slots, and returns all filled slots: (B, N, S, D)."""
        slots, filled = self.owner.slots, self.owner.filled
        self.keys[slots], self.values[slots] = self.owner.fold(k), self.owner.fold(v)
        return self.keys[:, :, :filled], self.values[:, :, :filled]  # (B, N, S, D)


class Cache:
    """The caches of all attentions, and the length of each sequence. heads: how many heads of keys each attention has.

    A pass calls `begin` for the positions of its new tokens, lets every attention append, and calls `advance`. A cache
    keeps no gradients. like: a tensor of its type and device.
    """

    def __init__(self, heads: Sequence[int], batch: int, capacity: int, head_dim: int, like: Tensor):
        dtype, device = like.dtype, like.device
        shapes = [(2, batch, n_heads, capacity, head_dim) for n_heads in heads]
        self.layers = [LayerCache(self, *torch.zeros(shape, dtype=dtype, device=device)) for shape in shapes]
        self.capacity, self.dtype, self.device = capacity, dtype, device
        self.lengths = [0] * batch
        self.slots: tuple = ()
        self.filled = 0

    def __repr__(self) -> str:
        size = sum(layer.keys.nbytes + layer.values.nbytes for layer in self.layers)
        return f"Cache({len(self.layers)} layers, lengths {self.lengths} of {self.capacity}, {size / 1e6:.1f} MB)"

    def begin(self, n_tokens: int, window: int | None = None) -> tuple[Tensor, Tensor, bool, Tensor | None]:
        """Positions (T) or (B, T), key positions (S), whether no key is older than the pass, and the mask if some are.

        window: how many keys a query sees, its own included; None: all up to its own. Raises ValueError if the tokens
        do not fit, and RuntimeError if gradients are on.
        """
        if torch.is_grad_enabled():
            raise RuntimeError("a cache keeps no gradients; call the model under torch.no_grad()")
        start, self.filled = min(self.lengths), max(self.lengths) + n_tokens
        if self.filled > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} tokens, not {self.filled}; make it with more capacity")
        key_positions = torch.arange(self.filled, device=self.device)  # (S)
        if start == max(self.lengths):
            self.slots = (slice(None), slice(None), slice(start, self.filled))
            positions = key_positions[start:]  # (T)
            all_seen = n_tokens == 1 and (window is None or window >= self.filled)
            mask = None if all_seen else seen_keys(positions, key_positions, window)  # (T, S)
            return positions, key_positions, start == 0, mask  # (T), (S), (T, S)
        lengths = torch.tensor(self.lengths, device=self.device)  # (B)
        positions = lengths[:, None] + torch.arange(n_tokens, device=self.device)  # (B, T)
        rows = torch.arange(len(self.lengths), device=self.device)[:, None]  # (B, 1)
        self.slots = (rows, slice(None), positions)
        mask = seen_keys(positions, key_positions, window)[:, None]  # (B, 1, T, S)
        return positions, key_positions, False, mask  # (B, T), (S), (B, 1, T, S)

    def fold(self, x: Tensor) -> Tensor:
        """(B, N, T, D) as an assignment to `slots` needs it: time before heads if the lengths differ."""
        if isinstance(self.slots[0], slice):
            return x  # (B, N, T, D)
        return x.transpose(1, 2).to(self.dtype)  # (B, T, N, D)

    def advance(self, n_tokens: int) -> None:
        self.lengths = [length + n_tokens for length in self.lengths]

    def keep(self, lengths: list[int]) -> None:
        """Forgets every sequence after its given length; the next tokens overwrite those slots."""
        if len(lengths) != len(self.lengths) or any(not 0 <= n <= m for n, m in zip(lengths, self.lengths)):
            raise ValueError(f"can't keep {lengths} of {self.lengths}: give each row a length that is at most its own")
        self.lengths = list(lengths)


class StepCache:
    """A Cache as passes of one token per sequence see it: positions are a tensor, and every pass has the same shapes.

    So one compiled pass serves every token. A sequence's token goes into the slot positions[b], and its query sees the
    slots up to there, among the first S, key_positions. The caller moves the positions on.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], positions: Tensor, key_positions: Tensor):
        self.layers = [LayerCache(self, keys, values) for keys, values in layers]
        self.positions, self.key_positions = positions[:, None], key_positions  # (B, 1), (S)
        rows = torch.arange(positions.shape[0], device=positions.device)[:, None]  # (B, 1)
        self.slots, self.filled = (rows, slice(None), self.positions), key_positions.shape[0]
        self.dtype = layers[0][0].dtype

    def begin(self, n_tokens: int, window: int | None = None) -> tuple[Tensor, Tensor, bool, Tensor]:
        """As `Cache.begin`, for one token of each sequence."""
        mask = seen_keys(self.positions, self.key_positions, window)[:, None]  # (B, 1, 1, S)
        return self.positions, self.key_positions, False, mask  # (B, 1), (S), (B, 1, 1, S)

    def fold(self, x: Tensor) -> Tensor:
        """(B, N, 1, D) as an assignment to `slots` needs it: time before heads."""
        return x.transpose(1, 2).to(self.dtype)  # (B, 1, N, D)

    def advance(self, n_tokens: int) -> None:
        """Nothing: the positions belong to the caller."""
