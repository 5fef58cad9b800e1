"""Several runs from one prompt and seed: each as it would be alone, with numbers that a plain pass confirms."""

import math

import pytest
import torch

from config import DataConfig, ModelConfig, ScheduleConfig, TrainConfig
from lab.comparison.side_by_side import generate_side_by_side
from lab.generation.generate import generate, generate_text
from lab.generation.sampling_settings import SamplingConfig
from lab.runs.run import Run
from lab.runs.weights import write_tensors
from lab.terminal import main
from modules.transformer import Transformer
from settings.errors import GenerationError, RunError

pytestmark = pytest.mark.usefixtures("seeded")
HOW = dict(seed=5, sampling=SamplingConfig(temperature=1.0), max_tokens=12)


@pytest.fixture
def runs(tmp_path) -> list[Run]:
    """Two models that have learned nothing, with different tokenizers."""
    made = []
    for name, tokenizer, vocab_size in (("bytes", "byte", 257), ("pairs", "bpe-512", 512)):
        model = ModelConfig(vocab_size=vocab_size, context_length=16, n_layers=1, n_heads=2, width=16)
        data = DataConfig(tokenizer=tokenizer, max_documents=60)
        train = TrainConfig(data=data, steps=4, schedule=ScheduleConfig(warmup_steps=0))
        run = Run.create(name, model, train, tmp_path)
        write_tensors(run.weights_path, dict(Transformer(model).named_parameters()), {"step": 0})
        made.append(run)
    return made


def test_each_run_writes_what_it_writes_alone(runs):
    frame = generate_side_by_side(runs, "Once", **HOW).frame
    assert list(frame.index) == ["bytes", "pairs"]
    assert list(frame.columns) == ["text", "tokens", "log_probability", "bits_per_byte"]
    for run in runs:
        assert frame.loc[run.name, "text"] == generate_text(run.load_model(), run.tokenizer, "Once", **HOW)
    again = generate_side_by_side(runs[::-1], "Once", **HOW).frame
    assert again.loc[frame.index].equals(frame)


def test_the_numbers_are_those_of_a_plain_pass(runs):
    for run in runs:
        row = generate_side_by_side([run], "Once", **HOW).frame.loc[run.name]
        model, prompt, size = run.load_model(), run.tokenizer.encode("Once"), run.tokenizer.vocab_size
        made = [step.ids[0] for step in generate(model, [prompt], stop_tokens=[256], vocab_size=size, **HOW)]
        with torch.no_grad():
            log_p = model(torch.tensor([prompt + made]))[0].log_softmax(-1)
        total = sum(log_p[len(prompt) - 1 + i, id].item() for i, id in enumerate(made))
        n_bytes = sum(len(run.tokenizer.token_bytes(id)) for id in made if id != 256)
        assert row["tokens"] == len(made) and row["text"] == run.tokenizer.decode(prompt + made)
        assert row["log_probability"] == pytest.approx(total / len(made), rel=1e-5)
        assert row["bits_per_byte"] == pytest.approx(-total / math.log(2) / n_bytes, rel=1e-5)


def test_they_show_as_columns(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "120")
    shown = generate_side_by_side(runs, "Once", **HOW)
    value = shown.frame.loc["pairs", "log_probability"]
    html = shown._repr_html_()
    assert html.count("<td") == html.count("<th") == 2 and f"{value:.3f} nats per token" in html
    assert [name.strip() for name in repr(shown).splitlines()[0].split("│")] == ["bytes", "pairs"]
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path)
    flags = ["--prompt", "Once", "--max-tokens", "12", "--seed", "5", "--sampling.temperature", "1.0"]
    assert main(["generate", "bytes", "pairs", *flags, "--sampling.top-p", "None"]) == 0
    assert capsys.readouterr().out == f"{shown}\n"


def test_refuses_what_makes_no_sense(runs):
    for given, how, error, message in (
        ([], {}, RunError, "not none"),
        ([runs[0], runs[0]], {}, RunError, "a name of its own, not bytes, bytes"),
        (runs, {"prompt": ""}, GenerationError, "empty"),
        (runs, {"max_tokens": 5000}, GenerationError, "positions"),
    ):
        with pytest.raises(error, match=message):
            generate_side_by_side(given, **how)
