"""What was measured is kept, and measured again when it must be."""

import os
import subprocess
import sys

import pytest

from config import NormConfig, preset
from lab.files import remembered as memo
from lab.files.remembered import remembered
from settings.paths import ROOT, cache_folder
from settings.registry import REGISTRY, Kind

TINY = preset("llama-tiny").model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path))
    return tmp_path / "costs"


def counting(calls: list):
    """A measurement as a new process has it: nothing in memory."""

    def measure(config, number):
        calls.append(number)
        return {"width": config.width, "number": number}

    return remembered(measure)


def test_nothing_is_measured_twice(cache):
    calls = []
    for measure in (counting(calls), counting(calls)):
        assert measure(TINY, 3) == measure(TINY, 3) == {"width": 128, "number": 3}
    assert calls == [3] and len(list(cache.iterdir())) == 1
    assert counting(calls)(TINY.replace(width=64), 3)["width"] == 64 and calls == [3, 3]


@pytest.mark.parametrize("damage", (b"", b"\xff\xfe", b"no line", b"0" * 64 + b"\n{}", None))
def test_a_damaged_entry_is_measured_again(cache, damage):
    calls = []
    counting(calls)(TINY, 3)
    (entry,) = cache.iterdir()
    whole = entry.read_bytes()
    entry.write_bytes(whole.replace(b"128", b"129") if damage is None else damage)
    assert counting(calls)(TINY, 3) == {"width": 128, "number": 3}
    assert calls == [3, 3] and entry.read_bytes() == whole


def test_another_version_of_the_code_measures_again(cache, monkeypatch):
    calls = []
    counting(calls)(TINY, 3)
    monkeypatch.setattr(memo, "code_digest", lambda: "another")
    counting(calls)(TINY, 3)
    assert calls == [3, 3]


def test_without_a_place_to_keep_it_it_is_measured(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "file"))
    calls = []
    assert counting(calls)(TINY, 3)["number"] == 3 and calls == [3]


def test_an_idea_from_elsewhere_stays_in_this_process_and_is_measured_again_when_it_changes(cache, monkeypatch):
    monkeypatch.setitem(REGISTRY.kinds["norm"], "mine", Kind(part=type("Mine", (), {})))
    config, calls = TINY.replace(norm=NormConfig(kind="mine")), []
    measure = counting(calls)
    measure(config, 1), measure(config, 1)
    assert calls == [1] and not cache.exists()
    monkeypatch.setitem(REGISTRY.kinds["norm"], "mine", Kind(part=type("Mine", (), {})))
    measure(config, 1)
    assert calls == [1, 1]


def test_the_next_process_shows_an_estimate_without_torch(cache):
    code = (
        "import sys; from config import preset; from lab.costs.estimates import estimate; "
        "print(estimate(*preset('llama-tiny'))); print('torch' in sys.modules)"
    )
    shown = [
        subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, env=os.environ, capture_output=True, encoding="utf-8", check=True
        ).stdout.strip().rpartition("\n")
        for _ in range(2)
    ]
    assert [imported for *_, imported in shown] == ["True", "False"] and shown[0][0] == shown[1][0]
    assert cache_folder() == cache.parent
