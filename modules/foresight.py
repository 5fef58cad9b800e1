"""Foresight: what a position expects in a window of the future, as vectors to read and as a loss to learn it by."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from config import ModelConfig
from modules.bags import BagLoss, expected_embedding
from modules.linear import Linear
from modules.logging_module import LoggingModule
from modules.losses import CHUNK, future_windows, in_autocast_type
from modules.norms import build_norm
from modules.pools import Pool


class Foresight(LoggingModule):
    """One level: the stream as a prediction of the window, and the pool of the window as it is imagined.

        x (B, T, C) ─ norm ─ expected embedding (B, T, C) ─ + slots (B, T, W, C) ─ pool (B, T, J, C)

    A bag is one distribution for all W tokens, so each slot holds the expected embedding under it; where vectors are
    predicted, a linear map gives it. A trained vector for each slot says where in the window it stands: without it all
    would be alike, and a pool could not tell near from far. True tokens enter `losses`, and nothing else.

    Bags learn from their own loss alone: no gradient leads from those who read a vector through the vocabulary to the
    prediction. So a bag stays what the model expects, and is not bent to carry messages; and it is cheaper.
    """

    def __init__(self, config: ModelConfig, level: int, words: tuple[nn.Embedding, nn.Module], pool: Pool):
        super().__init__()
        block = config.block
        self.name, self.predicts = f"future_{level}", block.predicts
        self.first, self.last = block.windows[level - 1]
        self.count, size = block.counts[level - 1], self.last - self.first + 1
        self.offset = math.log(size / config.vocab_size) if block.predicts == "multi_hot" else None
        self.words = words  # the model's own embedding and head: a tuple, for they are no part of this
        self.norm = build_norm(config.norm, config.width)
        self.forecast = None if block.of_vocabulary else Linear(config.width, config.width, config.bias)
        self.slots = nn.Parameter(torch.eye(size, config.width))  # (W, C)
        self.pool = pool

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the prediction is read from (B, T, C), and its vectors (B, T, J, C)."""
        read = self.norm(x)  # (B, T, C)
        expected = self.expect(read) if self.forecast is None else self.forecast(read).to(read.dtype)  # (B, T, C)
        window = self.pool.norm(expected)[:, :, None] + self.slots  # (B, T, W, C)
        return read, self.pool(window, self.count)  # (B, T, C), (B, T, J, C)

    def expect(self, read: Tensor) -> Tensor:
        """The mean embedding under what is predicted: (B, T, C)."""
        embedding, head = self.words
        rows = in_autocast_type(read).flatten(0, 1)  # (N, C)
        expected = expected_embedding(rows, head.weight, embedding.weight, self.offset, CHUNK)  # (N, C)
        return expected.to(read.dtype).view_as(read)  # (B, T, C)

    def losses(self, read: Tensor, vectors: Tensor, windows: Tensor) -> dict[str, Tensor]:
        """This level's loss over the complete windows of (B, T+1) tokens, 0 where there are none; and for vectors how
        spread out these and their targets are, as a watch on collapse. Bags are trained on windows side by side."""
        bags = future_windows(windows, self.first, self.last)  # (B, N, W)
        complete = bags.shape[1]
        if not complete:
            return dict.fromkeys(self.loss_weights(1.0), torch.zeros((), device=windows.device))  # ()
        if self.forecast is None:
            read = read[:, :complete]  # (B, N, C)
            if self.training:
                apart = side_by_side(bags)  # (B, 1), (B, O)
                read, bags = read[apart], bags[apart]  # (B, O, C), (B, O, W)
            rows = in_autocast_type(read).flatten(0, 1)  # (P, C)
            total = BagLoss.apply(rows, self.words[1].weight, bags.flatten(0, 1), self.offset, CHUNK)  # ()
            return {self.name: total / len(rows)}  # ()
        vectors, pooled = vectors[:, :complete], self.target(windows)  # (B, N, J, C)
        standard = standardised(pooled)  # (B, N, J, C)
        if self.predicts == "vector_cosine":
            loss = 1 - F.cosine_similarity(vectors, standard, dim=-1).mean()  # ()
        else:
            loss = F.mse_loss(vectors, standard)  # ()
        spreads = {f"{self.name}_spread": spread(vectors), f"{self.name}_target_spread": spread(pooled)}  # ()
        return {self.name: loss} | spreads  # ()

    @torch.no_grad()
    def target(self, windows: Tensor) -> Tensor:
        """The pools of the true embeddings of complete windows: (B, N, J, C). No gradient leads back from here."""
        ahead = self.pool.norm(self.words[0](windows[:, 1:]))  # (B, T, C)
        true = future_windows(ahead, self.first - 1, self.last - 1).mT  # (B, N, W, C)
        return self.pool(true, self.count)  # (B, N, J, C)

    def loss_weights(self, weight: float) -> dict[str, float]:
        """The names of its losses, with what each counts; the spreads are watched only."""
        watched = () if self.forecast is None else (f"{self.name}_spread", f"{self.name}_target_spread")
        return {self.name: weight} | dict.fromkeys(watched, 0.0)


def side_by_side(complete: Tensor) -> tuple[Tensor, Tensor]:
    """The indices of rows (B, 1) and positions (B, O) of windows (B, N, W) that lie side by side, from a random start.

    Neighbouring windows share all but one of their tokens: so that no token counts twice, one in W teaches.
    """
    n_rows, n_windows, size = complete.shape
    stride = min(size, n_windows)
    count = n_windows // stride
    starts = torch.randint(n_windows - stride * (count - 1), (n_rows, 1), device=complete.device)  # (B, 1)
    positions = starts + stride * torch.arange(count, device=complete.device)  # (B, O)
    return torch.arange(n_rows, device=complete.device)[:, None], positions  # (B, 1), (B, O)


def standardised(x: Tensor) -> Tensor:
    """(B, N, J, C) with mean 0 and deviation 1 over all positions: what all windows share can't be predicted, so that
    no constant wins, and neither does shrinking the targets."""
    centred = x - x.mean(dim=(0, 1), keepdim=True)  # (B, N, J, C)
    return centred / (centred.square().mean(dim=(0, 1), keepdim=True) + 1e-8).sqrt()  # (B, N, J, C)


def spread(x: Tensor) -> Tensor:
    """√(variance over positions / mean square) of (B, N, J, C): 1 for vectors around 0, 0 where all are the same."""
    x = x.detach().float()  # (…, J, C)
    variance = (x - x.mean(dim=(0, 1), keepdim=True)).square().mean()  # ()
    return (variance / x.square().mean().clamp(min=1e-30)).sqrt()  # ()
