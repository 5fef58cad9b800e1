"""Estimates against the model that computes: parameters and FLOPs exactly, memory within 5 % of the allocator's."""


import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from config import ARCHITECTURES, DropoutConfig, ModelConfig, TrainConfig, list_presets, preset
from lab.compute.optimizer import build_optimizer
from lab.costs.estimates import estimate, si
from lab.costs.memory import decoding_memory, training_memory
from modules import kernels
from modules.transformer import Transformer
from settings.errors import ConfigError
from tests.helpers.measures import peak_bytes
from tests.helpers.variants import TRAINED, VARIANTS, fewest_layers

CHECKPOINTED = pytest.mark.parametrize("checkpointing", (False, True), ids=("kept", "checkpointed"))
PRECISIONS = pytest.mark.parametrize("precision", ("fp32", "bf16"))
TOLERANCE = 0.05  # of memory; a tensor forgotten in a block shows


# --- parameters and FLOPs -------------------------------------------------------------------------------------


def assert_same_parameters(config: ModelConfig, model: torch.nn.Module) -> None:
    estimated = estimate(config)
    assert estimated.parameters == sum(p.numel() for p in model.parameters())
    counted = dict.fromkeys(estimated.components, 0)
    for name, parameter in model.named_parameters():
        counted[next(part for part in counted if f"{name}.".startswith(f"{part}."))] += parameter.numel()
    assert estimated.components == counted


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_of_every_variant(name):
    """Each quantised weight is one, as it was before."""
    assert_same_parameters(VARIANTS[name], Transformer(VARIANTS[name].replace(quantised=None)))


@pytest.mark.parametrize("name", list_presets())
def test_parameters_of_every_preset(name):
    with torch.device("meta"):
        assert_same_parameters(preset(name).model, Transformer(preset(name).model))


def test_gpt2_has_its_published_size():
    assert estimate(preset("gpt2-124m").model).parameters == 124_439_808


@CHECKPOINTED
@pytest.mark.parametrize("name", VARIANTS)
def test_flops_of_every_variant(name, checkpointing):
    config = fewest_layers(VARIANTS[name])
    model = Transformer(config).train()
    model.gradient_checkpointing = checkpointing
    for attention in (module for module in model.modules() if hasattr(module, "fused")):
        attention.fused = False  # the counter sees matrix products, not what a fused kernel does
    # B·A of an adapter on a mixing is multiplied once, however many rows and tokens there are
    rows, whole = (1, config.context_length) if config.lora else (3, 0)
    tokens = torch.zeros(rows, config.context_length, dtype=torch.long)
    with FlopCounterMode(display=False) as forward:
        logits = model(tokens)
    with FlopCounterMode(display=False) as training:
        model.objective(model.losses(torch.zeros(rows, config.context_length + 1, dtype=torch.long))).backward()
    estimated = estimate(config, TrainConfig(gradient_checkpointing=checkpointing))
    assert logits.shape == (*tokens.shape, config.vocab_size)
    assert abs(estimated.forward_flops * tokens.numel() - forward.get_total_flops()) <= whole
    # a token's share of a level's windows is no whole number
    assert estimated.training_flops * tokens.numel() == pytest.approx(training.get_total_flops(), abs=tokens.numel())


# --- memory ---------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def one_thread():
    """Kernels take a buffer for each thread; the estimate leaves those out."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_the_allocators_record_is_exact():
    def work():
        first = torch.zeros(1000)  # 4,000 bytes
        second = torch.zeros(3000)  # 12,000 more
        del first
        second.exp().sum()  # and 12,000 in place of the first

    assert 24_000 <= peak_bytes(work) <= 24_100


def train_two_steps(config: ModelConfig, train: TrainConfig, precision: str) -> None:
    """As lab.training.loop does: a step on windows just long enough for every head, so that the optimizer has its state
    of every parameter, and the one that counts."""
    model = Transformer(config).train()
    model.gradient_checkpointing = train.gradient_checkpointing
    optimizer = build_optimizer(model, train)
    for length in (8, config.context_length):
        windows = torch.zeros(train.batch_size, length + 1, dtype=torch.long)
        for part in windows.split(train.micro_batch_size or train.batch_size):
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = model.objective(model.losses(part))
            loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def assert_training_fits(config: ModelConfig, precision: str, tolerance: float = TOLERANCE, **settings) -> None:
    train = TrainConfig(**settings)
    measured = peak_bytes(lambda: train_two_steps(config, train, precision))
    assert training_memory(config, train, precision).total == pytest.approx(measured, rel=tolerance)


@CHECKPOINTED
@PRECISIONS
@pytest.mark.parametrize("size, batch", (("tiny", 16), ("small", 2)))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_memory_of_presets(architecture, size, batch, precision, checkpointing):
    config = preset(f"{architecture}-{size}").model
    config = config.replace(n_layers=max(min(config.n_layers, 3), config.block.layers_needed))  # six take twice as long
    assert_training_fits(config, precision, batch_size=batch, gradient_checkpointing=checkpointing)


@PRECISIONS
@pytest.mark.parametrize("name", TRAINED)
def test_training_memory_of_variants(name, precision):
    """Checkpointed, so that the peak lies inside a block and shows what its backward pass works with."""
    config = fewest_layers(VARIANTS[name]).replace(context_length=150, max_positions=None)
    assert_training_fits(config, precision, batch_size=3, gradient_checkpointing=True)


@PRECISIONS
@pytest.mark.parametrize(
    "changes, settings",
    (
        (dict(dropout=DropoutConfig(attention=0.1)), dict(batch_size=4, gradient_checkpointing=True)),
        (dict(dropout=DropoutConfig(residual=0.1, embedding=0.1)), dict(batch_size=4)),
        (dict(vocab_size=2000), dict(batch_size=6, micro_batch_size=2)),
        (dict(vocab_size=3000), dict(batch_size=1, gradient_checkpointing=True)),
    ),
    ids=("attention dropout", "other dropout", "accumulated", "more weights than activations"),
)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_memory_of_settings(architecture, changes, settings, precision):
    config = fewest_layers(VARIANTS[architecture]).replace(context_length=160, **changes)
    assert_training_fits(config, precision, **settings)


@PRECISIONS
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_training_memory_beyond_the_longest_written_out_attention(architecture, precision):
    """The fused kernel works with a tile of scores, 1 MB beside this small model, which no tensor shows."""
    config = VARIANTS[architecture].replace(context_length=kernels.LONGEST + 76)
    assert_training_fits(config, precision, tolerance=0.15, batch_size=2)


@pytest.mark.parametrize("name", VARIANTS)
def test_cache_of_every_variant(name):
    config = VARIANTS[name]
    cache = Transformer(config).new_cache(batch=3, capacity=config.position_limit)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert decoding_memory(config, batch=3).cache == held
    assert estimate(config).cache_per_token * 3 * config.position_limit == held


@pytest.mark.parametrize("batch", (1, 8))
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decoding_memory(architecture, batch):
    config = preset(f"{architecture}-small").model
    length = 200

    def decode():
        model = Transformer(config).eval()
        cache = model.new_cache(batch, length)
        cache.lengths = [length - 1] * batch
        with torch.no_grad():
            model(torch.zeros(batch, 1, dtype=torch.long), cache)

    assert decoding_memory(config, batch, length).total == pytest.approx(peak_bytes(decode), rel=TOLERANCE)


def test_half_the_bytes_per_value_is_half_the_memory():
    config = preset("llama-small").model
    assert decoding_memory(config, 4, 100, bytes_per_value=2).total * 2 == decoding_memory(config, 4, 100).total


@pytest.mark.parametrize("wrong", (dict(batch=0), dict(length=0), dict(length=1025), dict(bytes_per_value=0)))
def test_impossible_decoding_is_an_error(wrong):
    with pytest.raises(ConfigError, match=str(next(iter(wrong)))):
        decoding_memory(preset("llama-small").model, **wrong)


def test_further_micro_batches_take_no_more_than_the_second():
    config, train = VARIANTS["llama"], TrainConfig(batch_size=2, micro_batch_size=1)
    two, six = (training_memory(config, train.replace(batch_size=size), "fp32") for size in (2, 6))
    tokens = 8 * 4 * (config.context_length + 1)  # of the four windows more
    assert six.total - two.total == tokens


# --- the table ------------------------------------------------------------------------------------------------


def test_table_shows_the_numbers():
    model, train = preset("gpt2-124m")
    shown = estimate(model, train)
    rows = {what.strip(): amount for what, amount, _ in shown.rows()}
    assert rows["parameters"] == "124,439,808"
    assert rows["each of 12 blocks"] == f"{12 * 768**2 + 13 * 768:,}"  # 4 C² + 8 C² of matrices, 9 C biases, 4 C norms
    assert rows["in the whole training"] == si(1000 * 8 * 1024 * shown.training_flops, "FLOP")
    assert rows["cache per token"] == "73.7 kB"  # 2 · 12 layers · 768 channels · 4 bytes
    html = shown._repr_html_()
    assert html.count("<tr>") == len(repr(shown).splitlines())
    for (what, amount, remark), line in zip(shown.rows(), repr(shown).splitlines(), strict=True):
        assert line.split() == f"{what} {amount} {remark}".split()
        assert all(f">{text.strip()}</td>" in html for text in (what, amount, remark))


def test_what_fits_is_not_known_in_the_table():
    model, train = preset("llama-tiny")
    shown = repr(estimate(model, train.replace(micro_batch_size="auto")))
    assert shown.count(", all sequences at once") == 2
    assert shown.replace(", all sequences at once", "") == repr(estimate(model, train))


def test_heads_beside_each_other_are_layers_like_any_other_in_the_table():
    assert "each of 6 blocks" in repr(estimate(VARIANTS["multi-token"]))


def test_without_a_training_there_is_none_in_the_table():
    shown = estimate(preset("llama-tiny").model)
    assert shown.training == {} and "whole training" not in repr(shown) and "training in" not in repr(shown)


@pytest.mark.parametrize(
    "number, text",
    ((0, "0 B"), (7, "7 B"), (999, "999 B"), (1234, "1.23 kB"), (999_960, "1.00 MB"), (5.5e13, "55.0 TB")),
)
def test_si(number, text):
    assert si(number, "B") == text


def test_layers_are_counted_from_1():
    shown = estimate(preset("future-tiny").model)
    assert "  block 1 " in repr(shown) and "  block 5 " in repr(shown) and "block 0" not in repr(shown)
    assert "each of blocks 1 to 2" in repr(estimate(preset("future-small").model))
    assert shown.block_components(1)["attention"] == shown.components["blocks.0.attention"]
