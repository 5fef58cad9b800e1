"""The laws against what their papers say of Gopher's budget and of small models."""

import pytest

from lab.costs.compute_optimal import BESIROGLU, HOFFMANN, LAWS, rule_of_thumb, tokens_for

GOPHER = 5.76e23  # FLOPs


def test_chinchilla_is_what_the_rule_of_thumb_gives_for_gophers_budget():
    """70 billion parameters and 1.4 trillion tokens (Hoffmann et al. 2022, table 1)."""
    size = rule_of_thumb(GOPHER)
    assert size == pytest.approx(70e9, rel=0.02) and tokens_for(size, GOPHER) == pytest.approx(1.4e12, rel=0.02)


@pytest.mark.parametrize("law, flops, parameters, tolerance", [
    (0, GOPHER, 67e9, 0.05), (0, 1.23e22, 10e9, 0.02), (0, 1.92e19, 400e6, 0.02),  # table 3
    (1, 1.32e22, 10e9, 0.03), (1, 1.84e19, 400e6, 0.02),  # table A3
    (2, GOPHER, 40e9, 0.05), (2, 2.21e19, 400e6, 0.05),  # section 3.4, table A3
])
def test_laws_give_the_sizes_of_the_papers_tables(law, flops, parameters, tolerance):
    best, low, high = LAWS[law].suggest(flops)
    assert best == pytest.approx(parameters, rel=tolerance) and low < high


def test_exponents_are_those_of_table_2_and_of_the_refit():
    assert [round(law.exponent, 2) for law in LAWS] == [0.5, 0.49, 0.46, 0.51]
    assert HOFFMANN.exponent == pytest.approx(0.4565, abs=1e-4)
    assert BESIROGLU.exponent == pytest.approx(0.5126, abs=1e-4)


@pytest.mark.parametrize("fit", (HOFFMANN, BESIROGLU))
def test_the_best_size_is_where_the_fitted_loss_is_lowest(fit):
    """Searched on a grid, which knows nothing of the closed form."""
    sizes = [1e8 * 1.01**i for i in range(1000)]
    lowest = min(sizes, key=lambda size: fit.loss(size, tokens_for(size, GOPHER)))
    assert fit.parameters(GOPHER) == pytest.approx(lowest, rel=0.01)


def test_the_refit_agrees_with_twenty_tokens_for_each_parameter_at_gophers_budget():
    size = BESIROGLU.parameters(GOPHER)
    assert tokens_for(size, GOPHER) / size == pytest.approx(20, rel=0.15)
    size = HOFFMANN.parameters(GOPHER)
    assert tokens_for(size, GOPHER) / size > 50, "which the first fit does not"


def test_the_range_grows_away_from_the_models_that_were_trained():
    def spread(flops: float) -> float:
        _, low, high = LAWS[1].suggest(flops)
        return high / low

    assert spread(1e21) < spread(1e24) < spread(1e26) and spread(1e15) > spread(1e19)
