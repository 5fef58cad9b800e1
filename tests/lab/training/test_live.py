"""Watching a training: steps pass through unchanged, stopping keeps the run, and only what helps the reader stays."""

import base64
import re
import subprocess
import sys
import threading
import types
from html import unescape

import nbformat
import pytest
from ipywidgets.widgets.widget import _instances as widget_instances
from jupyter_client.manager import start_new_kernel
from nbclient import NotebookClient

import lab.display.kernel
import lab.display.static_twin
import lab.training.live
from lab.display.plots import Picture
from lab.notebooks import WIDGET
from lab.training.live import Bar, Lines, Panel, live
from settings.paths import ROOT
from tests.helpers.fake_runs import FakeRun, Step


@pytest.fixture
def clock(monkeypatch):
    fake = types.SimpleNamespace(now=1000.0)
    monkeypatch.setattr(lab.training.live, "monotonic", lambda: fake.now)
    return fake


@pytest.fixture(autouse=True)
def no_wish_for_plain_lines(monkeypatch):
    monkeypatch.delenv("GLASSBOX_PLAIN", raising=False)


@pytest.fixture
def panels(monkeypatch):
    """live() behaves as in a notebook; yields what the cell's two outputs showed, one thing after the other."""
    shown = types.SimpleNamespace(twin=[], panel=[])

    def display(bundle, raw, display_id):
        place = shown.panel if WIDGET in bundle else shown.twin
        place.append(widget_instances[bundle[WIDGET]["model_id"]] if WIDGET in bundle else bundle)
        return types.SimpleNamespace(update=lambda thing, raw=False: place.append(thing))

    monkeypatch.setattr(lab.training.live, "has_reader", lambda: True)
    monkeypatch.setattr(lab.display.static_twin, "display", display)
    return shown


# --- plain lines and the terminal -----------------------------------------------------------------------------


def test_steps_pass_through_unchanged_and_the_run_is_closed_first(monkeypatch):
    run = FakeRun()
    monkeypatch.setattr(Lines, "close", lambda view, step: run.events.append(f"view closed at {step.step}"))
    passed = list(live(run.train(), run))
    assert len(passed) == 100 and all(a is b for a, b in zip(passed, run.records))
    assert run.events == ["kept", "view closed at 100"]


def test_plain_lines_say_how_far_and_how_long_and_are_few(clock, capsys):
    run = FakeRun(clock)
    for _ in live(run.train(), run, floor=1.5):
        pass
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "step 1/100 (1%) · loss 2.500 · 1,234 tokens/s · 2.00 GB"
    # 495 seconds from the first step on: a twentieth is 24.75, so five steps
    assert [line.split("/")[0] for line in lines if "tokens/s" in line] == [f"step {n}" for n in range(1, 101, 5)]
    assert lines[3].startswith("step 16/100 (16%) · 07:00 left · loss 2.500 · validation 3.250 · ")
    assert lines[4:6] == ["sample at step 20: Mia <3", "the boat"]
    last = "mine: finished 100 steps · trained 08:20 · loss 2.500 · validation 3.250 · floor 1.500"
    assert lines[-1] == last and len(lines) == 23


def test_the_share_of_a_known_cards_peak_stands_beside_the_speed():
    view = Lines(FakeRun(), None)
    assert view.facts(Step(step=1, mfu=0.4251)) == "loss 2.500 · 1,234 tokens/s (MFU 43%) · 2.00 GB"
    assert view.facts(Step(step=1)) == "loss 2.500 · 1,234 tokens/s · 2.00 GB"


def test_time_left_of_a_resumed_run_counts_its_own_steps_only(clock, capsys):
    run = FakeRun(clock)
    for _ in live(run.train(first=91, last=94), run):
        pass
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith("step 91/100 (91%) · loss") and second.startswith("step 93/100 (93%) · 00:35 left · loss")
    assert last.startswith("mine: stopped at step 94 of 100 · trained 07:50")


def test_a_run_without_steps_left_says_so(capsys):
    run = FakeRun()
    assert list(live(run.train(last=0), run)) == []
    assert capsys.readouterr().out == "mine: new; no step was taken\n"


def test_leaving_the_loop_or_failing_in_it_keeps_the_run(capsys):
    run = FakeRun()
    for step in live(run.train(), run):
        if step.step == 7:
            break
    assert run.events == ["kept"] and "stopped at step 7 of 100" in capsys.readouterr().out
    steps = live(run.train(), run)
    next(steps)
    with pytest.raises(KeyboardInterrupt):
        steps.throw(KeyboardInterrupt)
    assert run.events == ["kept", "kept"] and "stopped at step 1 of 100" in capsys.readouterr().out


def test_a_failing_training_still_fails():
    def failing():
        yield Step(step=1)
        raise ValueError("not finite")

    with pytest.raises(ValueError, match="not finite"):
        list(live(failing(), FakeRun()))


def test_a_terminal_gets_one_line_that_changes(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    run = FakeRun()
    assert isinstance(lab.training.live.open_view(run, None, 1.0), Bar)
    for _ in live(run.train(), run):
        pass
    shown = capsys.readouterr()
    assert shown.err.startswith("\r  1%") and shown.err.count("\n") == 1
    assert "100/100" in shown.err and "loss 2.500" in shown.err and "sample at step 20: Mia <3" in shown.out
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    assert isinstance(lab.training.live.open_view(run, None, 1.0), Lines)


def test_watching_in_a_terminal_loads_nothing_heavy():
    code = """
import sys, types, lab.training.live
run = types.SimpleNamespace(name="mine", remark="", train_config=types.SimpleNamespace(steps=1))
run.status, run.steps_done = lambda: "new", lambda: 0
list(lab.training.live.live((step for step in ()), run))
print(*{"torch", "matplotlib", "pandas", "ipywidgets", "IPython"} & set(sys.modules))"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout == "mine: new; no step was taken\n\n"


# --- the panel ------------------------------------------------------------------------------------------------


def test_the_panel_shows_the_training_and_leaves_a_picture(panels, clock, capsys):
    before, run = set(widget_instances), FakeRun(clock)
    for step in live(run.train(first=18, last=22), run, floor=1.5):
        _, top, text, curve, sample = panels.panel[0].children
        assert top.children[0].value == step.step and bytes(curve.value).startswith(b"\x89PNG")
        assert f"step {step.step}/100" in text.value
        assert ("Mia &lt;3" in sample.value) == (step.step >= 20)
        assert bytes(curve.value) in base64.b64decode(re.search("base64,([^\"]+)", panels.twin[-1]["text/html"])[1])
    assert isinstance(panels.twin[-1], Picture) and "step 22" in repr(panels.twin[-1])
    assert len(panels.panel) == 2 and panels.panel[1]["text/plain"].startswith("mine: stopped at step 22 of 100")
    assert set(widget_instances) == before and capsys.readouterr().out == ""


def test_the_stop_button_ends_it_after_the_current_step(panels, clock):
    run, passed = FakeRun(clock), []
    for step in live(run.train(), run):
        passed.append(step.step)
        if step.step == 3:
            button = panels.panel[0].children[1].children[1]
            button.click()
            assert button.disabled and "stopping" in button.description
    assert passed == [1, 2, 3] and run.events == ["kept"] and "step 3" in repr(panels.twin[-1])
    assert "stopped at step 3 of 100" in panels.panel[1]["text/plain"]


@pytest.mark.parametrize("last", [3, 100])
def test_an_event_of_the_callers_is_what_the_button_sets_and_stops_it_too(panels, last):
    run, stopping, passed = FakeRun(), threading.Event(), 0
    for step in live(run.train(), run, stopping=stopping):
        passed += 1
        if step.step == last:
            assert not stopping.is_set()
            panels.panel[0].children[1].children[1].click()
    assert passed == last and stopping.is_set()
    assert [step.step for step in live(run.train(), run, stopping=stopping)] == [1]
    assert run.events == ["kept", "kept"] and "stopped at step 1 of 100" in panels.panel[-1]["text/plain"]


def test_slow_drawing_happens_less_often_but_not_at_first(panels, clock, monkeypatch):
    def slow_picture(run, floor):
        clock.now += 2
        drawn.append(run.records[-1].step)
        return types.SimpleNamespace(png=b"%d" % len(drawn), html="")

    drawn, run = [], FakeRun(clock)
    monkeypatch.setattr(lab.training.live, "picture", slow_picture)
    for _ in live(run.train(last=70), run, every_seconds=1.0):
        pass
    # steps take 5 seconds; at first a fifth of the time so far passes, then 40 seconds, of which 2 are a twentieth
    assert drawn == [1, 2, 3, 4, 5, 7, 9, 12, 15, 19, 24, 30, 37, 45, 53, 61, 69, 70]


def test_what_goes_on_between_the_steps_is_said(panels):
    said, run = [], FakeRun()
    run.remark = "'mine' is taken, so this run is 'mine-2'"

    def text() -> str:
        return unescape(re.sub("<[^>]*>", "", panels.panel[0].children[2].value))

    def telling():
        run.listener("cpu, bf16: about 3 minutes")
        run.listener("compiling & taking the first step")
        said.append(text())
        for step in run.train(last=2):
            yield step
            run.listener("validating")
            said.append(text())

    for _ in live(telling(), run):
        said.append(text())
    before, first, later, second, last = said
    assert before.splitlines() == [run.remark, "cpu, bf16: about 3 minutes", "compiling & taking the first step"]
    assert first.startswith("step 1/100") and later == f"{first}\nvalidating"
    assert second.startswith("step") and last.endswith("\nvalidating") and run.listener is None


def test_lines_and_bar_say_it_too(monkeypatch, capsys):
    def telling(run):
        run.listener("measuring")
        for step in run.train(last=2):
            yield step
            run.listener("validating")

    run = FakeRun()
    run.remark = "'mine' is taken"
    assert len(list(live(telling(run), run))) == 2
    assert capsys.readouterr().out.splitlines()[:2] == ["'mine' is taken", "measuring"]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert len(list(live(telling(run), run))) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("'mine' is taken\nmeasuring\n") and "validating" in shown.err


def test_no_part_of_the_panel_grows(panels, clock):
    """What is above the Stop button or beside it has its height from the beginning; what is below, too."""
    run, heights = FakeRun(clock), []
    for _ in live(run.train(first=18, last=22), run):
        heights.append([part.layout.height for part in panels.panel[0].children[2:]])
    assert heights == [heights[0]] * 5 and all(heights[0])
    assert panels.panel[0].children[3].layout.display is None, "the picture's place is there before the picture"


# --- in a real kernel -----------------------------------------------------------------------------------------

TRAINING = """
import time
from lab.training.live import live
from tests.helpers.fake_runs import FakeRun
run = FakeRun()
def slowly(steps, pause):
    try:
        for step in steps:
            time.sleep(pause)
            yield step
    finally:
        steps.close()
"""


def test_a_notebook_run_by_a_program_gets_lines_and_the_picture():
    cell = nbformat.v4.new_code_cell(TRAINING + "for step in live(run.train(), run): pass")
    notebook, place = nbformat.v4.new_notebook(cells=[cell]), {"metadata": {"path": str(ROOT)}}
    NotebookClient(notebook, kernel_name="python3", timeout=60, resources=place).execute()
    text = "".join(output.text for output in cell.outputs if output.output_type == "stream")
    assert text.startswith("step 1/100 (1%)") and "mine: finished 100 steps" in text
    pictures = [output.data for output in cell.outputs if output.output_type == "display_data"]
    assert [sorted(data) for data in pictures] == [["image/png", "text/plain"]]


def test_the_stop_button_reaches_a_kernel_that_is_busy_with_the_loop():
    """What a browser does: asks for a shell of its own, and sends the button's click there."""
    manager, client = start_new_kernel(kernel_name="python3", cwd=str(ROOT))
    try:
        run = "for step in live(slowly(run.train(), 0.5), run): pass\nprint(run.events, len(run.records) < 100)"
        client.execute(TRAINING + run, allow_stdin=True)
        button = wait_for(client, lambda content: "ButtonView" in str(content["data"]), "comm_open")
        client.control_channel.send(client.session.msg("create_subshell_request", {}))
        shell = client.get_control_msg(timeout=30)["content"]["subshell_id"]
        click = {"method": "custom", "content": {"event": "click"}}
        message = client.session.msg("comm_msg", {"comm_id": button["comm_id"], "data": click})
        message["header"]["subshell_id"] = shell
        client.shell_channel.send(message)
        end = wait_for(client, lambda content: "kept" in content["text"], "stream")
        assert end["text"].endswith("['kept'] True\n")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def wait_for(client, wanted, kind: str) -> dict:
    """The content of the next message of that kind that is wanted; queue.Empty once the kernel has gone silent."""
    while True:
        message = client.get_iopub_msg(timeout=60)
        assert message["msg_type"] != "error", message["content"]
        if message["msg_type"] == kind and wanted(message["content"]):
            return message["content"]


def test_the_kernel_says_who_runs_the_cell(monkeypatch):
    assert not lab.training.live.has_reader()
    for answer in (True, False):
        request = {"content": {"allow_stdin": answer}}
        kernel = types.SimpleNamespace(get_parent=lambda channel, request=request: request)
        monkeypatch.setattr(lab.display.kernel, "kernel", lambda kernel=kernel: kernel)
        assert lab.training.live.has_reader() == answer
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    assert not isinstance(lab.training.live.open_view(FakeRun(), None, 1.0), Panel)
