"""The future-sighted network attends to its own predictions of the future, and never to the future itself."""

import itertools
import math

import pytest
import torch
from torch.nn import functional as F

from config import FutureBlockConfig, ModelConfig, preset
from lab.future_sight.leak import LeakyTransformer, demonstrate_leak, whole_and_blind
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES
from modules.bag_of_words import BagLoss, expected_embedding
from modules.foresight import Foresight, without_overlap
from modules.future import CrossAttention
from modules.losses import CHUNK, future_windows
from modules.pools import build_pool
from modules.transformer import Transformer
from settings.errors import ConfigError
from settings.registry import kinds_of
from tests.helpers.devices import generator
from tests.helpers.measures import LargestTensor
from tests.helpers.stirred_models import stirred_alike
from tests.helpers.variants import VARIANTS, built_in, vary

pytestmark = pytest.mark.usefixtures("seeded")

POOLS = kinds_of("pool")
SCHEDULES = ("constant", "linear", "root", "log", "poly")
PREDICTS = ("bag", "multi_hot", "vector_cosine", "vector_squared")
BATCH, LENGTH = 2, 9


def small(pool: str, schedule: str, predicts: str, **changes) -> ModelConfig:
    """The smallest network with two levels. Some share their pool, and some have a linear map after it."""
    number = list(POOLS).index(pool) + SCHEDULES.index(schedule)
    block = FutureBlockConfig(
        levels=2, pool=pool, schedule=schedule, predicts=predicts, linear_after=number % 2 == 0, share=number % 3 == 0
    )
    sizes = dict(vocab_size=11, context_length=LENGTH, n_layers=4, n_heads=2, width=8)
    return ModelConfig(**sizes | dict(block=block) | changes)


def windows_of(config: ModelConfig, length: int = LENGTH + 1, batch: int = BATCH) -> torch.Tensor:
    return torch.randint(config.vocab_size, (batch, length))


# --- for every pool × schedule × prediction ---------------------------------------------------------------------

EVERY = pytest.mark.parametrize("pool, predicts", list(itertools.product(POOLS, PREDICTS)))


@EVERY
def test_no_logit_depends_on_what_comes_after(pool, predicts):
    """Each row is the same text with another token changed. All logits before the change stay the same bits."""
    for schedule in SCHEDULES:
        model = stirred_alike(small(pool, schedule, predicts)).float()
        text = torch.randint(11, (LENGTH,))
        changed = text.repeat(LENGTH, 1)
        changed.fill_diagonal_(0)
        changed += torch.diag((text + 1) % 11)
        with torch.no_grad():
            logits, reference = model(changed), model(text.repeat(LENGTH, 1))
        before = torch.ones(LENGTH, LENGTH).triu(1).T.bool()  # (row: which token changed, position before it)
        assert torch.equal(logits[before], reference[before])
        assert (logits[~before] != reference[~before]).any(-1).all()


@EVERY
def test_training_generation_and_cache_agree_and_rows_do_not_mix(pool, predicts):
    for schedule in SCHEDULES:
        model = stirred_alike(small(pool, schedule, predicts))
        ids = windows_of(model.config, LENGTH)
        with torch.no_grad():
            evaluated = model(ids)
            trained = model.train()(ids)
            cache = model.new_cache(BATCH, LENGTH)
            cached = torch.cat([model(piece, cache) for piece in ids.split([4, 1, 1, 3], dim=1)], dim=1)
            singly = torch.cat([model(row[None]) for row in ids])
        assert torch.equal(trained, evaluated)
        torch.testing.assert_close(cached, evaluated, rtol=0, atol=1e-10)
        torch.testing.assert_close(singly, evaluated, rtol=0, atol=1e-10)


@EVERY
def test_targets_reach_the_losses_and_nothing_else(pool, predicts):
    """Other targets with the same inputs change the losses but not the state; and every parameter gets a gradient."""
    for schedule in SCHEDULES:
        model = stirred_alike(small(pool, schedule, predicts)).float()
        windows = windows_of(model.config)
        with torch.no_grad():
            state = model.state(windows[:, :-1])
        other = windows.clone()
        other[:, -1] = (other[:, -1] + 1) % 11
        with torch.no_grad():
            again = model.state(other[:, :-1])
        assert all(torch.equal(one, two) for one, two in zip(state, again, strict=True))
        before, after = model.losses(windows), model.losses(other)
        assert all(before[f"future_{level}"] != after[f"future_{level}"] for level in (1, 2))
        model.objective(before).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 1e-9, name


@EVERY
def test_one_batch_can_be_memorised(pool, predicts):
    """The tokens are random, so that only a model that has memorised them can predict them."""
    for schedule in SCHEDULES:
        model = Transformer(small(pool, schedule, predicts, width=16, init_std=0.2))  # larger weights learn sooner
        optimizer = torch.optim.AdamW(model.parameters(), lr=2e-2, betas=(0.8, 0.95), fused=True)
        windows = windows_of(model.config)
        first = model.losses(windows)["loss"]
        for _ in range(300):
            losses = model.losses(windows)
            if losses["loss"] < 0.1:
                break
            optimizer.zero_grad()
            model.objective(losses).backward()
            optimizer.step()
        assert losses["loss"] < 0.1 < 2 < first


def test_greedy_generation_follows_the_forward_pass_with_and_without_the_cache():
    model = stirred_alike(VARIANTS["future-flatten"]).float()
    texts = []
    for cache in (True, False):
        steps = generate(model, [[3, 5, 7], [1]], max_tokens=8, sampling=STRATEGIES["greedy"], cache=cache)
        texts.append([step.ids for step in steps])
    assert texts[0] == texts[1]
    ids = torch.tensor([[3, 5, 7, *(row[0] for row in texts[0])]])
    with torch.no_grad():
        assert model(ids)[0, 2:-1].argmax(-1).tolist() == ids[0, 3:].tolist()


# --- the leak, on purpose -----------------------------------------------------------------------------------------


def earlier_logits_change(model: Transformer) -> bool:
    text = torch.randint(11, (1, LENGTH))
    other = text.clone()
    other[:, -1] = (other[:, -1] + 1) % 11
    with torch.no_grad():
        return not torch.equal(model(text)[:, :-1], model(other)[:, :-1])


def test_the_causality_test_catches_a_leak():
    config = small("mean", "constant", "bag")
    honest, leaky = stirred_alike(config).float(), LeakyTransformer(config).eval()
    leaky.load_state_dict(honest.state_dict())
    assert earlier_logits_change(leaky) and not earlier_logits_change(honest)


def test_the_leak_shows_and_the_causal_network_has_none():
    """On texts that end before the target, the causal network's loss is the same, and the leaky one's is not."""
    config = small("mean", "constant", "bag")
    model, windows = stirred_alike(config), windows_of(config, 13)
    with torch.no_grad():
        logits = model(windows[:, :-1]).log_softmax(-1)
    expected = -logits.gather(2, windows[:, 1:, None])[:, 6:, 0].mean().item()  # the second half
    assert whole_and_blind(model, windows) == pytest.approx((expected, expected), abs=1e-9)
    leaky = LeakyTransformer(config).double().eval()
    leaky.load_state_dict(model.state_dict())
    with torch.no_grad():
        logits = leaky(windows[:, :-1]).log_softmax(-1)
    expected = -logits.gather(2, windows[:, 1:, None])[:, 6:, 0].mean().item()
    whole, blind = whole_and_blind(leaky, windows)
    assert whole == pytest.approx(expected, abs=1e-9) and abs(blind - whole) > 1e-4
    with pytest.raises(ConfigError, match="future-sighted"):
        demonstrate_leak(preset("llama-tiny"), None, "")


# --- windows ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor, windows", [(2, ((2, 3), (4, 7), (8, 15))), (3, ((2, 4), (5, 13), (14, 40))),
                                             (4, ((2, 5), (6, 21), (22, 85)))])
def test_levels_are_disjoint_and_leave_no_offset_out(factor, windows):
    block = FutureBlockConfig(factor=factor)
    assert block.windows == windows
    offsets = [offset for first, last in block.windows for offset in range(first, last + 1)]
    assert offsets == list(range(2, block.look_ahead + 1))  # 1 is the next token's
    assert [last - first + 1 for first, last in windows] == [factor, factor**2, factor**3]


@pytest.mark.parametrize("length", [1, 7, 8, 9, 20])
def test_windows_are_those_of_a_plain_loop(length):
    windows = torch.arange(3 * length).view(3, length)
    for first, last in FutureBlockConfig().windows:
        found = future_windows(windows, first, last)
        complete = [
            [row[t + first : t + last + 1].tolist() for t in range(length) if t + last < length] for row in windows
        ]
        assert found.tolist() == complete and found.shape[2] == last - first + 1


def test_vectors_by_level():
    def counts(schedule, **changes):
        return FutureBlockConfig(schedule=schedule, levels=5, **changes).counts

    assert counts("constant", vectors=2) == (2, 2, 2, 2, 2)
    assert counts("linear") == (1, 2, 3, 4, 5) and counts("poly") == (1, 4, 8, 16, 25)  # at most 2, 4, 8, 16, 32
    assert counts("root") == (1, 1, 2, 2, 2) and counts("log") == (1, 2, 2, 3, 3)
    assert counts("constant", vectors=9) == (2, 4, 8, 9, 9)


# --- pools ------------------------------------------------------------------------------------------------------


def by_loops(pool, x, count):
    """(W, C) -> (count, C), by the definition."""
    parts = x.tensor_split(count)
    kind = type(pool).__name__
    if kind in ("SumPool", "MeanPool", "MaxPool"):
        each = {"SumPool": sum, "MeanPool": lambda p: sum(p) / len(p), "MaxPool": lambda p: torch.stack(p).amax(0)}
        return [each[kind](list(part)) for part in parts]
    if kind == "ParametricSumPool":
        return [sum(pool.weight[j, w] * x[w] for w in range(len(x))) for j in range(count)]
    if kind == "ParametricMaxPool":
        return [torch.stack([pool.weight[j, w] * x[w] for w in range(len(x))]).amax(0) for j in range(count)]
    width = x.shape[1]
    if kind == "FlattenPool":
        rows = pool.map.weight.view(-1, width, pool.map.in_features // width, width)
        return [sum(rows[j, :, w] @ x[w] for w in range(len(x))) for j in range(count)]
    if kind == "ConvolutionPool":
        rows = pool.map.weight.view(-1, width, pool.factor, width)
        groups = range(0, len(x), pool.factor)
        answers = [[sum(rows[j, :, i] @ x[g + i] for i in range(pool.factor)) for g in groups] for j in range(count)]
        return [torch.stack(answer).amax(0) for answer in answers]
    if kind == "AttentionPool":
        queries, keys = pool.queries, x
    else:
        queries, keys = pool.queries(x.mean(0)).view(-1, width), pool.keys(x)
    return [sum(p * v for p, v in zip((keys @ q / math.sqrt(width)).softmax(0), x)) for q in queries[:count]]


@pytest.mark.parametrize("name", built_in("pool"))
@pytest.mark.parametrize("window, count", [(9, 3), (9, 2), (3, 1)])
def test_a_pool_is_what_its_definition_says(name, window, count):
    """Also with the first part of weights made for a larger window, as in a shared pool."""
    config = small(name, "constant", "bag", block=FutureBlockConfig(pool=name, factor=3, levels=1))
    pool = build_pool(config, window=9, count=3).double()
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.normal_()
        x = torch.randn(2, 4, window, 8, dtype=torch.float64)
        expected = torch.stack([torch.stack([torch.stack(by_loops(pool, w, count)) for w in row]) for row in x])
        torch.testing.assert_close(pool(x, count), expected, rtol=1e-9, atol=1e-9)


def test_shared_weights_are_one_pool():
    for share, pools in ((True, 1), (False, 2)):
        config = small("flatten", "linear", "bag", block=FutureBlockConfig(levels=2, pool="flatten", share=share))
        found = {module.pool for module in Transformer(config).modules() if isinstance(module, Foresight)}
        assert len(found) == pools


# --- bags -------------------------------------------------------------------------------------------------------


def gradients_of(function, *inputs):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    direction = torch.randn(out.shape, generator=generator(3), dtype=out.dtype)
    return [out.detach(), *torch.autograd.grad((out * direction).sum(), inputs)]


@pytest.mark.parametrize("offset", [None, -1.3])
@pytest.mark.parametrize("n", [1, 7, 20])
def test_bag_loss_equals_the_plain_formula(n, offset):
    x, weight, bags = torch.randn(n, 6), torch.randn(11, 6), torch.randint(11, (n, 4))

    def plain(x, weight):
        logits = x @ weight.T
        counts = F.one_hot(bags, 11).sum(1).float()
        if offset is None:
            return F.cross_entropy(logits, counts / 4, reduction="sum")
        return F.binary_cross_entropy_with_logits(logits + offset, counts.clamp(max=1), reduction="sum") / 4

    ours = gradients_of(lambda x, w: BagLoss.apply(x, w, bags, offset, 7), x, weight)
    for result, expected in zip(ours, gradients_of(plain, x, weight), strict=True):
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("offset", [None, -1.3])
def test_expected_embedding_equals_the_plain_formula(offset):
    x, weight, table = torch.randn(20, 6), torch.randn(11, 6), torch.randn(11, 6)

    def plain(x, weight, table):
        p = (x @ weight.T).softmax(-1) if offset is None else (x @ weight.T + offset).sigmoid()
        return p @ table / p.sum(-1, keepdim=True)

    x.requires_grad_()
    ours = expected_embedding(x, weight, table, offset, 7)
    torch.testing.assert_close(ours, plain(x, weight, table), rtol=1e-4, atol=1e-5)
    assert not ours.requires_grad  # a bag learns from its own loss alone


def test_the_logits_of_a_level_never_exist_all_at_once():
    config = small("mean", "constant", "bag", vocab_size=301)
    model, batch = Transformer(config), 2 * CHUNK // LENGTH + 5
    with LargestTensor() as ours:
        model.objective(model.losses(windows_of(config, batch=batch))).backward()
    assert ours.numel <= CHUNK * 301 < batch * LENGTH * 301


# --- what went wrong before ---------------------------------------------------------------------------------------


def test_no_query_ever_has_a_single_key():
    """A softmax over one key is constant, so the first position has `nothing` beside its own vectors."""
    config = small("mean", "constant", "bag")
    model = stirred_alike(config)
    seen = []
    for module in model.modules():
        if isinstance(module, CrossAttention):
            module.fused, weights = False, module.weights
            module.weights = lambda *inputs, weights=weights: seen.append(weights(*inputs)) or seen[-1]
    with torch.no_grad():
        model(windows_of(config, LENGTH))
    assert [attention.shape[-1] for attention in seen] == [LENGTH + 1, 2 * LENGTH + 1]
    for attention in seen:
        assert ((attention[:, :, 0] > 0).sum(-1) >= 2).all() and (attention[:, :, 0].amax(-1) < 1).all()
        assert (attention.sum(-1) - 1).abs().max() < 1e-12


def test_each_level_reads_all_that_look_further_and_the_last_layer_reads_every_level():
    blocks = Transformer(vary("future")).blocks  # a body of two
    assert [block.n_vectors for block in blocks] == [0, 0, 0, 1, 2, 3]
    assert [block.foresight and block.foresight.name for block in blocks] == [
        None, None, "future_3", "future_2", "future_1", None,
    ]


def test_incomplete_windows_count_for_nothing():
    """A level's loss is the mean over complete windows; for a text without one it is 0."""
    model = stirred_alike(small("mean", "constant", "bag")).float()
    windows = windows_of(model.config)
    state = model.state(windows[:, :-1])
    for level, order in ((1, 1), (2, 0)):  # the furthest is read first
        first, last = model.config.block.windows[level - 1]
        log_p = (state.read[:, :, order] @ model.head.weight.T).log_softmax(-1)
        losses = [
            -log_p[b, t, windows[b, t + first : t + last + 1]].mean()
            for b in range(BATCH) for t in range(LENGTH) if t + last <= LENGTH
        ]
        torch.testing.assert_close(model.losses(windows)[f"future_{level}"], torch.stack(losses).mean())
    short = model.losses(windows[:, :5])
    assert short["future_2"] == 0 < short["future_1"]


@pytest.mark.parametrize("length, size", [(1, 8), (5, 8), (8, 8), (20, 8), (100, 2)])
def test_windows_without_overlap_share_no_token_wherever_a_row_begins(length, size):
    rows, positions = without_overlap(torch.zeros(64, length, size))
    assert torch.equal(rows[:, 0], torch.arange(64)) and positions.max() < length
    assert positions.shape[1] == max(1, length // size)
    assert (positions.diff(dim=1) >= size).all()
    assert set(positions.flatten().tolist()) == set(range(length))  # every position has its turn


def test_windows_without_overlap_teach_the_same_in_the_mean():
    """In training a level's loss uses some of the complete windows; its mean over many draws is the loss over all."""
    model = stirred_alike(small("mean", "constant", "bag")).float()
    windows = windows_of(model.config, batch=2000)[:1].expand(2000, -1)
    exact = model.losses(windows[:1])["future_1"]
    drawn = model.train().losses(windows)["future_1"]
    assert drawn != exact
    torch.testing.assert_close(drawn, exact, rtol=0.02, atol=0)


def test_loss_weights_decay_by_level_and_leave_the_next_token_alone():
    model = Transformer(vary("future", block=FutureBlockConfig(loss_weight=0.4, decay=0.5, predicts="vector_cosine")))
    weights = model.loss_weights
    trained = {name: weight for name, weight in weights.items() if weight}
    assert trained == {"loss": 1.0, "future_1": 0.4, "future_2": 0.2, "future_3": 0.1}
    losses = model.losses(windows_of(model.config, 18))
    assert list(losses) == list(weights)
    total = sum(weight * losses[name] for name, weight in weights.items())
    torch.testing.assert_close(model.objective(losses), total)
    assert Transformer(VARIANTS["llama"]).loss_weights == {"loss": 1.0}


# --- collapse -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["mean", "attention"])
@pytest.mark.parametrize("predicts", ["vector_cosine", "vector_squared"])
def test_vectors_do_not_collapse(pool, predicts):
    """A constant prediction has a loss of 1. A cycle of tokens can be predicted, and the vectors do not collapse."""
    config = small(pool, "constant", predicts, block=FutureBlockConfig(
        levels=2, pool=pool, predicts=predicts, loss_weight=1.0, decay=1.0))
    model = Transformer(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(60):
        starts = torch.randint(11, (16, 1))
        losses = model.losses((starts + 3 * torch.arange(LENGTH + 1)) % 11)
        optimizer.zero_grad()
        model.objective(losses).backward()
        optimizer.step()
    for level in (1, 2):
        assert losses[f"future_{level}"] < 0.7
        assert losses[f"future_{level}_spread"] > 0.5 and losses[f"future_{level}_target_spread"] > 0.5


def test_the_spread_shows_a_collapse():
    """If all embeddings are equal, so are all targets, and the loss is no better than chance."""
    model = Transformer(small("mean", "constant", "vector_squared"))
    windows = windows_of(model.config)
    with torch.no_grad():
        assert model.losses(windows)["future_1_target_spread"] > 0.5
        model.embedding.weight.copy_(model.embedding.weight[:1].expand(11, -1).clone())
        assert model.losses(windows)["future_1_target_spread"] < 1e-3
