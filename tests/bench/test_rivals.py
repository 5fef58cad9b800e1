"""The rivals compute what they are said to compute."""

import math

import pytest
import torch

from bench.rivals.hugging_face import build_gpt2, mean_loss
from bench.rivals.nanogpt import NanoConfig, NanoGPT, build_adamw
from bench.shakespeare import rate_of
from bench.steps import Size, Way, nano_gpt, of_transformers, ours

SIZE = Size(2, 2, 32, 16, 3, 64)


def test_the_rebuilt_nanogpt_is_the_gpt2_of_transformers_without_biases(seeded):
    theirs, nano = build_gpt2(SIZE.model("gpt2")).eval(), NanoGPT(NanoConfig(64, 16, 2, 2, 32))
    names = {"embedding": "wte", "position": "wpe", "norm": "ln_f", "attention_norm": "ln_1", "mlp_norm": "ln_2",
             "qkv": "attn.c_attn", "out": "attn.c_proj", "up": "mlp.c_fc", "down": "mlp.c_proj"}
    modules = dict(theirs.transformer.named_modules())
    with torch.no_grad():
        for name, weight in nano.named_parameters():
            *block, part, _ = name.split(".")
            weight.add_(0.1 * torch.randn_like(weight))
            module = modules[".".join((["h", block[1]] if block else []) + [names[part]])]
            module.weight.copy_(weight.T if part in ("qkv", "out", "up", "down") else weight)
            if getattr(module, "bias", None) is not None:
                module.bias.zero_()
        for block in theirs.transformer.h:
            block.mlp.act = torch.nn.GELU()
        windows = torch.randint(64, (3, 17))
        expected = mean_loss(theirs, windows[:, :-1], windows[:, 1:])
        assert nano(windows[:, :-1], windows[:, 1:]).item() == pytest.approx(expected.item(), abs=1e-5)


def test_the_124m_has_as_many_parameters_as_nanogpt_prints():
    """"number of parameters: 123.59M", which leaves out the positions; decay is on 50 matrices."""
    with torch.device("meta"):
        model = NanoGPT(NanoConfig(50_304, 1024, 12, 12, 768))
    counted = sum(p.numel() for name, p in model.named_parameters() if name != "position.weight")
    assert f"{counted / 1e6:.2f}M" == "123.59M"
    decayed, rest = build_adamw(model).param_groups
    assert (len(decayed["params"]), len(rest["params"])) == (50, 25) and rest["weight_decay"] == 0


def test_nanogpts_rates_warm_up_and_fall_to_a_tenth():
    rates = [rate_of(step, 2000) for step in range(2001)]
    assert rates[0] == pytest.approx(1e-3 / 101) and max(rates) == rates[100] == pytest.approx(1e-3)
    assert rates[1050] == pytest.approx(5.5e-4) and rates[2000] == pytest.approx(1e-4)


@pytest.mark.parametrize("step", [
    lambda: nano_gpt(SIZE, Way()), lambda: nano_gpt(SIZE, Way("bf16")),
    lambda: of_transformers(SIZE, Way("bf16")), lambda: of_transformers(SIZE, Way(), "gpt2", False),
    lambda: ours(SIZE.model("gpt2"), SIZE.batch, {"compile": "off", "optimizer": "adamw"}),
])
def test_a_step_changes_the_weights_and_leaves_no_gradient(seeded, monkeypatch, step):
    """Every contestant does the whole step that is timed."""
    seen = {}
    original = torch.optim.AdamW.step

    def watched(self, *arguments, **keywords):
        parameters = [p for group in self.param_groups for p in group["params"]]
        before = [p.detach().clone() for p in parameters]
        norm = math.sqrt(sum(p.grad.square().sum().item() for p in parameters))
        original(self, *arguments, **keywords)
        changed = sum(not torch.equal(old, new) for old, new in zip(before, parameters))
        seen.update(parameters=parameters, norm=norm, changed=changed)

    monkeypatch.setattr(torch.optim.AdamW, "step", watched)
    step()()
    assert seen["changed"] >= len(seen["parameters"]) - 2 and seen["norm"] <= 1 + 1e-4
    assert all(p.grad is None for p in seen["parameters"])
