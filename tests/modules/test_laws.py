"""The laws that every architecture × variant obeys."""

import dataclasses

import pytest
import torch
from torch.nn import functional as F

from config import DropoutConfig, ModelConfig
from lab.runs.weights import read_weights, write_tensors
from modules.dropout import set_dropout_share
from modules.lora import Adapter
from modules.quantised import quantise
from modules.transformer import Transformer
from settings.registry import kinds_of
from tests.helpers.devices import DEVICE, no_default_device
from tests.helpers.variants import BATCH, LENGTH, TRAINED, VARIANTS, config_of, factored, fewest_layers, vary

pytestmark = pytest.mark.usefixtures("seeded")
EVERY_VARIANT = pytest.mark.parametrize("config", VARIANTS.values(), ids=list(VARIANTS))

RATES = DropoutConfig(embedding=0.2, attention=0.2, residual=0.2)


def build(config: ModelConfig) -> Transformer:
    """Weights larger than at the start of a training, norms and biases not trivial, so that a broken law shows above
    the rounding."""
    torch.manual_seed(1)
    model = Transformer(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def build_exact(config: ModelConfig) -> Transformer:
    """In float64, where two ways to compute the same number differ only by a mistake."""
    return build(config).double()


def tokens(config: ModelConfig, length: int = LENGTH, batch: int = BATCH) -> torch.Tensor:
    return torch.randint(config.vocab_size, (batch, length))


def losses_and_gradients(model: Transformer, windows: torch.Tensor) -> tuple[dict, dict]:
    model.zero_grad()
    losses = model.losses(windows)
    model.objective(losses).backward()
    return (
        {key: loss.detach() for key, loss in losses.items()},
        {key: parameter.grad.clone() for key, parameter in model.named_parameters() if parameter.requires_grad},
    )


def assert_equal_in_float64(one: torch.Tensor, other: torch.Tensor):
    torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def assert_same(one: dict, other: dict, **tolerance):
    assert one.keys() == other.keys()
    for key in one:
        torch.testing.assert_close(
            one[key], other[key], msg=lambda text, key=key: f"{key}: {text}", **tolerance
        )


def use_manual_attention(model: Transformer):
    attentions = [module for module in model.modules() if hasattr(module, "fused")]
    assert len(attentions) >= model.config.n_layers
    for attention in attentions:
        attention.fused = False


@EVERY_VARIANT
def test_axes_have_distinct_sizes(config):
    hidden = config.mlp.hidden(config.width)
    axes = [BATCH, LENGTH, config.n_heads, config.head_dim, config.width, config.vocab_size, hidden]
    axes += [config.context_length] + [config.kv_heads] * (config.kv_heads != config.n_heads)
    assert len(set(axes)) == len(axes)


@EVERY_VARIANT
def test_causal(config):
    model = build(config)
    before = tokens(model.config)
    with torch.no_grad():
        reference = model(before)
        for place in (0, LENGTH // 2, LENGTH - 1):
            after = before.clone()
            after[:, place] = (after[:, place] + 1) % model.config.vocab_size
            logits = model(after)
            assert torch.equal(logits[:, :place], reference[:, :place])
            # each later position sees the change, not only its own, as far as the windows of all layers reach
            end = LENGTH if config.window is None else place + 1 + len(model.next_token_blocks) * (config.window - 1)
            changed = (logits != reference).any(-1)
            assert changed[:, place:end].all() and not changed[:, end:].any()


@EVERY_VARIANT
def test_next_token_blocks_are_those_that_the_logits_depend_on(config):
    model = build(config).requires_grad_(True)  # frozen weights, too
    model(tokens(model.config)).square().sum().backward()
    reached = [block for block in model.blocks if any(parameter.grad is not None for parameter in block.parameters())]
    assert model.next_token_blocks == reached


@EVERY_VARIANT
def test_cached_equals_uncached(config):
    model = build_exact(config)
    ids = tokens(model.config)
    with torch.no_grad():
        reference = model(ids)
        for pieces in ([1] * LENGTH, [LENGTH], [6, 4, 3], [5] + [1] * 8, [1, 12]):
            cache = model.new_cache(BATCH, LENGTH)
            logits = torch.cat([model(piece, cache) for piece in ids.split(pieces, dim=1)], dim=1)
            assert_equal_in_float64(logits, reference)


@EVERY_VARIANT
def test_cached_equals_uncached_by_hand(config):
    model = build_exact(config)
    ids = tokens(model.config)
    with torch.no_grad():
        reference = model(ids)
        use_manual_attention(model)
        cache = model.new_cache(BATCH, LENGTH)
        logits = torch.cat([model(piece, cache) for piece in ids.split([6, 1, 1, 5], dim=1)], dim=1)
    assert_equal_in_float64(logits, reference)


@EVERY_VARIANT
def test_batched_equals_one_by_one(config):
    model = build_exact(config)
    ids = tokens(model.config)
    with torch.no_grad():
        singly = torch.cat([model(row[None]) for row in ids])
        assert_equal_in_float64(model(ids), singly)


@EVERY_VARIANT
def test_ragged_batch_equals_one_by_one(config):
    """Prompts of different lengths, padded on the right, continued in chunks and then token by token."""
    model = build_exact(config)
    lengths = [1, 7, 4, 8, 2]
    ids = tokens(model.config)
    with torch.no_grad():
        reference = model(ids)
        cache = model.new_cache(BATCH, LENGTH)
        prompts = torch.zeros(BATCH, max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            prompts[row, :length] = ids[row, :length]
        logits = model(prompts, cache)
        cache.keep(lengths)
        for row, length in enumerate(lengths):
            assert_equal_in_float64(logits[row, :length], reference[row, :length])
        for step in (2, 1, 1, 1):
            follows = torch.tensor(cache.lengths)[:, None] + torch.arange(step)
            logits = model(ids.gather(1, follows), cache)
            expected = reference[torch.arange(BATCH)[:, None], follows]
            assert_equal_in_float64(logits, expected)


@EVERY_VARIANT
def test_ragged_batch_under_autocast(config):
    """The cache keeps float32, the pass computes in bfloat16; the results agree as far as bfloat16 has digits."""
    model = build(config)
    ids = tokens(model.config)
    with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16):
        reference = model(ids)
        cache = model.new_cache(BATCH, LENGTH)
        model(ids[:, :9], cache)
        cache.keep([9, 1, 4, 6, 2])
        follows = torch.tensor(cache.lengths)[:, None] + torch.arange(3)
        logits = model(ids.gather(1, follows), cache)
        expected = reference[torch.arange(BATCH)[:, None], follows]
    assert (logits - expected).norm() < 0.03 * expected.norm()


@EVERY_VARIANT
def test_cache_that_forgets_equals_one_that_never_knew(config):
    model = build_exact(config)
    ids = tokens(model.config)
    with torch.no_grad():
        cache = model.new_cache(BATCH, LENGTH)
        model(tokens(model.config, LENGTH), cache)
        cache.keep([0] * BATCH)
        model(ids[:, :4], cache)
        model(tokens(model.config, 6), cache)
        cache.keep([4] * BATCH)
        assert_equal_in_float64(model(ids[:, 4:], cache), model(ids)[:, 4:])


@EVERY_VARIANT
def test_eval_is_deterministic_and_without_dropout(config):
    plain, dropping = build(config), build(config.replace(dropout=RATES))
    ids = tokens(config)
    with torch.no_grad():
        reference = plain(ids)
        for _ in range(3):
            assert torch.equal(dropping(ids), reference)


@EVERY_VARIANT
@pytest.mark.parametrize("rate", [field.name for field in dataclasses.fields(DropoutConfig)])
def test_each_dropout_acts_in_training_until_its_share_is_zero(config, rate):
    model = build(config.replace(dropout=DropoutConfig(**{rate: 0.3})))
    ids = tokens(model.config)
    with torch.no_grad():
        reference = model(ids)
        model.train()
        first, second = model(ids), model(ids)
        assert not torch.equal(first, reference) and not torch.equal(first, second)
        set_dropout_share(model, 0.0)
        assert torch.equal(model(ids), reference)
        set_dropout_share(model, 0.5)
        assert not torch.equal(model(ids), reference)


@EVERY_VARIANT
def test_every_parameter_gets_a_gradient(config):
    model = Transformer(config)  # as it is initialised, because training starts there
    starts_at_0 = config.lora or config.zero_init or (config.qk_norm and config.block.kind == "shaped")
    if starts_at_0:  # what reads or feeds a 0 has no gradient before the first step
        _, gradients = losses_and_gradients(model, tokens(model.config, model.config.context_length + 1))
        with torch.no_grad():
            for key, gradient in gradients.items():
                model.get_parameter(key).sub_(gradient / gradient.abs().max().clamp(min=1e-12))
    _, gradients = losses_and_gradients(model, tokens(model.config, model.config.context_length + 1))
    for key, gradient in gradients.items():
        assert gradient.isfinite().all(), key
        assert gradient.abs().max() > 1e-7, key


@EVERY_VARIANT
def test_saved_and_loaded_equals_itself(config, tmp_path):
    model = build(config)
    text = model.config.to_json()
    ids = tokens(model.config)
    with torch.no_grad():
        expected = model(ids)
        torch.manual_seed(2)
        other = Transformer(ModelConfig.from_json(text)).eval()
        assert not torch.equal(other(ids), expected)
        write_tensors(tmp_path / "own.safetensors", model.stored_tensors(), {})
        adapters = [Adapter.of(each) for each in (model, other)] if config.lora else []
        for adapter in adapters:
            adapter.take_off()  # below an adapter is the base, stored by itself
        write_tensors(tmp_path / "whole.safetensors", model.stored_tensors(), {})
        read_weights(other, tmp_path / "whole.safetensors")
        for adapter in adapters[1:]:
            adapter.put_on()
        read_weights(other, tmp_path / "own.safetensors")
        assert torch.equal(other(ids), expected)


def overfit(model: Transformer, windows: torch.Tensor, steps: int = 100, enough: float = 0.1) -> torch.Tensor:
    """The loss of one batch after training on it alone, with an early end where it is low enough."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        losses = model.losses(windows)
        if losses["loss"] < enough:
            break
        model.objective(losses).backward()
        optimizer.step()
    return model.losses(windows)["loss"]


@pytest.mark.parametrize("config", TRAINED.values(), ids=list(TRAINED))
def test_one_batch_can_be_overfitted(config):
    """An adapter adapts a trained model: its base has learned the same batch read backwards, and is quantised then, if
    it is to be. What is random is drawn on the CPU, and so is the same on every device."""
    with torch.device("cpu"):
        model = Transformer(config.replace(lora=None, quantised=None)).train()
        windows = tokens(model.config, LENGTH + 1, batch=2).to(DEVICE)
        if config.lora:
            overfit(model.to(DEVICE), windows.flip(1), enough=0.02)
            if config.quantised:
                quantise(model, config.quantised)
            Adapter.attach(model.cpu(), config.lora.replace(rank=8, dropout=0.0)).model.train()
    model.to(DEVICE)
    assert overfit(model, windows, steps=300 if config.lora else 100) < 0.1  # most need half of the steps


@EVERY_VARIANT
def test_loss_is_cross_entropy_of_the_next_token(config):
    model = build(config)
    windows = tokens(model.config, LENGTH + 1)
    expected = F.cross_entropy(model(windows[:, :-1]).flatten(0, 1), windows[:, 1:].flatten())
    torch.testing.assert_close(model.losses(windows)["loss"], expected)


@EVERY_VARIANT
def test_compiled_equals_eager_in_one_graph(config):
    model = build(fewest_layers(config))
    ids, others = tokens(model.config), tokens(model.config)
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    with torch.no_grad(), no_default_device():
        torch.testing.assert_close(compiled(ids), model(ids), rtol=1e-5, atol=1e-6)
        compiled(others)
    assert len(graphs) == 1


@EVERY_VARIANT
def test_fused_attention_equals_manual_attention(config):
    model = build_exact(config)
    ids = tokens(model.config)
    direction = torch.randn(BATCH, LENGTH, model.config.vocab_size, dtype=torch.float64)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def logits_and_gradients():
        logits = model(ids)
        found = torch.autograd.grad((logits * direction).sum(), trained, allow_unused=True)
        return [logits, *(gradient for gradient in found if gradient is not None)]  # None: what only a loss reads

    fused = logits_and_gradients()
    use_manual_attention(model)
    for by_hand, by_kernel in zip(logits_and_gradients(), fused, strict=True):
        torch.testing.assert_close(by_hand, by_kernel, rtol=1e-9, atol=1e-9)


@EVERY_VARIANT
@pytest.mark.parametrize("rates", [DropoutConfig(), RATES], ids=["plain", "dropout"])
def test_gradient_checkpointing_changes_no_number(config, rates):
    model = build(config.replace(dropout=rates)).train()
    windows = tokens(model.config, LENGTH + 1)
    results = []
    for model.gradient_checkpointing in (False, True):
        torch.manual_seed(3)
        results.append(losses_and_gradients(model, windows))
    (plain_losses, plain_gradients), (losses, gradients) = results
    assert_same(losses, plain_losses, rtol=0, atol=0)
    assert_same(gradients, plain_gradients, rtol=1e-6, atol=1e-7)


@EVERY_VARIANT
def test_gradient_checkpointing_recomputes_every_block(config):
    model = build(config).train()
    calls = []
    for i, block in enumerate(model.blocks):
        block.attention.register_forward_pre_hook(lambda *_, i=i: calls.append(i))
    losses_and_gradients(model, tokens(model.config, LENGTH + 1))
    layers = list(range(model.config.n_layers))
    assert set(calls) == set(layers) and len(calls) < 2 * len(layers)  # further heads are computed twice in any case
    calls.clear()
    model.gradient_checkpointing = True
    losses_and_gradients(model, tokens(model.config, LENGTH + 1))
    assert sorted(calls) == sorted(layers * 2)


# --- every value mixing × output mixing × position encoding, of which the variants hold a choice ------------------

POSITIONS = [config_of("position", name) for name in kinds_of("position")]
LAWS_OF_MIXINGS = [
    test_causal, test_cached_equals_uncached, test_cached_equals_uncached_by_hand, test_batched_equals_one_by_one,
    test_ragged_batch_equals_one_by_one, test_cache_that_forgets_equals_one_that_never_knew,
    test_every_parameter_gets_a_gradient, test_loss_is_cross_entropy_of_the_next_token,
    test_fused_attention_equals_manual_attention,
]


@pytest.mark.parametrize("position", POSITIONS, ids=lambda config: config.kind)
@pytest.mark.parametrize("output_mixing", kinds_of("mixing"))
@pytest.mark.parametrize("value_mixing", kinds_of("mixing"))
def test_laws_hold_for_every_mixing(value_mixing, output_mixing, position):
    config = vary("factored", block=factored(value_mixing, output_mixing), position=position)
    for law in LAWS_OF_MIXINGS:
        law(config)
