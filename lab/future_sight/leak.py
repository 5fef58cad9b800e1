"""A demonstration of leakage: how a network fails whose layers read the true future."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from config import Preset
from lab.compute.allocator import freed_memory_kept
from lab.compute.device import pick_device
from lab.compute.eval_mode import eval_mode
from lab.compute.schedule import learning_rate
from lab.compute.training_state import TrainingState, build_model
from lab.data.packing import TokenData
from lab.display.palette import BLUE, INK, VERMILLION
from lab.display.style import Picture, axes
from lab.generation.generate import generate_text
from lab.generation.sampling_settings import STRATEGIES
from modules.future import FutureState
from modules.transformer import Transformer
from settings.errors import ConfigError


class LeakyTransformer(Transformer):
    """A future-sighted network whose layers attend to pools of the TRUE future embeddings.

    Position t − 1 holds the pool of tokens t + 1 and t + 2. Position t reads it, and t + 1 is the token that it must
    predict. Beyond the end of the text, and so always in generation, the pools are 0. The rest is as in the causal
    network.
    """

    causal = False

    def state(self, tokens: Tensor, cache=None, visit=None) -> FutureState:
        """The last block's state. There is no cache, because future tokens can't be stored before they exist."""
        embedded = self.embedding(tokens)
        truth = torch.cat([self.pools(embedded, *window) for window in self.config.block.windows[::-1]], dim=2)
        positions = torch.arange(tokens.shape[1], device=tokens.device)
        place = self.position.place(positions, positions, True, None)
        place.window = self.config.window
        x = self.dropout(self.position.embed(embedded * self.embedding_scale, positions))
        state = self.blocks[0].split(x)
        for block in self.blocks:
            x, vectors, read = block(state, place, parts=self.parts)
            state = FutureState(x, truth[:, :, : vectors.shape[2]], read)
            state = state if visit is None else visit(state)
        return state

    def pools(self, embedded: Tensor, first: int, last: int) -> Tensor:
        """The mean of the embeddings first to last places ahead of each position, 0 beyond the end: (B, T, 1, C)."""
        padded = F.pad(embedded, (0, 0, 0, last))
        return padded[:, first:].unfold(1, last - first + 1, 1).mean(-1)[:, : embedded.shape[1], None]


@dataclass(frozen=True, kw_only=True)
class Leak:
    """The result of a short training of the model ("causal") and of its leaky copy ("leaky"); losses in nats per token.

    losses: of each step. held_out: on tokens of held-out texts, with the whole text as input. blind: on the same
    tokens, each with an input that ends before it, as in generation. texts: what each model generates from a prompt.
    """

    losses: dict[str, list[float]]
    held_out: dict[str, float]
    blind: dict[str, float]
    texts: dict[str, str]


def demonstrate_leak(settings: Preset, data: TokenData, prompt: str, n_windows: int = 256) -> Leak:
    """Trains a future-sighted network and its leaky copy on the same batches, from the same weights.

    Raises ConfigError for any other network, and for levels with several vectors.
    """
    model_config, config = settings
    if model_config.block.kind != "future" or max(model_config.block.counts) > 1:
        raise ConfigError("the leak is shown in a future-sighted network with one vector for each level's window")
    device = pick_device(config.device)
    causal = build_model(model_config, config, device)
    leaky = LeakyTransformer(model_config).to(device).train()
    leaky.load_state_dict(causal.state_dict())
    models = {"causal": causal, "leaky": leaky}
    losses = {name: train_all_steps(TrainingState.of_model(model, config, data)) for name, model in models.items()}
    plainly = dict(max_tokens=60, sampling=STRATEGIES["greedy"], cache=False)
    windows = torch.from_numpy(next(data.validation.windows(model_config.context_length, n_windows, None))).to(device)
    found = {name: whole_and_blind(model, windows) for name, model in models.items()}
    return Leak(
        losses=losses,
        held_out={name: whole for name, (whole, _) in found.items()},
        blind={name: blind for name, (_, blind) in found.items()},
        texts={name: generate_text(model, data.tokenizer, prompt, **plainly) for name, model in models.items()},
    )


def train_all_steps(state: TrainingState) -> list[float]:
    """Trains for all steps of the settings; returns each step's loss of the next token."""
    losses = []
    with freed_memory_kept():
        for step in range(state.config.steps):
            losses.append(state.backward(state.batch())["loss"].item())
            state.clip()
            state.update(learning_rate(step, state.config))
    return losses


def leak_curves(found: Leak, floor: float | None = None) -> Picture:
    """Loss by step of both networks. floor: the least loss that is possible without seeing the future."""
    with axes(3.6, "The next token's loss while training") as plot:
        style = {"causal": dict(color=BLUE, linestyle="-"), "leaky": dict(color=VERMILLION, linestyle="--")}
        for name, losses in found.losses.items():
            plot.plot(range(1, len(losses) + 1), losses, label=f"{name}: {losses[-1]:.2f} at last", **style[name])
        if floor is not None:
            plot.axhline(floor, color=INK, linewidth=1, linestyle=":", label=f"grammar's entropy (floor): {floor:.2f}")
        plot.set(xlabel="step", ylabel="loss (nats per token)", ylim=(0, None))
        plot.figure.legend(loc="outside lower center", ncols=3)
        ends = ", ".join(f"{name} {losses[-1]:.3f}" for name, losses in found.losses.items())
        return Picture(plot.figure, f"Loss by step of the causal and the leaky network; at last {ends}")


def whole_and_blind(model: Transformer, windows: Tensor) -> tuple[float, float]:
    """The mean loss of some 16 tokens in the second half of each of windows (B, T+1): read from the whole window, and
    each from a text that ends before it. A causal network has the same loss both times."""
    length, losses = windows.shape[1] - 1, model.head.token_losses
    ends = range(length // 2 + 1, length + 1, max(1, length // 32))
    with torch.inference_mode(), eval_mode(model):
        whole = losses(model.hidden(windows[:, :-1]), windows[:, 1:])[:, [end - 1 for end in ends]]
        blind = [losses(model.hidden(windows[:, :end])[:, -1:], windows[:, end : end + 1]) for end in ends]
    return whole.mean().item(), torch.cat(blind, dim=1).mean().item()
