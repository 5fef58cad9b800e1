"""Plans of trainings against numbers from elsewhere: sizes, bytes per parameter, FLOPs, the memory of cards."""

import re

import pytest

from config import MLPConfig, ModelConfig, Preset, TrainConfig, preset
from lab.compute.ranks import ALONE, Ranks
from lab.costs.memory import step_bytes
from lab.costs.plans import Plan, duration, plan
from lab.costs.rank_memory import ParameterBytes, rank_memory
from settings.errors import ConfigError

PARAMETERS = 6_738_415_616  # of Llama 7B, as its authors' weights have
LLAMA = ModelConfig(
    vocab_size=32_000, context_length=2048, n_layers=32, n_heads=32, width=4096, tie_weights=False,
    mlp=MLPConfig(ratio=4.03125),  # 11,008 hidden units
)
TRAIN = TrainConfig(batch_size=8, optimizer="adamw")
SMALL = preset("llama-tiny")
EIGHT = Ranks(size=8, sharded=True)


@pytest.fixture(scope="module")
def eight() -> Plan:
    return plan(Preset(LLAMA, TRAIN), "h100x8", tokens=10**11, price=3.0)


def kept(memory) -> int:
    return memory.weights + memory.gradients + memory.optimizer


def rows_of(found: Plan) -> dict[str, tuple[str, str]]:
    return {what.strip(): (amount, remark) for what, amount, remark in found.rows()}


def test_seven_billion_parameters_need_sharding_on_eight_cards_of_80_gb(eight):
    assert rows_of(eight)["parameters"][0] == f"{PARAMETERS:,}"
    assert eight.sharding == "full" and not eight.layouts["none"].fits
    assert rows_of(eight)["sharding needed"][1].endswith("--nproc-per-node 8 tools.py train ... --sharding full")
    assert "does not fit" in rows_of(eight)["memory per rank, replicated (DDP)"][1]


def test_adamw_takes_16_bytes_for_each_parameter_or_the_ranks_part_of_them():
    """Four each of weight, gradient and two moments; beside them buffers and counters."""
    of = {}
    for ranks in (1, 8):  # with two micro-batches all gradients are there at the loss
        share = TRAIN.replace(batch_size=1) if ranks > 1 else TRAIN.replace(batch_size=2, micro_batch_size=1)
        of[ranks] = rank_memory(LLAMA, share, "bf16", "cpu", Ranks(size=ranks, sharded=True))
    assert kept(of[1]) == pytest.approx(16 * PARAMETERS, rel=2e-3)
    assert of[8].weights + of[8].optimizer == pytest.approx(12 * PARAMETERS / 8, rel=1e-2)
    assert kept(of[8]) <= 16 * PARAMETERS / 8 * 1.01


def test_muon_keeps_one_moment_of_hidden_matrices():
    hidden = 32 * (4 * 4096**2 + 3 * 4096 * 11_008)
    share = TRAIN.replace(batch_size=1)
    one, two = (rank_memory(LLAMA, share.replace(optimizer=name), "bf16", "cpu") for name in ("muon", "adamw"))
    assert two.optimizer - one.optimizer == pytest.approx(4 * hidden, rel=1e-6)


def test_time_and_cost_follow_from_flops(eight):
    """6 FLOPs for each parameter of a product, and 12 · layers · width · context for attention (PaLM, appendix B)."""
    per_token = 6 * (PARAMETERS - 32_000 * 4096) + 12 * 32 * 4096 * 2048
    assert eight.flops == pytest.approx(1e11 * per_token, rel=1e-3)
    hours = eight.flops / (8 * 0.4 * 989.4e12) / 3600
    assert hours * 3600 <= eight.seconds <= 1.1 * hours * 3600, "sending is hidden behind computing, or nearly"
    assert eight.cost == pytest.approx(8 * 3.0 * eight.seconds / 3600)
    assert eight.tokens_per_second * eight.seconds == pytest.approx(1e11, rel=1e-5)


def test_one_card_of_24_gb_does_not_hold_it_and_what_would_is_said():
    found = plan(Preset(LLAMA, TRAIN.replace(batch_size=1)), "rtx-4090", tokens=10**11)
    assert found.sharding is None
    said = rows_of(found)["fits"][1]
    n = int(re.search(r"take (\d+) × rtx-4090 with full sharding and gradient_checkpointing", said)[1])
    larger = re.search(r"take one card of 141 GB, such as (\S+)", said)[1]
    recomputed = TRAIN.replace(batch_size=n, gradient_checkpointing=True)
    assert plan(Preset(LLAMA, recomputed), f"rtx-4090x{n}").sharding == "full"
    assert plan(Preset(LLAMA, recomputed), f"rtx-4090x{n // 2}").sharding is None
    assert plan(Preset(LLAMA, TRAIN.replace(batch_size=1)), larger).sharding == "none"
    assert "time" not in rows_of(found) and "cost" not in rows_of(found)


def test_a_card_keeps_no_scores_of_attention_and_so_is_counted():
    """FlashAttention's memory grows with the length alone (arXiv 2205.14135), and that of a kernel that keeps scores
    with its square."""
    def growth(kernels: str) -> float:
        """Of activations from 512 to 1,024 tokens, in multiples of that from 256 to 512."""
        model = LLAMA.replace(n_layers=2, width=128, n_heads=8, vocab_size=64)
        of_lengths = (
            step_bytes(model.replace(context_length=length), TRAIN.replace(batch_size=1), "bf16", kernels)
            for length in (256, 512, 1024)
        )
        short, middle, long = (moments["the loss"]["activations"] for moments in of_lengths)
        return (long - middle) / (middle - short)

    assert growth("near-cuda") == pytest.approx(2, rel=0.01)
    assert 2.5 < growth("cpu") < 4


@pytest.mark.parametrize("width, together", [(256, 8), (512, 2), (1024, 1)])
def test_what_ranks_gather_is_the_outside_and_groups_of_blocks(width, together):
    """At most 25 MiB of blocks travel together; a larger block by itself."""
    model = LLAMA.replace(n_layers=16, width=width, n_heads=8)
    sizes = ParameterBytes.of(model)
    block = 4 * (4 * width**2 + 3 * width * model.mlp.hidden(width) + 2 * width)
    assert together == max(1, 25 * 2**20 // block)
    assert sizes.outside == 4 * (2 * 32_000 * width + width)
    assert sizes.group == together * block and sizes.in_a_row == 2 * sizes.group
    assert sizes.total == sizes.outside + 16 * block
    one, eight = (rank_memory(model, TRAIN.replace(batch_size=1), "fp32", "cpu", ranks) for ranks in (ALONE, EIGHT))
    assert one.gathered == 0 and eight.gathered >= sizes.outside + 2 * sizes.group


def test_gradients_stay_whole_while_micro_batches_add_up():
    model = LLAMA.replace(n_layers=6, width=512, n_heads=8)
    share = TRAIN.replace(batch_size=2)
    at_once, in_parts = (
        rank_memory(model, share.replace(micro_batch_size=size), "fp32", "cpu", EIGHT) for size in (2, 1)
    )
    sizes = ParameterBytes.of(model)
    assert in_parts.gradients >= sizes.total and at_once.gradients <= sizes.total / 8 + 1


def test_replicas_keep_the_buckets_of_their_gradients():
    """As large as all parameters, at the loss as well, where a process alone has no gradients yet."""
    model, share = LLAMA.replace(n_layers=6, width=512, n_heads=8), TRAIN.replace(batch_size=1)
    alone, replica = (rank_memory(model, share, "fp32", "cpu", ranks) for ranks in (ALONE, Ranks(size=8)))
    assert replica.gradients == ParameterBytes.of(model).total and replica.total > alone.total


def test_the_largest_micro_batch_fits_and_the_next_one_does_not(monkeypatch):
    from lab.costs import layouts

    small = Preset(SMALL.model, SMALL.train.replace(batch_size=16, precision="fp32"))

    def bytes_of(size: int) -> int:
        share = small.train.replace(batch_size=8, micro_batch_size=size)
        return rank_memory(small.model, share, "fp32", "cpu", Ranks(size=2)).total

    monkeypatch.setattr(layouts, "room_of", lambda machines: bytes_of(4) + 1)
    found = plan(small, "h100x2")
    assert found.sharding == "none" and found.chosen.micro_batch == 8 and bytes_of(8) > bytes_of(4)
    set_smaller = plan(Preset(small.model, small.train.replace(micro_batch_size=2)), "h100x2")
    assert set_smaller.chosen.micro_batch == 2 and set_smaller.chosen.memory.total == bytes_of(1)


def test_recomputing_and_slower_links_take_time():
    def seconds(hardware: str, **changes) -> float:
        return plan(Preset(SMALL.model, SMALL.train.replace(micro_batch_size=64, **changes)), hardware).seconds

    assert seconds("h100", gradient_checkpointing=True) > seconds("h100") > seconds("b200")
    assert seconds("2xh100x8") > seconds("h100x16")


def test_this_machine_is_measured():
    model = SMALL.model.replace(vocab_size=300)
    found = plan(Preset(model, SMALL.train.replace(batch_size=2, precision="fp32", steps=100)), "cpu", price=1)
    assert 0 < found.seconds < 600 and "measured" in rows_of(found)["hardware"][1]
    assert found.cost == pytest.approx(found.seconds / 3600)


def test_a_model_too_large_to_time_goes_by_the_speed_of_a_product():
    found = plan(Preset(LLAMA, TRAIN.replace(batch_size=1, steps=100)), "cpu")
    assert "in a product of 1024 × 1024 matrices" in rows_of(found)["hardware"][1]


@pytest.mark.parametrize("arguments, said", [
    (dict(hardware="h1000"), "did you mean 'h100'"),
    (dict(hardware="h100", tokens=8191), "fewer than the 8,192 of one step"),
    (dict(hardware="h100", price=-1), "price=-1 must be 0 or more"),
    (dict(hardware="h100", price=float("nan")), "price=nan"),
    (dict(hardware="h100", mfu=0), "mfu=0 is a share"),
    (dict(hardware="h100x3"), "3 ranks do not divide batch_size=64"),
])
def test_what_can_not_be_planned_is_an_error(arguments, said):
    with pytest.raises(ConfigError, match=said):
        plan(SMALL, **arguments)


def test_a_precision_that_a_card_lacks_is_an_error():
    with pytest.raises(ConfigError, match="t4 has no units for bf16"):
        plan(Preset(SMALL.model, SMALL.train.replace(precision="bf16")), "t4")
    assert plan(SMALL, "t4").speed.precision == "fp32"


def test_small_models_are_warned_of_extrapolation(eight):
    assert "extrapolates" in rows_of(plan(SMALL, "h100"))["compute-optimal"][1]
    assert "extrapolates" not in rows_of(eight)["compute-optimal"][1]


def test_the_table_is_the_same_as_html(eight):
    assert eight._repr_html_().count("<tr>") == len(repr(eight).splitlines()) == len(list(eight.rows()))
    assert max(map(len, repr(eight).splitlines())) <= 150


@pytest.mark.parametrize("seconds, text", [
    (1, "1 s"), (90, "90 s"), (600, "10 min"), (7200, "2 h"), (4e5, "4.63 days"),
])
def test_duration(seconds, text):
    assert duration(seconds) == text
