"""A GPU experiment: forms of compiling our step, the compiled update, and where the time of a step goes.

python -m bench.gpu_modes [modes] [profiles]
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from bench.gpu.scale import CARD, REHEARSAL, Scale
from bench.gpu.sections import Failure, attempt_apart, attempt_together, cell
from bench.own_cache import own_cache
from bench.steps import Size, Way, nano_gpt, our_state
from bench.timing import seconds_per_call, table


class Form(NamedTuple):
    """mode: of compiling the losses; "" is not compiled. update: whether the update is compiled."""

    mode: str = ""
    update: bool = False
    optimizer: str = "adamw"


MODES = {
    "eager": Form(), "eager, update compiled": Form("", True), "compiled": Form("default"),
    "compiled, update compiled": Form("default", True), "reduce-overhead": Form("reduce-overhead"),
    "reduce-overhead, update compiled": Form("reduce-overhead", True),
    "max-autotune-no-cudagraphs": Form("max-autotune-no-cudagraphs"),
    "compiled, Muon": Form("default", False, "muon"), "eager, Muon": Form("", False, "muon"),
}


def build(form: Form, size: Size, device: str) -> Callable[[], None]:
    """Our step in this form."""
    settings = dict(precision="bf16", compile="off", device=device, optimizer=form.optimizer)
    state = our_state(size.model("gpt2"), size.batch, **settings)
    state.progress.precision = "bf16"
    if form.mode:
        state.losses_of = torch.compile(state.learner.losses, mode=form.mode)
    rate = state.config.learning_rate
    if form.update:
        for group in state.optimizer.param_groups:  # a rate in a tensor, so that a new one compiles nothing anew
            group["lr"] = torch.tensor(rate, device=device)
        change = torch.compile(state.optimizer.step)

    def step() -> None:
        if "reduce" in form.mode:
            torch.compiler.cudagraph_mark_step_begin()
        state.backward(state.batch())
        state.clip()
        if form.update:
            change()
            state.optimizer.zero_grad(set_to_none=True)
            state.progress.step += 1
        else:
            state.update(rate)

    return step


def tokens_per_second(form: Form, size: Size, device: str) -> float:
    return size.tokens / seconds_per_call(build(form, size, device))


def take_step(form: Form, size: Size, device: str) -> None:
    build(form, size, device)()


def modes(scale: Scale) -> None:
    sizes = {label: size for label, size in scale.sizes.items() if label != "2 × 128"}
    cases = [
        (form, size, scale.device) for form in MODES.values() for size in sizes.values() if form.mode or form.update
    ]
    attempt_together(take_step, cases, 5)
    for label, size in sizes.items():
        rows = []
        for name, form in MODES.items():
            rows.append([name, cell(attempt_apart(tokens_per_second, form, size, scale.device), ",.0f")])
            print(f"{label} {rows[-1]}", flush=True)
        print(table(f"gpt2 {label}, bf16, AdamW", ["our step", "tokens/s"], rows), flush=True)


def profile_of(build: Callable, *arguments) -> str:
    """The 25 entries that take most of five steps, by kernels and by the CPU's own time."""
    step = build(*arguments)
    for _ in range(3):
        step()
    on_card = torch.cuda.is_available()
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_card
    with profile(activities=activities) as found:
        for _ in range(5):
            step()
        if on_card:
            torch.cuda.synchronize()
    averages, parts = found.key_averages(), []
    for key in ["self_device_time_total"] * on_card + ["self_cpu_time_total"]:
        entries = [e for e in averages if not (key.startswith("self_device") and str(e.device_type).endswith("CPU"))]
        total = sum(getattr(entry, key) for entry in entries)
        entries = sorted(entries, key=lambda entry: -getattr(entry, key))[:25]
        rows = [
            [entry.key[:90].replace("|", "/"), f"{entry.count / 5:g}", f"{getattr(entry, key) / 5e3:.3f}",
             f"{getattr(entry, key) / max(total, 1e-9):.1%}"]
            for entry in entries
        ]
        parts.append(table(f"{key}, {total / 5e3:.2f} ms a step", ["", "calls a step", "ms a step", "share"], rows))
    return "\n".join(parts)


def profiles(scale: Scale) -> None:
    size, device = scale.sizes["124M"], scale.device
    cases = {"ours": (build, Form(), size, device), "nanoGPT": (nano_gpt, size, Way("bf16", False, device))}
    for name, case in cases.items():
        found = attempt_apart(profile_of, *case)
        print(f"\n## {name}, 124M, not compiled\n{found.why if isinstance(found, Failure) else found}", flush=True)


if __name__ == "__main__":
    words = sys.argv[1:]
    scale = REHEARSAL if "rehearse" in words else CARD
    with own_cache():
        for name in [word for word in words if word != "rehearse"] or ["modes", "profiles"]:
            {"modes": modes, "profiles": profiles}[name](scale)
