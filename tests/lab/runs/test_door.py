"""Reading a run ends in a value or in a RunError, whatever stands in its folder, and stops no other run."""

import json
import os
import random
import shutil

import pytest
import torch
from safetensors.torch import load_file

from config import ALiBiConfig, FutureBlockConfig, MLPConfig, ModelConfig, TrainConfig
from lab.analysis.tuned_lens import keys, lens_path, load_lens, name
from lab.comparison.comparison import compare
from lab.costs.parameters import stored_shapes
from lab.files.reading import checksum
from lab.runs.listing import list_runs
from lab.runs.run import Run
from lab.runs.weights import write_tensors
from modules.transformer import Transformer
from settings.errors import ConfigError, GlassboxError, RunError
from settings.json_text import parse_json
from tests.helpers.small_runs import MODEL, TRAIN, make_run

pytestmark = pytest.mark.usefixtures("seeded")
FILES = [
    "model_config.json", "train_config.json", "tokenizer.json", "data.json", "log_data.csv", "watch_data.csv",
    "model.safetensors", "lens.safetensors",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two runs, the first with all that can be read."""
    folder = tmp_path_factory.mktemp("made")
    make_run(folder, "whole", train=TRAIN.replace(seed=1), n_steps=3)
    run = make_run(folder, "run", n_steps=3)
    run.watch_path.write_text("step,layer,kind,value\n1,blocks.0,gradient,0.5\n")
    shapes = {"weight": (MODEL.width, MODEL.width), "bias": (MODEL.width,)}
    lens = {f"{name(key)}/{part}": torch.zeros(shape) for key in keys(Transformer(MODEL))
            for part, shape in shapes.items()}
    write_tensors(lens_path(run), lens, {"seed": 0, "steps": 1, "weights": checksum(run.weights_path)})
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "runs")


def readings(run: Run) -> list:
    """All ways to read a run."""
    named = [lambda name=name: getattr(run, name) for name in dir(Run) if isinstance(getattr(Run, name), property)]
    return [
        *named, run.log, run.watch, run.steps_done, run.status, run.summary, run.weights_facts, run.validation_loss,
        run.stored_at, run.stored_parameters, run.load_model, lambda: load_lens(run), lambda: repr(run),
    ]


def refusals(name: str, folder) -> list[str]:
    """What reading the run in every way refuses. Any other error than a GlassboxError fails."""
    found = []

    def value_of(read):
        try:
            return read()
        except GlassboxError as error:
            found.append(str(error))

    if run := value_of(lambda: Run.open(name, folder)):
        for read in readings(run):
            value_of(read)
    assert "".join(found).encode("utf-8") is not None
    return found


def assert_others_are_read(folder) -> None:
    """Lists and compares all runs of the folder, of which "whole" must be there as it is."""
    listed, comparison = list_runs(folder), compare(None, folder)
    assert list(listed.index) == sorted(os.listdir(folder))
    assert listed.loc["whole", "status"] == "stopped at step 3 of 40" and "whole" in comparison.table().index
    assert (listed.to_string() + repr(comparison)).encode("utf-8")


def read_all(folder) -> list[str]:
    assert_others_are_read(folder)
    return refusals("run", folder)


# --- what was found once ----------------------------------------------------------------------------------------


def config_with(**changes):
    return lambda data: json.dumps(json.loads(data) | changes).encode()


def cell(text: str):
    """The log with another loss in its last row."""
    return lambda data: data.replace(data.split(b"\n")[3].split(b",")[3], text.encode())


FOUND = {
    "nested deep": ("model_config.json", lambda data: b"[" * 200_000),
    "nested as deep as the parser goes": (
        "train_config.json", lambda data: b'{"data": ' + b"[" * 900 + b"]" * 900 + b"}"),
    "400 digits": ("model_config.json", config_with(width=10**399)),
    "5,000 digits": ("model_config.json", lambda data: b'{"vocab_size": ' + b"9" * 5000 + b"}"),
    "400 digits for a float": ("model_config.json", config_with(init_std=10**399)),
    "a list as a kind": ("model_config.json", config_with(block={"kind": []})),
    "a setting called cls": ("model_config.json", lambda data: b'{"cls": 1}'),
    "settings called self and positional": ("train_config.json", config_with(self=1, positional=2, values=3)),
    "width 2^64": ("model_config.json", config_with(width=2**64)),
    "ratio 1e308": ("model_config.json", config_with(mlp={"ratio": 1e308})),
    "half of a surrogate pair in a setting": ("train_config.json", config_with(sample_prompt="\ud800")),
    "half of a surrogate pair as a setting": ("train_config.json", config_with(**{"\ud800": 1})),
    "half of a surrogate pair in a tokenizer": ("tokenizer.json", config_with(name="\udfff")),
    "a tokenizer of characters that are none": (
        "tokenizer.json", lambda data: b'{"kind": "character", "name": "x", "characters": "\\ud800"}'),
    "a tokenizer nested deep": ("tokenizer.json", lambda data: b"[" * 200_000),
    "a tokenizer larger than the model": (
        "tokenizer.json", lambda data: json.dumps({"kind": "character", "name": "x", "characters": "äö"}).encode()),
    "inf in the log": ("log_data.csv", cell("inf")),
    "a step of 400 digits": ("log_data.csv", lambda data: data.replace(b"\n3,", b"\n" + b"9" * 400 + b",")),
    "infinite steps": ("log_data.csv", lambda data: data.replace(b"\n3,", b"\ninf,")),
    "words for steps": ("log_data.csv", lambda data: data.replace(b"\n3,", b"\nthree,")),
    "infinite tokens": ("log_data.csv", lambda data: data.replace(b",96,", b",inf,")),
    "no rows": ("log_data.csv", lambda data: data.split(b"\n")[0] + b"\n"),
    "an empty log": ("log_data.csv", lambda data: b""),
    "a log of zeros": ("log_data.csv", lambda data: bytes(4096)),
    "watched words": ("watch_data.csv", lambda data: data.replace(b"0.5", b"much")),
    "a step that is no number": ("model.safetensors", lambda data: data.replace(b'"step":"3"', b'"step":"x"')),
    "a lens without a seed": ("lens.safetensors", lambda data: data.replace(b'"seed"', b'"sead"')),
}


@pytest.mark.parametrize("damage", FOUND)
def test_a_damage_that_was_found_is_an_error_of_this_run_alone(folder, damage):
    file, spoil = FOUND[damage]
    path = folder / "run" / file
    before = path.read_bytes()
    path.write_bytes(spoil(before))
    assert path.read_bytes() != before
    assert read_all(folder) or damage in ("inf in the log", "no rows")  # which are values: a loss, and no step


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kind", ["folder", "loop", "dangling", "device", *["pipe"] * hasattr(os, "mkfifo")])
def test_what_is_no_plain_file_is_not_read(folder, file, kind):
    path = folder / "run" / file
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)  # reading it would wait for ever
    else:
        path.symlink_to({"loop": path, "dangling": folder / "nowhere", "device": "/dev/zero"}[kind])
    assert read_all(folder)


# --- sizes that are claimed -------------------------------------------------------------------------------------

MOST = {
    "n_layers": 512, "n_heads": 1024, "n_kv_heads": 1024, "width": 2**16, "vocab_size": 2**20, "context_length": 2**20,
    "max_positions": 2**20,
}


@pytest.mark.parametrize(
    "setting, value",
    [("n_layers", 20_000), ("n_layers", 10**8), ("n_layers", 513), ("n_heads", 2048), ("width", 2**17),
     ("vocab_size", 2**21), ("context_length", 2**21), ("max_positions", 2**21), ("n_kv_heads", 2048)],
)
def test_a_count_has_a_bound_that_the_error_names(setting, value):
    bound = rf"{setting} must be an integer from 1 to {MOST[setting]:,}( or None)?, not {value}"
    with pytest.raises(ConfigError, match=bound):
        ModelConfig(**{"vocab_size": 257, setting: value})


@pytest.mark.parametrize(
    "make, setting, value",
    [(TrainConfig, "steps", 10**10), (TrainConfig, "batch_size", 2**21), (TrainConfig, "evaluation_tokens", 10**13),
     (TrainConfig, "sample_tokens", 2**21), (TrainConfig, "seed", 1_795_000_000_000_000_000),
     (TrainConfig, "sample_prompt", "x" * 100_001), (TrainConfig, "learning_rate", 1e308),
     (MLPConfig, "ratio", 1e308), (FutureBlockConfig, "vectors", 2000), (ALiBiConfig, "slopes", (1.0,) * 2000)],
)
def test_so_has_everything_else(make, setting, value):
    with pytest.raises(ConfigError, match=rf"{setting} must be .*(at most| to )"):
        make(**{setting: value})


def test_what_a_config_claims_is_held_against_the_weights_before_it_is_built_or_counted(folder, monkeypatch):
    """The file holds one layer; the config says 512, which 300,000 parameters each would be 150 million."""
    path = folder / "run" / "model_config.json"
    path.write_text(ModelConfig(vocab_size=257, n_layers=512, n_heads=2, width=16, context_length=16).to_json())

    def watched(original):
        def of_one_layer(*arguments):
            assert arguments[-1].n_layers == 1, "a model of the claimed size was built or counted"
            return original(*arguments)

        return of_one_layer

    monkeypatch.setattr(Transformer, "__init__", watched(Transformer.__init__))
    monkeypatch.setattr("lab.runs.weights.stored_shapes", watched(stored_shapes))
    reason = "n_layers: stored 1, the config wants 512"
    assert reason in list_runs(folder).loc["run", "status"]
    comparison = compare("run", folder)
    assert reason in comparison.left_out["run"] and "run" not in comparison.table().index
    for read in (Run.open("run", folder).load_model, lambda: load_lens(Run.open("run", folder))):
        with pytest.raises(RunError, match=reason):
            read()


def test_weights_of_whole_numbers_are_refused(folder):
    path = folder / "run" / "model.safetensors"
    tensors = {name: tensor.to(torch.int64) for name, tensor in load_file(path).items()}
    write_tensors(path, tensors, {"step": 3, "validation_loss": 1.0})
    with pytest.raises(RunError, match=r"holds torch\.int64, and the model has torch\.float32 there"):
        Run.open("run", folder).load_model()


def test_numbers_of_any_length_are_refused_from_python_too():
    for value in (10**399, 10**5000, -(10**399)):
        with pytest.raises(ConfigError, match="width must be"):
            ModelConfig(vocab_size=257, width=value)
    with pytest.raises(ConfigError, match="unknown setting 'cls'"):
        ModelConfig(cls=1)
    with pytest.raises(ConfigError, match="half of a surrogate pair"):
        parse_json('{"a": ["\\ud800"]}')


# --- what nobody has found yet ----------------------------------------------------------------------------------

VALUES = [
    None, True, "", "x" * 300, "\ud800", "none", [], {}, [[]], [[[[1]]]], {"kind": "rope"}, {"cls": 1}, 0, -1, 1, 2, 3,
    7, 255, 513, 2**16, 2**31, 2**63, 2**64, 10**30, 10**399, 0.5, -0.5, 1e-300, 1e308, float("nan"), float("inf"),
]
BYTES = [b"", b"\0", b"\xff", b"nan", b"inf", b"-1", b"1e999", b"9" * 500, b'"', b",", b"\n", b"[" * 3000, b"{", b"}"]


def places(value, path=()) -> list[tuple]:
    """The paths of all values inside a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, one in items for place in places(one, (*path, key)))]


def with_value(value, path: tuple, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = with_value(value[path[0]], path[1:], new)
    return copy


def mutated(data: bytes, is_json: bool, chance: random.Random) -> bytes:
    """The file with one value, a few bits, a stretch or its encoding changed."""
    how = chance.choice(["value", "value", "bits", "cut", "stretch", "insert", "encoding"] if is_json else
                        ["bits", "cut", "stretch", "insert", "insert", "encoding"])
    at = chance.randrange(len(data)) if chance.random() < 0.3 else chance.randrange(min(len(data), 400))
    if how == "value":
        value = json.loads(data)
        return json.dumps(with_value(value, chance.choice(places(value)), chance.choice(VALUES))).encode()
    if how == "bits":
        changed = bytearray(data)
        for _ in range(chance.randint(1, 4)):
            changed[(at + chance.randrange(8)) % len(data)] ^= 1 << chance.randrange(8)
        return bytes(changed)
    if how == "cut":
        return data[:at]
    if how == "stretch":
        end = chance.randrange(at, len(data))
        return data[:at] + data[at:end] * 2 + data[end:]
    if how == "insert":
        return data[:at] + chance.choice(BYTES) + data[at + chance.randrange(4) :]
    return data.decode("latin-1").encode(chance.choice(["utf-16", "utf-8-sig", "utf-32"]))


def fuzz(folder, seeds: range, at_once: int = 40) -> int:
    """Reads so many mutations of the run, one file each, `at_once` beside each other; returns how many are refused."""
    originals, refused = {file: (folder / "run" / file).read_bytes() for file in FILES}, 0
    for seed in seeds:
        chance = random.Random(seed)
        copy, file = folder / f"run{seed:06}", chance.choice(FILES)
        shutil.copytree(folder / "run", copy)
        (copy / file).write_bytes(mutated(originals[file], file.endswith(".json"), chance))
        try:
            refused += refusals(copy.name, folder) != []
        except Exception as error:
            error.add_note(f"seed {seed}, {file}: {(copy / file).read_bytes()[:300]!r}")
            raise
        if seed % at_once == at_once - 1 or seed == seeds[-1]:
            assert_others_are_read(folder)
            for path in folder.glob("run?*"):
                shutil.rmtree(path)
    return refused


def test_no_mutation_of_a_run_is_more_than_a_refusal(folder):
    assert read_all(folder) == []
    assert 100 <= fuzz(folder, range(200)) <= 200
