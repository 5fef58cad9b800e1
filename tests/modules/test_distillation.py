"""Distillation: each loss against its formula, who teaches whom, and what the losses train."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from config import DistilConfig, DropoutConfig, LearnedPositionConfig, ModelConfig
from modules.distillation import Distillation, logit_loss
from modules.heads import LinearHead
from modules.losses import CHUNK, IGNORE
from modules.transformer import Transformer
from settings.errors import ConfigError
from tests.helpers.measures import LargestTensor
from tests.helpers.stirred_models import stirred_alike
from tests.helpers.variants import VARIANTS, vary
from tracing.traces import Trace

pytestmark = pytest.mark.usefixtures("seeded")

STUDENT, TEACHER = vary("llama"), vary("llama", n_layers=4, width=56)
MODES = ("whole", "blocks")
EVERY_MODE = pytest.mark.parametrize("mode", MODES)
ONE_STREAM = [name for name, config in VARIANTS.items() if config.block.kind in ("residual", "shaped")]


def distil(mode: str = "whole", **changes) -> DistilConfig:
    return DistilConfig(teacher="teacher", mode=mode, **changes)


def pair(settings: DistilConfig, student: ModelConfig = STUDENT, teacher: ModelConfig = TEACHER) -> Distillation:
    """No weight of either model trivial."""
    return Distillation(stirred_alike(student).float().train(), stirred_alike(teacher).float(), settings)


def windows_for(learner: Distillation, batch: int = 3) -> Tensor:
    return torch.randint(learner.student.config.vocab_size, (batch, 13))


def reached(learner: Distillation, loss: Tensor) -> set[str]:
    """The parts of the learner that a loss has gradients for: "student.blocks.0", "stitches.1", ..."""
    learner.zero_grad()
    loss.backward(retain_graph=True)
    named = [name.split(".") for name, p in learner.named_parameters() if p.grad is not None and p.grad.any()]
    return {".".join(parts[: 3 if parts[1] == "blocks" else 2]) for parts in named}


def states(model: Transformer, tokens: Tensor) -> list[Tensor]:
    """The output of each block of one stream."""
    found = []
    hooks = [block.register_forward_hook(lambda _, __, out: found.append(out)) for block in model.blocks]
    with torch.no_grad():
        model(tokens)
    for hook in hooks:
        hook.remove()
    return found


def over_rms(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True))


def mapped(learner: Distillation, layer: int, x: np.ndarray) -> np.ndarray:
    stitch = learner.stitches[str(layer)]
    return x @ stitch.weight.detach().double().numpy().T + stitch.bias.detach().double().numpy()


# --- the losses, by their formulas ------------------------------------------------------------------------------


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_logit_loss_is_the_divergence_from_the_teacher_times_the_squared_temperature(temperature):
    heads = [LinearHead(ModelConfig(vocab_size=31, n_heads=2, width=width)) for width in (8, 12)]
    rows = [2 * torch.randn(3, CHUNK // 2, head.in_features) for head in heads]  # one chunk and a half
    rows[0].requires_grad_()
    targets = torch.randint(31, rows[0].shape[:2])
    targets[1, 5:] = IGNORE
    loss = logit_loss(*heads, *rows, targets, temperature)
    loss.backward()
    logits = [(x @ head.weight.T).detach().double().numpy() for x, head in zip(rows, heads)]
    log_p, log_q = (log_softmax(x / temperature) for x in logits)
    counted = (targets != IGNORE).numpy()
    divergence = (np.exp(log_q) * (log_q - log_p)).sum(-1)[counted].mean()
    assert loss.item() == pytest.approx(temperature**2 * divergence, rel=1e-5)
    d_logits = temperature * (np.exp(log_p) - np.exp(log_q)) * counted[..., None] / counted.sum()
    expected = d_logits @ heads[0].weight.detach().double().numpy()
    np.testing.assert_allclose(rows[0].grad.numpy(), expected, atol=1e-7)
    assert heads[0].weight.grad is not None and heads[1].weight.grad is None


def test_never_all_logits_exist_at_once():
    heads = [LinearHead(ModelConfig(vocab_size=257, n_heads=2, width=8)) for _ in range(2)]
    rows = [torch.randn(2, CHUNK + 1, 8, requires_grad=True) for _ in heads]
    with LargestTensor() as largest:
        logit_loss(*heads, *rows, torch.zeros(2, CHUNK + 1, dtype=torch.long), 2.0).backward()
    assert largest.numel == CHUNK * 257


def test_a_student_equal_to_its_teacher_has_nothing_to_learn():
    learner = Distillation(stirred_alike(TEACHER).float(), stirred_alike(TEACHER).float(), distil())
    losses = learner.losses(windows_for(learner))
    assert losses["distil_logits"].item() == pytest.approx(0, abs=1e-6) and losses["loss"] > 1


def test_whole_compares_the_stitched_states_with_those_of_the_evenly_spaced_layers():
    learner = pair(distil(), student=vary("llama", n_layers=3), teacher=vary("alibi", n_layers=4, width=56))
    windows = windows_for(learner)
    losses = learner.losses(windows)
    assert list(losses) == ["loss", "distil_logits", *(f"distil_hidden_{layer}" for layer in (1, 2, 3))]
    ours, theirs = (states(model, windows[:, :-1]) for model in (learner.student, learner.teacher))
    for layer, other in ((1, 2), (2, 3), (3, 4)):  # ⌈layer · 4/3⌉
        found = mapped(learner, layer, over_rms(ours[layer - 1].double().numpy()))
        expected = np.mean((found - over_rms(theirs[other - 1].double().numpy())) ** 2)
        assert losses[f"distil_hidden_{layer}"].item() == pytest.approx(expected, rel=1e-4)
    plain = learner.student.losses(windows)
    assert torch.equal(losses["loss"], plain["loss"])


def test_blocks_turn_one_stitched_state_of_the_teacher_into_the_next():
    learner = pair(distil("blocks", layers=(1, 3)))
    windows = windows_for(learner)
    losses, student = learner.losses(windows), learner.student
    taught = states(learner.teacher, windows[:, :-1])
    pairs = {1: taught[0], 2: taught[2]}
    given = [over_rms(mapped(learner, i, over_rms(state.double().numpy()))) for i, state in pairs.items()]
    positions = torch.arange(12)
    place = student.position.place(positions, positions, True, None)
    with torch.no_grad():
        first = student.blocks[0](student.embedding(windows[:, :-1]), place)
        second = student.blocks[1](torch.from_numpy(given[0]).float(), place)
        logits = student.head(student.norm(torch.from_numpy(given[1]).float()))
    for layer, found in ((1, first), (2, second)):
        expected = np.mean((found.double().numpy() - given[layer - 1]) ** 2)
        assert losses[f"distil_hidden_{layer}"].item() == pytest.approx(expected, rel=1e-4)
    expected = F.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    torch.testing.assert_close(losses["loss"], expected)


def test_objective_weighs_the_losses_as_the_settings_say():
    settings = distil(next_token_weight=0.3, logits_weight=0.7, hidden_weight=4.0, layers=(0, 3))
    learner = pair(settings)
    losses = learner.losses(windows_for(learner))
    assert list(losses) == ["loss", "distil_logits", "distil_hidden_2"]
    expected = 0.3 * losses["loss"] + 0.7 * losses["distil_logits"] + 4 * losses["distil_hidden_2"]
    torch.testing.assert_close(learner.objective(losses), expected)
    both = pair(distil(hidden_weight=4.0))
    assert both.loss_weights["distil_hidden_1"] == both.loss_weights["distil_hidden_2"] == 2.0


def test_a_loss_without_weight_is_not_computed_and_needs_no_stitch():
    learner = pair(distil(hidden_weight=0.0))
    assert list(learner.losses(windows_for(learner))) == ["loss", "distil_logits"] and not len(learner.stitches)
    assert "distil_logits" not in (bare := pair(distil(logits_weight=0.0))).losses(windows_for(bare))


# --- what is trained, and what is not -----------------------------------------------------------------------------


@EVERY_MODE
@pytest.mark.parametrize("name", VARIANTS)
def test_every_architecture_learns_or_is_refused_by_name(name, mode):
    config = VARIANTS[name]
    teacher = Transformer(TEACHER.replace(n_layers=max(4, config.n_layers)))
    if mode == "blocks" and name not in ONE_STREAM and not isinstance(split_of(config), Tensor):
        with pytest.raises(ConfigError, match=rf"the state of a {config.block.kind} block has several parts"):
            Distillation(Transformer(config), teacher, distil(mode))
        return
    learner = Distillation(Transformer(config).train(), teacher, distil(mode))
    losses = learner.losses(windows_for(learner))
    learner.objective(losses).backward()
    assert all(parameter.grad is not None for parameter in learner.parameters() if parameter.requires_grad)
    assert losses.keys() <= learner.loss_weights.keys()


def split_of(config: ModelConfig):
    return Transformer(config).blocks[0].split(torch.zeros(1, 1, config.width))


@pytest.mark.parametrize("name", [*ONE_STREAM[:1], "factored", "future", "multi-token", "sasp", "gpt2"])
def test_every_architecture_teaches(name):
    for mode in MODES:
        learner = pair(distil(mode), teacher=vary(name, n_layers=6, width=56, context_length=17))
        losses = learner.losses(windows_for(learner))
        assert {"distil_logits", "distil_hidden_1", "distil_hidden_2"} <= losses.keys()


def test_no_gradient_goes_from_one_block_to_another():
    learner = pair(distil("blocks"), student=vary("llama", n_layers=3, tie_weights=False))
    losses = learner.losses(windows_for(learner))
    assert reached(learner, losses["distil_hidden_1"]) == {"student.embedding", "student.blocks.0"}
    assert reached(learner, losses["distil_hidden_2"]) == {"stitches.1", "student.blocks.1"}
    assert reached(learner, losses["distil_hidden_3"]) == {"stitches.2", "student.blocks.2"}
    for name in ("loss", "distil_logits"):
        assert reached(learner, losses[name]) == {"stitches.3", "student.norm", "student.head"}


def test_tied_weights_get_the_gradients_of_embedding_and_head_together():
    tied, apart = (pair(distil("blocks"), student=vary("llama", tie_weights=tied)) for tied in (True, False))
    with torch.no_grad():
        for name, parameter in apart.named_parameters():
            parameter.copy_(dict(tied.named_parameters()).get(name, tied.student.embedding.weight))
    windows = windows_for(tied)
    for learner in (tied, apart):
        learner.objective(learner.losses(windows)).backward()
    embedding, head = apart.student.embedding.weight.grad, apart.student.head.weight.grad
    assert embedding.any() and head.any()
    torch.testing.assert_close(tied.student.embedding.weight.grad, embedding + head)


@EVERY_MODE
def test_the_teacher_is_not_trained_and_stays_in_eval_mode(mode):
    learner = pair(distil(mode), teacher=TEACHER.replace(dropout=DropoutConfig(residual=0.5, embedding=0.5)))
    before = {name: tensor.clone() for name, tensor in learner.teacher.state_dict().items()}
    windows = windows_for(learner)
    optimizer = torch.optim.AdamW(learner.parameters(), lr=0.1)
    learner.train().objective(learner.losses(windows)).backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in learner.teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in learner.teacher.parameters())
    assert not any(name.startswith("teacher") for name in learner.state_dict())
    first, second = (learner.losses(windows)["distil_logits"] for _ in range(2))  # dropout would make them differ
    assert torch.equal(first, second)


def trained(learner: Distillation, windows: Tensor, steps: int) -> Distillation:
    optimizer = torch.optim.AdamW(learner.parameters(), lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        learner.objective(learner.losses(windows)).backward()
        optimizer.step()
    return learner


@EVERY_MODE
def test_one_batch_can_be_overfitted(mode):
    """Of the student itself, on its own states: those of mode blocks fit together."""
    learner = Distillation(Transformer(vary("llama")).train(), stirred_alike(TEACHER).float(), distil(mode))
    teacher, windows = learner.teacher, windows_for(learner, batch=2)
    with torch.no_grad():
        windows[:, 1:] = teacher(windows[:, :-1]).argmax(-1)  # what the teacher says of the first tokens
    before = learner.student.losses(windows)["loss"]
    trained(learner, windows, 300)
    assert learner.student.losses(windows)["loss"] < 0.25 * before


@EVERY_MODE
def test_a_student_comes_to_say_what_its_teacher_says(mode):
    """Without any true token."""
    student, teacher = Transformer(vary("gpt2", n_layers=2)).train(), stirred_alike(TEACHER).float()
    learner = Distillation(student, teacher, distil(mode, next_token_weight=0.0))
    windows = windows_for(learner, batch=2)
    trained(learner, windows, 300)
    with torch.no_grad():
        ours, theirs = (model(windows[:, :-1]).log_softmax(-1) for model in (learner.student, learner.teacher))
        untaught = Transformer(student.config)(windows[:, :-1]).log_softmax(-1)
    divergence, untrained = (F.kl_div(x, theirs, reduction="sum", log_target=True) for x in (ours, untaught))
    assert divergence < 0.1 * untrained


# --- ways to compute ----------------------------------------------------------------------------------------------


def losses_and_gradients(learner: Distillation, losses_of, windows: Tensor) -> list[Tensor]:
    learner.zero_grad()
    losses = losses_of(windows)
    learner.objective(losses).backward()
    return [*losses.values(), *(parameter.grad for parameter in learner.parameters())]


@EVERY_MODE
@pytest.mark.parametrize("way", ["compiled", "checkpointing"])
def test_compiled_and_checkpointed_equal_eager(mode, way):
    learner = pair(distil(mode))
    windows = windows_for(learner)
    eager = [x.clone() for x in losses_and_gradients(learner, learner.losses, windows)]
    losses_of = learner.losses
    if way == "compiled":
        torch.compiler.reset()
        losses_of = torch.compile(learner.losses, fullgraph=True, backend="aot_eager")
    else:
        learner.student.gradient_checkpointing = True
    for one, other in zip(eager, losses_and_gradients(learner, losses_of, windows), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


@EVERY_MODE
def test_bfloat16_is_close(mode):
    learner = pair(distil(mode))
    windows = windows_for(learner)
    exact = learner.losses(windows)
    with torch.autocast("cpu", torch.bfloat16):
        losses = learner.losses(windows)
        learner.objective(losses).backward()
    for name, loss in losses.items():
        torch.testing.assert_close(loss.float(), exact[name], rtol=0.03, atol=0.01)


@EVERY_MODE
def test_every_axis_comment_is_true(mode):
    """The teacher's own comments speak of its width, so its rows are those of a model and not of this file."""
    learner = pair(distil(mode), student=vary("llama", n_layers=3))
    with Trace(learner) as shapes:
        learner.objective(learner.losses(torch.randint(61, (5, 19)))).backward()
    found = [*shapes.mismatches(distinct=True), *shapes.uncommented()]
    assert not [text for text in found if "distillation.py" in str(text)]
    assert len([row for row in shapes if row.file.endswith("distillation.py") and row.claim]) > 20


# --- who can't teach whom -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings, student, teacher, said",
    [
        (distil(), vary("llama", vocab_size=60), TEACHER, "it has vocab_size=61, not 60; give both models the same"),
        (
            distil(), vary("llama", context_length=18), TEACHER.replace(position=LearnedPositionConfig()),
            "it accepts 17 positions, and the student reads context_length=18; give the student 17 or less",
        ),
        (distil(layers=(1, 2, 3)), STUDENT, TEACHER, "layers has 3 entries, and the student has 2 layers"),
        (distil(layers=(2, 5)), STUDENT, TEACHER, "layers names layer 5, and it has 4; name layers from 1 to 4"),
        (
            distil("blocks"), vary("llama", n_layers=5), TEACHER,
            "needs a layer of the teacher for each of the student's 5, and it has 4",
        ),
    ],
)
def test_a_pair_that_does_not_fit_is_refused(settings, student, teacher, said):
    with pytest.raises(ConfigError, match="'teacher' can't teach this model") as refused, torch.device("meta"):
        Distillation(Transformer(student), Transformer(teacher), settings)
    assert said in str(refused.value)
