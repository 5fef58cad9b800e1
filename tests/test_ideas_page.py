"""CONTRIBUTING.md shows an idea of each family; each of them, in a temporary file, works like a built-in part."""

import re
import subprocess
import sys

import pytest
import torch

from config import ScheduleConfig, TrainConfig
from lab.comparison.comparison import compare
from lab.costs.estimates import estimate
from lab.generation.generate import generate_text
from lab.runs.listing import list_runs
from lab.runs.run import Run
from lab.shapes.views import trace
from lab.terminal_flags import import_idea
from lab.training.loop import train
from settings.paths import ROOT
from settings.registry import FAMILIES
from tests.helpers.registry import registry_restored
from tests.helpers.small_runs import DATA
from tests.helpers.variants import variant_of

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## How to add an idea")[2]
SNIPPETS = {
    re.search(r'@register\("(\w+)", "(\w+)"\)', text).groups(): text
    for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
}
TRAIN = TrainConfig(
    data=DATA, steps=3, batch_size=2, evaluation_tokens=32, sample_tokens=2, precision="fp32", compile="off",
    schedule=ScheduleConfig(warmup_steps=0),
)


@pytest.fixture(autouse=True)
def restored(seeded):
    with registry_restored():
        yield


def test_the_page_shows_one_idea_of_each_family():
    assert sorted(family for family, _ in SNIPPETS) == sorted(FAMILIES)


@pytest.mark.parametrize("family, name", SNIPPETS)
def test_an_idea_goes_all_the_way(family, name, tmp_path):
    file = tmp_path / "my_idea.py"
    file.write_text(SNIPPETS[family, name], encoding="utf-8")
    import_idea(file)
    model = variant_of(family, name).replace(vocab_size=257)
    run = Run.create("mine", model, TRAIN, tmp_path / "runs")
    assert [step.step for step in train(run)] == [1, 2, 3]

    trained = run.load_model()
    with trace(trained) as shapes:
        trained(torch.randint(257, (2, 9)))
    assert shapes.mismatches() == [] and "all true" in shapes.check()

    text = dict(prompt="Once", max_tokens=5, seed=3)
    cached, plain = (generate_text(trained, run.tokenizer, **text, cache=cache) for cache in (True, False))
    assert cached == plain

    costs = estimate(model, TRAIN)
    assert costs.parameters == sum(parameter.numel() for parameter in trained.parameters())
    assert costs.training_flops > costs.forward_flops > 0 and costs.training["fp32"].total > 0

    Run.create("plain", variant_of("norm", "rms").replace(vocab_size=257), TRAIN, tmp_path / "runs")
    table = compare([run.folder]).evaluate(max_tokens=64).table()
    assert table.loc["mine", "parameters"] == costs.parameters

    again = Run.open("mine", tmp_path / "runs").load_model()
    ids = torch.randint(257, (2, 9))
    with torch.no_grad():
        assert torch.equal(again(ids), trained(ids))

    code = f"from lab.runs.listing import list_runs; print(list_runs({str(run.folder.parent)!r}).to_string())"
    listed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True)
    assert list_runs(run.folder.parent)["status"]["mine"] == "finished, 3 steps"
    assert f"needs the idea '{name}'" in listed.stdout, "another process has not imported it"
