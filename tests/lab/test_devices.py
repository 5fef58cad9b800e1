"""What is moved to a device by hand, on the device of `--device`: there is no default device here, as for a user."""

import numpy as np
import pytest
import torch

from config import ARCHITECTURES, DropoutConfig, FutureBlockConfig, ModelConfig
from lab.analysis.attention_maps import attention_maps
from lab.analysis.interventions import ablate_heads, amplify
from lab.analysis.lenses import lens_quality, read_layers
from lab.analysis.provenance import provenance
from lab.analysis.tuned_lens import train_lens
from lab.data.packing import prepare
from lab.evaluation.evaluate import evaluate
from lab.future_sight.calibration import calibration
from lab.generation.generate import generate_text
from lab.generation.sampling_settings import STRATEGIES
from lab.generation.speculative import speculate
from lab.runs.run import Run
from lab.training.loop import train
from modules.transformer import Transformer
from tests.helpers.devices import DEVICE
from tests.helpers.small_trainings import TRAIN, assert_same, new_run

ON_GPU = DEVICE == "cuda"
# On a GPU long enough that its kernels split their work among many blocks, whose order may differ
SIZES = dict(context_length=300, n_heads=4, width=128) if ON_GPU else dict(context_length=24, n_heads=2, width=16)
LAYERS = {"future": 4, "multi-token": 3}
FEWER = {"future": FutureBlockConfig(levels=2), "multi-token": ARCHITECTURES["multi-token"]["block"].replace(heads=2)}


def small(architecture: str, **changes) -> ModelConfig:
    parts = ARCHITECTURES[architecture] | ({"block": FEWER[architecture]} if architecture in FEWER else {})
    return ModelConfig(vocab_size=257, n_layers=LAYERS.get(architecture, 2), **SIZES, **parts, **changes)


@pytest.fixture(scope="module")
def data():
    return prepare(TRAIN.data)


@pytest.mark.parametrize("precision", ["fp32", "tf32"] if ON_GPU else ["fp32"])
@pytest.mark.parametrize("architecture", ARCHITECTURES if ON_GPU else ["factored-alibi", "future", "multi-token"])
def test_resumed_is_uninterrupted(tmp_path, data, architecture, precision):
    model = small(architecture, dropout=DropoutConfig(residual=0.1))
    settings = dict(model=model, steps=6, batch_size=8, evaluate_every=6, precision=precision, compile="off")
    whole, stopped = (new_run(tmp_path / name, **settings) for name in ("whole", "stopped"))
    list(train(whole, data))
    for step in train(stopped, data):
        if step.step == 3:
            break
    list(train(Run.open("run", tmp_path / "stopped"), data))
    assert_same(stopped, whole)


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> Run:
    run = new_run(tmp_path_factory.mktemp("runs"), model=small("factored-alibi"), steps=20, compile="off")
    list(train(run, data))
    return run


@pytest.fixture(scope="module")
def models(run):
    """The same model here and on the CPU."""
    return run.load_model(DEVICE), run.load_model()


def test_the_model_says_the_same_as_on_the_cpu(run, models, data):
    for strategy in ("greedy", "balanced"):
        texts = [
            generate_text(model, run.tokenizer, "Once", max_tokens=12, sampling=STRATEGIES[strategy], cache=cache)
            for model in models for cache in (True, False)
        ]
        assert len(set(texts)) == 1
    losses = [evaluate(model, data.validation, run.tokenizer, 2000, top=(1, 5)) for model in models]
    np.testing.assert_allclose(losses[0].losses, losses[1].losses, rtol=0, atol=1e-4)


def test_analyses_are_the_same_as_on_the_cpu(run, models, data):
    prompt = "Once there was a"
    here, there = (attention_maps(model, run.tokenizer, prompt) for model in models)
    torch.testing.assert_close(here.weights, there.weights, rtol=0, atol=1e-5)
    assert here.summary().shape == there.summary().shape
    here, there = (read_layers(model, prompt, run.tokenizer) for model in models)
    torch.testing.assert_close(here.kl, there.kl, rtol=0, atol=1e-4)
    here, there = (provenance(model, prompt, run.tokenizer).split() for model in models)
    assert here.carried().to_numpy(float) == pytest.approx(there.carried().to_numpy(float), abs=1e-4)
    for measure in (
        lambda model: ablate_heads(model, data.validation, run.tokenizer, max_tokens=500),
        lambda model: amplify(model, data.validation, run.tokenizer, max_tokens=500),
    ):
        here, there = (measure(model) for model in models)
        np.testing.assert_allclose(here.select_dtypes(float), there.select_dtypes(float), rtol=0, atol=1e-3)


def test_a_tuned_lens_is_trained_and_read_here(run, models, data):
    lens = train_lens(run, data, steps=3)
    here, there = (lens_quality(model, data.validation, lens, batches=1) for model in models)
    np.testing.assert_allclose(here["kl"], there["kl"], rtol=0, atol=1e-3)
    read_layers(models[0], "Once there was", run.tokenizer, lens=lens)


def test_several_tokens_a_pass_are_those_of_the_cpu():
    torch.manual_seed(0)
    there = Transformer(small("multi-token")).eval()
    here = Transformer(there.config).eval().to(DEVICE)
    here.load_state_dict(there.state_dict())
    greedy = dict(max_tokens=10, sampling=STRATEGIES["greedy"])
    found = [speculate(model, [[1, 2, 3], [4]], **greedy).tokens for model in (here, there)]
    assert found[0] == found[1]
    drawn = speculate(here, [[1, 2, 3], [4]], max_tokens=10, draft=here, sampling=STRATEGIES["balanced"])
    assert all(len(row) == 10 for row in drawn.tokens)


def test_predictions_of_the_future_are_those_of_the_cpu(data):
    torch.manual_seed(0)
    there = Transformer(small("future")).eval()
    here = Transformer(there.config).eval().to(DEVICE)
    here.load_state_dict(there.state_dict())
    found = [calibration(model, data, max_tokens=2000).measures for model in (here, there)]
    np.testing.assert_allclose(*(frame.select_dtypes(float) for frame in found), rtol=0, atol=1e-3)


@pytest.mark.parametrize("micro", [8, 4] if ON_GPU else [4])
@pytest.mark.parametrize("optimizer", ["muon", "adamw"] if ON_GPU else ["muon"])
def test_compiled_training_is_the_same_as_eager(tmp_path, data, micro, optimizer):
    """On a GPU the passes of a whole batch are recorded and replayed; those of micro-batches are not."""
    settings = dict(
        model=small("llama"), steps=8, batch_size=8, micro_batch_size=micro, precision="fp32", optimizer=optimizer,
        learning_rate=1e-3, evaluate_every=8, dropout_final=1.0,
    )
    losses = {}
    for name in ("off", "on"):
        run = new_run(tmp_path / name, **settings, compile=name)
        losses[name] = [(step.loss, step.gradient_norm) for step in train(run, data)]
    np.testing.assert_allclose(losses["on"], losses["off"], rtol=2e-3)
