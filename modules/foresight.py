"""Foresight: each position predicts a window of the future, as vectors for later layers and with a loss of its own."""

import math

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.bag_of_words import BagLoss, expected_embedding
from modules.block import Parts
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.losses import CHUNK, future_windows, in_autocast_type
from modules.norms import build_norm
from modules.pools import Pool


class Foresight(LoggingModule):
    """One level: predicts its window from the stream, and pools the predicted window.

        x (B, T, C) ─ norm ─ expected embedding (B, T, C) ─ + slots (B, T, W, C) ─ pool (B, T, J, C)

    A bag of words is one distribution for all W tokens, so each slot starts from the expected embedding under it. A
    level that predicts vectors gets this embedding from a linear map. Each slot adds a trained vector of its own, so
    that a pool can tell near tokens from far ones. Only `losses` reads true tokens.

    A bag of words learns only from its own loss. No gradient of the layers that read a level's vectors passes through
    the vocabulary to its prediction. So the prediction stays what the model expects, and training is cheaper.

    rank, ranks: which part of a batch's rows it gets, of how many processes that train together; `set_rows_share` sets
    it for a whole model.
    """

    rank, ranks = 0, 1

    def __init__(self, config: ModelConfig, level: int, pool: Pool):
        super().__init__()
        block = config.block
        self.name, self.predicts = f"future_{level}", block.predicts
        self.first, self.last = block.windows[level - 1]
        self.count, size = block.counts[level - 1], self.last - self.first + 1
        self.offset = math.log(size / config.vocab_size) if block.predicts == "multi_hot" else None
        self.norm = build_norm(config.norm, config.width)
        self.forecast = None if block.of_vocabulary else Linear(config.width, config.width, config.bias)
        self.slots = nn.Parameter(torch.eye(size, config.width))  # (W, C)
        self.pool = pool

    def initialise(self, config: ModelConfig) -> None:
        """Draws the slots from N(0, 1), the size of what is normed, so that they differ from each other."""
        nn.init.normal_(self.slots)

    def forward(self, x: Tensor, parts: Parts) -> tuple[Tensor, Tensor]:
        """The normed stream, from which the head reads the prediction (B, T, C), and its vectors (B, T, J, C)."""
        read = self.norm(x)  # (B, T, C)
        if self.forecast is None:
            expected = self.expect(read, parts)  # (B, T, C)
        else:
            expected = self.forecast(read).to(read.dtype)  # (B, T, C)
        window = self.pool.norm(expected)[:, :, None] + self.slots  # (B, T, W, C)
        return read, self.pool(window, self.count)  # (B, T, C), (B, T, J, C)

    def expect(self, read: Tensor, parts: Parts) -> Tensor:
        """The mean embedding under the predicted distribution: (B, T, C)."""
        rows = in_autocast_type(read).flatten(0, 1)  # (N, C)
        tables = parts.head.unembedding(), parts.embedding.weight  # (V, C)
        expected = expected_embedding(rows, *tables, self.offset, CHUNK, parts.head.cap)  # (N, C)
        return expected.to(read.dtype).view_as(read)  # (B, T, C)

    def losses(self, read: Tensor, vectors: Tensor, windows: Tensor, parts: Parts) -> dict[str, Tensor]:
        """This level's loss over the complete windows of (B, T+1) tokens, 0 if there are none.

        For vectors also the spread of predictions and targets, which shows a collapse. Bags of words are trained on
        windows that follow each other without overlap.
        """
        bags = future_windows(windows, self.first, self.last)  # (B, N, W)
        complete = bags.shape[1]
        if not complete:
            return dict.fromkeys(self.loss_weights(1.0), torch.zeros((), device=windows.device))  # ()
        if self.forecast is None:
            read = read[:, :complete]  # (B, N, C)
            if self.training:
                apart = without_overlap(bags, self.rank, self.ranks)  # (B, 1), (B, O)
                read, bags = read[apart], bags[apart]  # (B, O, C), (B, O, W)
            rows = in_autocast_type(read).flatten(0, 1)  # (P, C)
            weight, cap = parts.head.unembedding(), parts.head.cap  # (V, C)
            total = BagLoss.apply(rows, weight, bags.flatten(0, 1), self.offset, CHUNK, cap)  # ()
            return {self.name: total / len(rows)}  # ()
        vectors, pooled = vectors[:, :complete], self.target(windows, parts.embedding)  # (B, N, J, C)
        standard = standardised(pooled, self.ranks)  # (B, N, J, C)
        if self.predicts == "vector_cosine":
            loss = 1 - F.cosine_similarity(vectors, standard, dim=-1).mean()  # ()
        else:
            loss = F.mse_loss(vectors, standard)  # ()
        spreads = {f"{self.name}_spread": spread(vectors, self.ranks)}  # ()
        spreads[f"{self.name}_target_spread"] = spread(pooled, self.ranks)  # ()
        return {self.name: loss} | spreads  # ()

    @torch.no_grad()
    def target(self, windows: Tensor, embedding: nn.Embedding) -> Tensor:
        """The pools of the true embeddings of complete windows, without gradients: (B, N, J, C)."""
        ahead = self.pool.norm(embedding(windows[:, 1:]))  # (B, T, C)
        true = future_windows(ahead, self.first - 1, self.last - 1).mT  # (B, N, W, C)
        return self.pool(true, self.count)  # (B, N, J, C)

    def loss_weights(self, weight: float) -> dict[str, float]:
        """The weight of each of its losses, by name; spreads weigh 0, they are only logged."""
        watched = () if self.forecast is None else (f"{self.name}_spread", f"{self.name}_target_spread")
        return {self.name: weight} | dict.fromkeys(watched, 0.0)


def set_rows_share(model: nn.Module, rank: int, ranks: int) -> None:
    """Tells every level of a model which part of a batch's rows it gets: part `rank` of `ranks` equal ones."""
    for module in model.modules():
        if isinstance(module, Foresight):
            module.rank, module.ranks = rank, ranks


def without_overlap(complete: Tensor, rank: int = 0, ranks: int = 1) -> tuple[Tensor, Tensor]:
    """The indices of rows (B, 1) and positions (B, O) of those windows (B, N, W) that follow each other, from a random
    start.

    Neighbouring windows share all but one of their tokens. Every W-th window is used, so that no token counts twice.
    The starts of all rows of the batch are drawn, of which these are part `rank` of `ranks`.
    """
    n_rows, n_windows, size = complete.shape
    stride = min(size, n_windows)
    count = n_windows // stride
    last = n_windows - stride * (count - 1)
    starts = torch.randint(last, (n_rows * ranks, 1), device=complete.device)  # (B, 1)
    starts = starts[n_rows * rank : n_rows * (rank + 1)]  # (B, 1)
    positions = starts + stride * torch.arange(count, device=complete.device)  # (B, O)
    return torch.arange(n_rows, device=complete.device)[:, None], positions  # (B, 1), (B, O)


def standardised(x: Tensor, ranks: int = 1) -> Tensor:
    """(B, N, J, C) with mean 0 and deviation 1 over all positions, of all ranks.

    So a constant prediction can't win, and neither can shrinking the targets.
    """
    centred = x - over_ranks(x.mean(dim=(0, 1), keepdim=True), ranks)  # (B, N, J, C)
    variance = over_ranks(centred.square().mean(dim=(0, 1), keepdim=True), ranks)  # (1, 1, J, C)
    return centred / (variance + 1e-8).sqrt()  # (B, N, J, C)


def spread(x: Tensor, ranks: int = 1) -> Tensor:
    """√(variance over positions / mean square) of (B, N, J, C): 1 for vectors around 0, 0 where all are the same."""
    x = x.detach().float()  # (…, J, C)
    centre = over_ranks(x.mean(dim=(0, 1), keepdim=True), ranks)  # (1, 1, J, C)
    variance = over_ranks((x - centre).square().mean(), ranks)  # ()
    return (variance / over_ranks(x.square().mean(), ranks).clamp(min=1e-30)).sqrt()  # ()


def over_ranks(mean: Tensor, ranks: int) -> Tensor:
    """The mean over a batch, from the mean over each rank's equal part of its rows. Without a gradient for several."""
    if ranks == 1:
        return mean  # (…)
    distributed.all_reduce(mean)
    return mean / ranks  # (…)
