"""The laws for every value mixing × output mixing × position encoding; tests/variants.py has a choice of them only."""

import pytest
import test_laws
from test_laws import VARIANTS
from variants import factored, vary

from config import ALiBiConfig, LearnedPositionConfig, NoPositionConfig, RoPEConfig, SinusoidalConfig
from modules.factored import MIXINGS

pytestmark = pytest.mark.usefixtures("seeded")

POSITIONS = [NoPositionConfig(), LearnedPositionConfig(), SinusoidalConfig(), RoPEConfig(), ALiBiConfig()]
LAWS = [
    test_laws.test_causal, test_laws.test_cached_equals_uncached, test_laws.test_cached_equals_uncached_by_hand,
    test_laws.test_batched_equals_one_by_one, test_laws.test_ragged_batch_equals_one_by_one,
    test_laws.test_cache_that_forgets_equals_one_that_never_knew, test_laws.test_every_parameter_gets_a_gradient,
    test_laws.test_loss_is_cross_entropy_of_the_next_token, test_laws.test_fused_attention_equals_manual_attention,
]  # fmt: skip


@pytest.mark.parametrize("position", POSITIONS, ids=lambda config: config.kind)
@pytest.mark.parametrize("output_mixing", MIXINGS)
@pytest.mark.parametrize("value_mixing", MIXINGS)
def test_all_laws_hold(value_mixing, output_mixing, position, monkeypatch):
    config = vary("factored", block=factored(value_mixing, output_mixing), position=position)
    monkeypatch.setitem(VARIANTS, "this one", config)
    for law in LAWS:
        law("this one")
