"""Eager or compiled: the same tokens, chosen by what both cost, and told."""

import pytest
import torch
from torch._dynamo.exc import TorchDynamoException

from config import ModelConfig, QuantisedConfig
from lab.generation import decoding
from lab.generation.decoding import ASSUMED_COMPILING, TIMED, Decoder, StepTimes
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.generation.token_step import capacity_for
from modules.transformer import Transformer
from settings.errors import GenerationError
from tests.helpers.variants import vary

PROMPTS = [[3, 1, 4], [1], [5, 9, 2, 6]]
LIMIT = 80


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def model(seeded) -> Transformer:
    return Transformer(vary("llama", max_positions=LIMIT, init_std=0.2)).double().eval()


class FakeSteps:
    """In place of compiled steps: eager ones, whose logits are `off` by something."""

    off = 0.0

    def __init__(self, model, cache):
        self.model, self.cache = model, cache

    def __call__(self, newest):
        CLOCK.now += CLOCK.compiled
        return self.model(newest[:, None], self.cache)[:, -1] + self.off * torch.arange(self.model.config.vocab_size)


class Clock:
    """Each reading is `eager` seconds after the one before; a fake compiled step takes `compiled` on top."""

    def __init__(self):
        self.now, self.eager, self.compiled = 0.0, 0.0, 0.0

    def __call__(self):
        self.now += self.eager
        return self.now


@pytest.fixture
def clock(monkeypatch):
    global CLOCK
    CLOCK = Clock()
    monkeypatch.setattr(decoding, "CompiledSteps", FakeSteps)
    monkeypatch.setattr(FakeSteps, "off", 0.0)
    return CLOCK


def run(model: Transformer, decode: str, made: int, asked: int, clock: Clock) -> list[str]:
    """Makes some of the tokens that were asked for; returns how each step ran."""
    cache = model.new_cache(2, capacity_for(LIMIT, LIMIT))
    decoder, hows = Decoder(model, cache, decode, asked, clock), []
    with torch.inference_mode():
        for _ in range(made):
            assert decoder(torch.tensor([1, 2])).shape == (2, model.config.vocab_size)
            hows.append(decoder.how)
    assert cache.lengths == [made] * 2
    return hows


def kinds(hows: list[str]) -> list[str]:
    return [how.split(":")[0].split(",")[0] for how in hows]


# --- the choice -----------------------------------------------------------------------------------------------


def test_unknown_times_are_measured_before_auto_compiles(model, clock):
    """Half of an eager step's time is taken to be saved, against half a minute of compiling."""
    clock.eager = 1.0
    enough = int(ASSUMED_COMPILING / 0.5) + TIMED + 1
    assert kinds(run(model, "auto", 12, enough, clock)) == ["eager"] * TIMED + ["compiled"] * (12 - TIMED)
    hows = run(model, "auto", 12, enough - 1, clock)
    assert kinds(hows) == ["eager"] * 12
    assert hows[-1] == "eager: 60 compiled steps would save about 30.0 s, and compiling takes 30 s"


def test_what_was_measured_is_kept_and_decides_at_once(model, clock, cache_folder):
    clock.eager, clock.compiled = 0.25, 0.0
    assert kinds(run(model, "compiled", TIMED + 1, 40, clock)) == ["compiled"] * (TIMED + 1)
    (entry,) = (cache_folder / "costs").iterdir()
    kept = Decoder(model, model.new_cache(2, 81), "auto", 9).times
    assert kept == StepTimes(eager=0.25, compiled=0.25, compiling=0.25)
    entry.unlink()
    decoding.write_entry(entry, dict(eager=1.0, compiled=0.5, compiling=5.0))
    assert kinds(run(model, "auto", 2, 11, clock)) == ["compiled"] * 2
    assert kinds(run(model, "auto", 2, 10, clock)) == ["eager"] * 2
    assert Decoder(model, model.new_cache(3, 81), "auto", 9).times is None  # another batch


def test_another_type_has_times_of_its_own(model):
    before = decoding.times_key(model, 1)
    assert decoding.times_key(model.float(), 1) != before


def test_a_compiled_step_of_this_process_costs_nothing_more(model, clock, monkeypatch):
    clock.eager = 1.0
    monkeypatch.setitem(decoding.STEPS, model, {2: None})
    assert kinds(run(model, "auto", 10, 10, clock)) == ["eager"] * TIMED + ["compiled"] * 2


def test_auto_returns_to_eager_steps_where_compiled_ones_are_slower(model, clock):
    clock.eager, clock.compiled = 1.0, 3.0
    hows = run(model, "auto", TIMED + 12, 100, clock)
    assert kinds(hows) == ["eager"] * TIMED + ["compiled"] * TIMED + ["eager"] * 4
    assert hows[-1] == "eager: 1000.00 ms a step, compiled 4000.00"
    assert kinds(run(model, "auto", 5, 10**6, clock)) == ["eager"] * 5  # remembered
    assert kinds(run(model, "compiled", 20, 20, clock)) == ["compiled"] * 20


def test_eager_is_eager(model, clock):
    clock.eager = 1000.0
    assert run(model, "eager", 20, 10**6, clock) == ["eager, as asked"] * 20


# --- what can't be compiled -----------------------------------------------------------------------------------


def test_hooks_are_not_skipped(model, clock):
    seen = []
    handle = model.norm.register_forward_hook(lambda *_: seen.append(1))
    clock.eager = 100.0
    hows = run(model, "auto", 10, 100, clock)
    assert hows[-1] == "eager: not compiled, because it has hooks, which a compiled step would skip"
    assert len(seen) == 10
    with pytest.raises(GenerationError, match=r"can't be decoded compiled: it has hooks.*use decode='eager'"):
        Decoder(model, model.new_cache(1, 81), "compiled", 5)
    handle.remove()


def test_other_logits_are_refused(model, clock, monkeypatch):
    monkeypatch.setattr(FakeSteps, "off", 1e-3)
    clock.eager = 100.0
    hows = run(model, "auto", 12, 100, clock)
    assert kinds(hows) == ["eager"] * 12 and "gives other logits" in hows[-1]
    with pytest.raises(GenerationError, match=r"gives other logits.*use decode='eager'"):
        run(model, "compiled", 1, 1, clock)


def test_a_compiler_that_fails_is_told(model, clock, monkeypatch):
    def fail(self, newest):
        raise TorchDynamoException("no g++ here\nand more")

    monkeypatch.setattr(FakeSteps, "__call__", fail)
    clock.eager = 100.0
    hows = run(model, "auto", 12, 100, clock)
    assert hows[-1] == "eager: not compiled, because the compiler fails: no g++ here"
    with pytest.raises(GenerationError, match=r"the compiler fails: no g.. here; use decode='eager'"):
        run(model, "compiled", 1, 1, clock)


@pytest.mark.parametrize("settings", [dict(decode="fast"), dict(decode="compiled", cache=False)])
def test_what_cannot_be_used_is_refused_at_once(model, settings):
    with pytest.raises(GenerationError, match="decode must be one of 'auto', 'eager', 'compiled'"):
        generate(model, PROMPTS, max_tokens=3, **settings)


# --- the same tokens ------------------------------------------------------------------------------------------


def rows(steps) -> list[list[int]]:
    return [list(row) for row in zip(*(step.ids for step in steps))]


@pytest.mark.parametrize(("config", "prompts"), [
    pytest.param(vary("llama", n_layers=1, max_positions=LIMIT), PROMPTS, id="llama, prompts of different lengths"),
    pytest.param(vary("alibi", n_layers=1, max_positions=LIMIT, n_kv_heads=2), PROMPTS[:1], id="alibi grouped, one"),
    pytest.param(
        vary("llama", n_layers=1, max_positions=LIMIT, quantised=QuantisedConfig()), PROMPTS[:1], id="llama int8, one"
    ),
])
def test_compiled_steps_give_the_same_tokens(seeded, config: ModelConfig, prompts):
    """By the compiler itself, in float64."""
    model = Transformer(config.replace(init_std=0.2)).double().eval()
    for sampling in (STRATEGIES["greedy"], SamplingConfig(temperature=1.3, repetition_penalty=1.2)):
        settings = dict(max_tokens=70, sampling=sampling, seed=5)
        eager = list(generate(model, prompts, decode="eager", **settings))
        compiled = list(generate(model, prompts, decode="compiled", **settings))
        assert rows(compiled) == rows(eager)
        for one, other in zip(compiled, eager):
            assert one.log_probabilities == pytest.approx(other.log_probabilities, abs=1e-6)
        assert {step.how for step in compiled} == {"compiled, as asked"}


def test_a_model_that_changes_after_compiling_gives_its_own_tokens(seeded):
    model = Transformer(vary("llama", n_layers=1, max_positions=LIMIT, init_std=0.2)).double().eval()
    settings = dict(max_tokens=20, sampling=STRATEGIES["greedy"])
    before = rows(generate(model, [[1, 2]], decode="compiled", **settings))
    model.blocks[0].attention.scale *= 7.0
    after = rows(generate(model, [[1, 2]], decode="compiled", **settings))
    assert after == rows(generate(model, [[1, 2]], decode="eager", **settings)) != before
