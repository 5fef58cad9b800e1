"""Ideas: a part registered in one file or one cell obeys the laws, or an error names the law that it breaks."""

import importlib.util
import linecache
import sys
from functools import partial

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from config import BlockConfig, FutureBlockConfig, HeadConfig, MLPConfig, ModelConfig, NormConfig
from lab.runs.weights import read_weights, write_tensors
from modules.attention import Attention
from modules.block import Block
from modules.factored import Mixing
from modules.heads import Head
from modules.norms import Norm, RMSNorm
from modules.pools import PartsPool, Pool
from modules.positions import Position
from modules.residual import ResidualBlock
from modules.transformer import Transformer
from settings.errors import ConfigError, IdeaError
from settings.registry import FAMILIES, kinds_of, part, register
from tests.helpers.ideas import IDEAS, KINDS
from tests.helpers.registry import registry_restored
from tests.helpers.variants import VARIANTS, kinds_in, variant_of, vary
from tracing.traces import Trace

pytestmark = pytest.mark.usefixtures("seeded", "forgotten")


@pytest.fixture
def forgotten():
    """Removes what a test registers."""
    with registry_restored():
        yield


def import_file(folder, source: str) -> None:
    path = folder / "idea_of_a_test.py"
    path.write_text(source, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("idea_of_a_test", path)
    sys.modules[spec.name] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)


def run_cell(folder, source: str) -> None:
    """As IPython runs a cell: in __main__, with its source kept for tracebacks."""
    name = str(folder / "cell.py")
    linecache.cache[name] = len(source), None, source.splitlines(keepends=True), name
    exec(compile(source, name, "exec"), {"__name__": "__main__"})


# --- ideas that obey the laws ---------------------------------------------------------------------------------


@pytest.mark.parametrize("bring", [import_file, run_cell])
def test_an_idea_of_each_family_obeys_the_laws(bring, tmp_path):
    bring(tmp_path, IDEAS)
    assert {family for family, _ in KINDS} == set(FAMILIES)
    for family, name in KINDS:
        config = variant_of(family, name)
        assert (family, name) in kinds_in(config)
        model = Transformer(config)
        check_training(model)
        check_trace(model)
        for check in (check_causality, check_cache):
            check(stirred(config))
        check_saving(config, tmp_path)


def stirred(config: ModelConfig) -> Transformer:
    model = Transformer(config).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def tokens_for(config: ModelConfig, length: int = 13) -> torch.Tensor:
    return torch.randint(config.vocab_size, (5, length))


def check_training(model: Transformer) -> None:
    """Every parameter gets a gradient, and one batch can be memorised."""
    windows = tokens_for(model.config, model.config.context_length + 1)
    model.objective(model.losses(windows)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad.isfinite().all() and parameter.grad.abs().max() > 1e-9, name
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    before = model.losses(windows)["loss"]
    for _ in range(20):
        optimizer.zero_grad()
        model.objective(model.losses(windows)).backward()
        optimizer.step()
    assert model.losses(windows)["loss"] < before - 0.5


def check_trace(model: Transformer) -> None:
    ids = tokens_for(model.config, 18 - 4)
    with Trace(model) as shapes:
        model(ids)
    assert shapes.mismatches() == [] and shapes.uncommented() == []


def check_causality(model: Transformer) -> None:
    ids = tokens_for(model.config)
    changed = ids.clone()
    changed[:, 7] = (changed[:, 7] + 1) % model.config.vocab_size
    with torch.no_grad():
        one, other = model(ids), model(changed)
    assert torch.equal(one[:, :7], other[:, :7]) and (one[:, 7:] != other[:, 7:]).any(-1).all()


def check_cache(model: Transformer) -> None:
    ids = tokens_for(model.config)
    with torch.no_grad():
        cache = model.new_cache(5, 13)
        pieces = torch.cat([model(piece, cache) for piece in ids.split([6, 1, 1, 5], dim=1)], dim=1)
        torch.testing.assert_close(pieces, model(ids), rtol=0, atol=1e-10)


def check_saving(config: ModelConfig, folder) -> None:
    model, path = Transformer(config).eval(), folder / "model.safetensors"
    write_tensors(path, dict(model.named_parameters()), {})
    other = Transformer(ModelConfig.from_json(config.to_json())).eval()
    read_weights(other, path)
    ids = tokens_for(config)
    with torch.no_grad():
        assert torch.equal(other(ids), model(ids))


def test_every_registered_kind_is_in_a_variant():
    found = set().union(*map(kinds_in, VARIANTS.values()))
    assert {(family, name) for family in FAMILIES for name in kinds_of(family)} <= found


def test_a_cell_that_runs_again_replaces_its_idea(tmp_path):
    run_cell(tmp_path, IDEAS)
    first = part("norm", "largest")
    run_cell(tmp_path, IDEAS)
    assert part("norm", "largest") is not first
    assert type(Transformer(variant_of("norm", "largest")).norm) is part("norm", "largest")


def test_checking_an_idea_leaves_nothing_behind(tmp_path):
    import_file(tmp_path, IDEAS)
    draws = []
    for kind in ("rms", "largest"):
        torch.manual_seed(3)
        model = Transformer(vary("llama", norm=NormConfig(kind=kind)))
        draws.append(torch.rand(3))
        assert all(module.training and not module._forward_hooks for module in model.modules())
    assert torch.equal(*draws)


def test_an_attention_made_without_the_models_norms_is_refused():
    @register("block", "bare")
    class Bare(ResidualBlock):
        def __init__(self, config):
            super().__init__(config)
            self.attention = Attention(config.width, config.n_heads, config.kv_heads)

    config = vary("llama", block=BlockConfig(kind="bare"))
    with pytest.raises(ConfigError, match=r"blocks\.0\.attention was made without norms: .* Attention\.of\(config\)"):
        Transformer(config.replace(qk_norm=True))


# --- ideas that break a law -----------------------------------------------------------------------------------


def test_a_name_that_is_built_in_is_taken():
    with pytest.raises(IdeaError, match="Mine: norm 'rms' is built in; take another name"):

        @register("norm", "rms")
        class Mine(RMSNorm):
            pass

    with pytest.raises(IdeaError, match="mine: activation 'relu' is built in"):

        @register("activation", "relu")
        def mine(x):
            return x

    assert part("norm", "rms") is RMSNorm


@pytest.mark.parametrize("family, base, methods", [
    ("norm", Norm, "forward"), ("mixing", Mixing, "forward"), ("pool", Pool, "pool or reduce"),
    ("pool", PartsPool, "pool or reduce"), ("block", Block, "forward"), ("head", Head, "forward"),
    ("position", Position, "embed or place"), ("activation", nn.Module, "forward"),
])
def test_a_class_that_computes_nothing_is_refused(family, base, methods):
    with pytest.raises(IdeaError, match=rf"Mine has no {methods}\(\)"):

        @register(family, "mine")
        class Mine(base):
            pass


@pytest.mark.parametrize("thing", [nn.PReLU(), partial(torch.clamp, min=0), 3])
def test_what_is_neither_a_class_nor_a_function_is_refused(thing):
    for family in ("activation", "norm"):
        with pytest.raises(IdeaError, match=f"must be a class to be a kind of {family}"):
            register(family, "mine")(thing)
        assert "mine" not in kinds_of(family)


class TooNarrow(Norm):
    def forward(self, x):
        return x[..., :1]


class TooNarrowMixing(Mixing):
    def forward(self, x):
        return x[..., :1]


class Halved(nn.Module):
    def __init__(self, hidden):
        super().__init__()

    def forward(self, x):
        return x[..., ::2]


class OneMore(Pool):
    def pool(self, x, count):
        return x[:, :, :1].expand(-1, -1, count + 1, -1)


class FewTokens(Head):
    def forward(self, hidden):
        return hidden


class Pair(Block):
    def forward(self, x, place, cache=None):
        return x, x


class Shortened(Position):
    def embed(self, x, positions):
        return x[:, :-1]


class Nowhere(Position):
    def place(self, positions, key_positions, causal, mask):
        return None


WRONG_SHAPES = [
    ("norm", TooNarrow, "a norm's output has the shape of its input"),
    ("mixing", TooNarrowMixing, "a mixing's output has the shape of its input"),
    ("activation", Halved, "an activation's output has the shape of its input"),
    ("pool", OneMore, r"\(B, N, count, C\)"),
    ("head", FewTokens, r"a logit for each token of the vocabulary, \(…, V\)"),
    ("block", Pair, r"join\(\) reads a block's state as \(B, T, C\)"),
    ("position", Shortened, r"embed\(\) returns the embeddings, \(B, T, C\)"),
    ("position", Nowhere, "must return a PositionContext"),
]


@pytest.mark.parametrize("family, idea, law", WRONG_SHAPES, ids=lambda value: getattr(value, "__name__", None))
def test_a_wrong_shape_names_the_class_and_the_law(family, idea, law):
    register(family, "mine")(idea)
    config = variant_of(family, "mine")
    with pytest.raises(IdeaError, match=rf"{idea.__name__} \({family} 'mine'\) .*{law}"):
        Transformer(config)


def test_an_activation_that_is_a_function_is_checked_as_well():
    @register("activation", "mine")
    def halved(x):
        return x[..., ::2]

    with pytest.raises(IdeaError, match=r"halved \(activation 'mine'\) gives a tensor"):
        Transformer(vary("llama", mlp=MLPConfig(activation="mine")))


class Centred(Norm):
    """Subtracts the mean over time, which includes later positions."""

    def forward(self, x):
        return self.scale_and_shift(x - x.mean(dim=1, keepdim=True))


def test_an_idea_that_sees_the_future_is_refused():
    register("norm", "mine")(Centred)
    config = vary("llama", norm=NormConfig(kind="mine"))
    with pytest.raises(IdeaError, match=r"Centred \(norm 'mine'\) breaks causality"):
        Transformer(config)
    with torch.device("meta"):
        Transformer(config)  # has no numbers to check
    with FakeTensorMode():
        Transformer(config)


# --- heads ----------------------------------------------------------------------------------------------------


class PlainHead(Head):
    def __init__(self, config):
        super().__init__(config)
        self.map = nn.Linear(config.width, config.vocab_size, bias=False)

    def forward(self, hidden):
        return self.map(hidden)


def test_a_head_without_a_matrix_says_what_it_cannot_serve():
    register("head", "mine")(PlainHead)
    head = HeadConfig(kind="mine")
    with pytest.raises(ConfigError, match=r"PlainHead has no weight \(61, 40\).*tie_weights=False"):
        Transformer(vary("llama", head=head))
    with pytest.raises(ConfigError, match=r"PlainHead has no matrix of logits.*head\.kind='linear'"):
        Transformer(vary("future", head=head, tie_weights=False))
    vectors = FutureBlockConfig(predicts="vector_cosine")
    model = Transformer(vary("future", head=head, tie_weights=False, block=vectors))
    model.objective(model.losses(tokens_for(model.config, 18))).backward()
