"""The equations of the factored and the shaped block, written a second time in numpy."""

import math

import numpy as np

from config import LearnedPositionConfig
from modules.transformer import Transformer

SLOPES = {4: [1 / 4, 1 / 16, 1 / 64, 1 / 256], 6: [1 / 4, 1 / 16, 1 / 64, 1 / 256, 1 / 2, 1 / 8]}


class Equations:
    """One model's weights, and what the papers compute from them: arrays (B, T, C), one head after the other."""

    def __init__(self, model: Transformer):
        self.config = model.config
        self.weights = {name: p.detach().cpu().numpy() for name, p in model.named_parameters()}
        self.heads, self.dim = model.config.n_heads, model.config.head_dim

    def norm(self, x, name):
        shape = x.shape
        if getattr(self.config.block, "head_norm", False) and name != "norm":
            x = x.reshape(*shape[:-1], self.heads, self.dim)
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x.reshape(shape) * self.weights[f"{name}.weight"]

    def mlp(self, x, name):
        h = x @ self.weights[f"{name}.up.weight"].T
        h = h / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))
        return h @ self.weights[f"{name}.down.weight"].T

    def embedded(self, ids):
        x = self.weights["embedding.weight"][ids.cpu().numpy()]
        if isinstance(self.config.position, LearnedPositionConfig):
            x = x + self.weights["position.table.weight"][: ids.shape[1]]
        return x

    def softmax(self, scores):
        """Of scores (…, T, T) with each head's ALiBi, if there is any, and nothing of the future."""
        length = scores.shape[-1]
        if self.config.position.kind == "alibi":
            distance = np.arange(length)[:, None] - np.arange(length)
            scores = scores - np.array(SLOPES[self.heads])[:, None, None] * distance
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return weights / weights.sum(-1, keepdims=True)

    def scores(self, x, name):
        """q·k/√D: (B, H, T, T)."""
        q, k = np.split(x @ self.weights[f"{name}.qk.weight"].T, 2, axis=-1)
        q, k = (y.reshape(*y.shape[:2], self.heads, self.dim) for y in (q, k))
        return np.einsum("bthd,bshd->bhts", q, k) / math.sqrt(self.dim)

    def moved(self, weights, x):
        """Each head's channels of x, summed as its weights say."""
        x = x.reshape(*x.shape[:2], self.heads, self.dim)
        return np.einsum("bhts,bshd->bthd", weights, x).reshape(*x.shape[:2], -1)

    def mixing(self, kind, name):
        """The whole matrix, (C, C)."""
        if kind == "identity":
            return np.eye(self.heads * self.dim)
        weight = self.weights[f"{name}.weight"]
        if kind == "kronecker":
            return np.kron(weight, np.eye(self.dim))
        if kind == "independent":
            whole = np.zeros((self.heads, self.dim, self.heads, self.dim))
            for head in range(self.heads):
                whole[head, :, head] = weight[head]
            return whole.reshape(self.heads * self.dim, -1)
        return weight

    def logits(self, x):
        return self.norm(x, "norm") @ self.weights["embedding.weight"].T

    def factored(self, ids):
        """The logits, the last xt, and how much attention of each layer moved from where: (B, H, T, T)."""
        block, attentions = self.config.block, []
        xt = self.embedded(ids)
        xe = np.zeros_like(xt)
        for i in range(self.config.n_layers):
            name = f"blocks.{i}"
            weights = self.softmax(self.scores(self.norm(xt + xe, f"{name}.attention_norm"), f"{name}.attention"))
            values = xt @ self.mixing(block.value_mixing, f"{name}.attention.value_mixing").T
            read = self.moved(weights, values) @ self.mixing(block.output_mixing, f"{name}.attention.output_mixing").T
            attentions.append(weights)
            xt, xe = (xt, xe + read) if block.frozen_tokens else (xt + read, xe)
            xe = xe + self.mlp(self.norm(xt + xe, f"{name}.mlp_norm"), f"{name}.mlp")
        return self.logits(xt + xe), xt, attentions

    def shaped(self, ids):
        x = self.embedded(ids)
        for i in range(self.config.n_layers):
            name = f"blocks.{i}"
            normed = self.norm(x, f"{name}.norm")
            scores = self.scores(normed, f"{name}.attention")
            alpha, beta, gamma = (
                self.weights[f"{name}.attention.{gain}"][:, None, None] for gain in ("alpha", "beta", "gamma")
            )
            weights = alpha * np.eye(ids.shape[1]) + beta * self.softmax(scores) - gamma * self.softmax(0 * scores)
            x = self.moved(weights, normed)
            x = x + self.weights[f"{name}.mlp_gain.weight"] * self.mlp(normed, f"{name}.mlp")
        return self.logits(x)


def provenance(attentions: list, v: list, o: list) -> np.ndarray:
    """M (B, T, H, T, H), by the recurrence M ← M + O·A·V·M, which weighs the embeddings into xt."""
    batch, heads, length, _ = attentions[0].shape
    start = np.eye(length * heads).reshape(length, heads, length, heads)
    m = np.broadcast_to(start, (batch, *start.shape))
    for weights, value, output in zip(attentions, v, o):
        step = np.einsum("ih,bhts,hj->btisj", output, weights, value)
        m = m + np.einsum("btisj,bsjuk->btiuk", step, m)
    return m


def heads_matrices(model: Transformer) -> tuple[list, list]:
    """Those of the values and those of the output, layer by layer."""
    values, outputs = (
        [getattr(block.attention, mixing).heads_matrix().detach().double().cpu().numpy() for block in model.blocks]
        for mixing in ("value_mixing", "output_mixing")
    )
    return values, outputs
