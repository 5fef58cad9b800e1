"""The names of machines to plan for."""

import pytest

from lab.costs.hardware import CARDS, find_card
from lab.costs.machines import BETWEEN_NODES, read_machines
from settings.errors import ConfigError


@pytest.mark.parametrize("name, nodes, key, each, ranks", [
    ("h100", 1, "h100", 1, 1), ("h100x8", 1, "h100", 8, 8), ("2xh100x8", 2, "h100", 8, 16),
    (" H100X8 ", 1, "h100", 8, 8),
    ("a100-80gb", 1, "a100-80gb", 1, 1), ("rtx-4090x2", 1, "rtx-4090", 2, 2), ("4xl40s", 4, "l40s", 1, 4),
])
def test_cards_by_name(name, nodes, key, each, ranks):
    found = read_machines(name)
    assert (found.nodes, found.card.key, found.each, found.ranks) == (nodes, key, each, ranks)


def test_the_cpu_is_this_machine():
    assert read_machines("cpu").card is None and read_machines("cpu").ranks == 1
    assert read_machines("cpux4").ranks == 4 and str(read_machines("cpux4")) == "this machine's CPU, 4 processes"


@pytest.mark.parametrize("name, said", [
    ("h10", "did you mean 'h100'"), ("rtx4090", "did you mean 'rtx-4090'"),
    ("tpu", "unknown hardware 'tpu'; did you mean 'cpu'"),
    ("", "unknown hardware"), ("h100x0", "has 0 ranks"), ("9999xh100x999", "has 9,989,001 ranks"),
    ("2xcpu", "this machine alone"), ("h100x-8", "unknown hardware"),
])
def test_what_is_no_machine_is_an_error(name, said):
    with pytest.raises(ConfigError, match=said):
        read_machines(name)


def test_the_slowest_way_between_ranks_counts():
    assert read_machines("h100x8").link == 450 and read_machines("2xh100x8").link == BETWEEN_NODES
    assert read_machines("2xl40sx8").link == 32, "PCIe is slower than the network"


def test_every_card_can_be_named():
    assert len({card.key for card in CARDS}) == len(CARDS)
    for card in CARDS:
        assert read_machines(card.key).card is card and read_machines(f"2x{card.key}x4").ranks == 8


@pytest.mark.parametrize("name, memory", [
    ("NVIDIA A100-SXM4-80GB", 80), ("NVIDIA A100 80GB PCIe", 80), ("NVIDIA A100-SXM4-40GB", 40), ("NVIDIA H200", 141),
    ("NVIDIA H100 80GB HBM3", 80), ("NVIDIA GeForce RTX 4090", 24), ("NVIDIA L40S", 48), ("Tesla T4", 16),
])
def test_memory_is_that_of_the_data_sheet(name, memory):
    assert find_card(name).memory == memory
