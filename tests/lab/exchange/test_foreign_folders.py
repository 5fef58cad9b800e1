"""Folders that somebody else wrote: what does not fit, is damaged, or would have to be executed is refused, whole."""

import json
import os
import pickle
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from lab.comparison.comparison import compare
from lab.exchange.export import export_hf
from lab.exchange.importing import import_hf
from lab.runs.run import Run
from lab.terminal import main
from settings.errors import ConfigError, RunError
from settings.paths import ROOT
from tests.helpers.foreign_models import gpt2, llama, mpt, random_run, save
from tests.helpers.small_runs import TRAIN, make_run
from tests.helpers.variants import VARIANTS

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """A folder of each family as transformers saves it, and one cut into shards."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("originals")
    for name, make in (("gpt2", gpt2), ("llama", llama), ("mpt", mpt)):
        save(make(), folder / name)
    save(llama(), folder / "sharded", max_shard_size="100KB")
    return folder


@pytest.fixture
def folders(originals, tmp_path):
    """Copies to be spoilt."""
    shutil.copytree(originals, tmp_path / "foreign")
    return tmp_path / "foreign"


def edit(file, change) -> None:
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def config(**changes):
    return lambda folder: edit(folder / "config.json", lambda values: values.update(changes))


def attention(**changes):
    return lambda folder: edit(folder / "config.json", lambda values: values["attn_config"].update(changes))


def tensors(change):
    def spoil(folder):
        found = load_file(folder / WEIGHTS)
        change(found)
        save_file(found, folder / WEIGHTS, {"format": "pt"})

    return spoil


def index(change):
    return lambda folder: edit(folder / INDEX, change)


def place(file: str):
    """Every tensor is said to be in that file."""
    return index(lambda values: values["weight_map"].update(dict.fromkeys(values["weight_map"], file)))


def write(name: str, data: bytes):
    return lambda folder: (folder / name).write_bytes(data)


def replace(name: str, others: str, data: bytes):
    """Deletes a file and writes another."""

    def spoil(folder):
        (folder / name).unlink()
        (folder / others).write_bytes(data)

    return spoil


def link(name: str):
    """The file moves out of the folder, and a link to it takes its place."""

    def spoil(folder):
        shutil.move(folder / name, folder.parent / f"private-{name}")
        os.symlink(folder.parent / f"private-{name}", folder / name)

    return spoil


def drop(name: str):
    return lambda folder: (folder / name).unlink()


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("executed",)


NAME = "model.layers.1.mlp.up_proj.weight"
BAD = {
    # code and pickles
    "code": ("llama", config(auto_map={"AutoModelForCausalLM": "modeling.Mine"}), "names code to be run .* never run"),
    "code of a tokenizer": (
        "llama", lambda folder: edit(folder / "tokenizer_config.json", lambda v: v.update(auto_map={"A": ["a.B"]})),
        "tokenizer_config.json names code"),
    "a pickle alone": ("llama", replace(WEIGHTS, "pytorch_model.bin", pickle.dumps(Bomb())),
                       "pytorch_model.bin may hold code .a pickle. and is never loaded. Save the model as safetensors"),
    "a pickle in disguise": ("llama", write(WEIGHTS, pickle.dumps(Bomb())), "not a whole safetensors file"),
    # tensors
    "missing tensor": ("llama", tensors(lambda t: t.pop(NAME)), f"{NAME} is missing"),
    "further tensor": ("gpt2", tensors(lambda t: t.update(more=torch.ones(3))), "transformer.more is no tensor"),
    "further layer": ("llama", tensors(lambda t: t.update({NAME.replace("1", "3"): t[NAME].clone()})), "is no tensor"),
    "wrong shape": ("llama", tensors(lambda t: t.update({NAME: torch.ones(127, 48)})), r"is \(127, 48\), and config"),
    "transposed": ("mpt", tensors(lambda t: t.update({"transformer.blocks.0.ffn.up_proj.weight": torch.ones(48, 192)})),
                   r"is \(48, 192\), and config.json wants \(192, 48\)"),
    "integers": ("llama", tensors(lambda t: t.update({NAME: torch.ones(128, 48, dtype=torch.int32)})), "holds I32"),
    "NaN": ("llama", tensors(lambda t: t[NAME][5, 6].fill_(torch.nan)), "blocks.1.mlp.gate_up.weight.* holds NaN"),
    "infinity": ("mpt", tensors(lambda t: t["transformer.wte.weight"][0, 0].fill_(-torch.inf)), "NaN or infinity"),
    "twice": ("gpt2", tensors(lambda t: t.update({"wpe.weight": torch.ones(33, 48)})), "is stored twice"),
    "another head": ("gpt2", tensors(lambda t: t.update({"lm_head.weight": torch.ones(300, 48)})),
                     "tie_word_embeddings, and lm_head.weight is not the embedding"),
    "cut short": ("llama", lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-1]), "not a whole"),
    "no weights": ("llama", drop(WEIGHTS), "it has no model.safetensors. Save the model as safetensors"),
    # a config that claims another size
    "more layers": ("llama", config(num_hidden_layers=500), "is missing; .* and 4470 more"),
    "huge width": ("llama", config(hidden_size=65_536, head_dim=None), "config.json wants"),
    "huge vocabulary": ("gpt2", config(vocab_size=10**6), r"is \(300, 48\), and config.json wants \(1000000, 48\)"),
    "impossible width": ("gpt2", config(n_embd=10**12), "width must be an integer from 1 to 65,536"),
    "no width": ("llama", config(hidden_size=0), "hidden_size must be 1 or more, not 0"),
    "heads": ("llama", config(num_attention_heads=7, num_key_value_heads=7), "n_heads=7 must divide width=48"),
    "no number": ("llama", config(hidden_size="48"), "hidden_size must be a whole number, not '48'"),
    "true": ("llama", config(hidden_size=True), "hidden_size must be a whole number, not True"),
    "no float": ("llama", config(rms_norm_eps=10**400), "rms_norm_eps must be a finite number"),
    "NaN in the config": ("llama", config(initializer_range=float("nan")), "must be a finite number, not nan"),
    "no flag": ("llama", config(tie_word_embeddings="no"), "tie_word_embeddings must be true or false"),
    "fewer words": ("gpt2", lambda f: (config(vocab_size=299)(f), tensors(
        lambda t: t.update({"transformer.wte.weight": torch.ones(299, 48)}))(f)), "tokenizer has 300 ids, and the"),
    # settings without a counterpart
    "model type": ("llama", config(model_type="mistral"), "model_type is 'mistral', .* choose from: gpt2, llama, mpt"),
    "a list of types": ("llama", config(model_type=["llama"]), r"the model_type is \['llama'\]"),
    "no model type": ("llama", config(model_type=None), "the model_type is None"),
    "architecture": ("llama", config(architectures=["LlamaForSequenceClassification"]), "only LlamaForCausalLM can"),
    "rope scaling": ("llama", config(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
                     "rope_parameters is .*; only RoPE of the type 'default' can be read"),
    "old rope scaling": ("llama", config(rope_scaling={"type": "dynamic", "factor": 2.0}), "rope_scaling is .*dynamic"),
    "partial rope": ("llama", config(partial_rotary_factor=0.5), "partial_rotary_factor is 0.5"),
    "partial rope within": (
        "llama", config(rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}),
        "partial_rotary_factor is 0.5"),
    "sliding window": ("llama", config(sliding_window=16), "sliding_window is 16; only None can be read"),
    "layer types": ("llama", config(layer_types=["full_attention", "sliding_attention"] * 2), "layer_types is"),
    "norms of queries": ("llama", config(use_qk_norm=True), "use_qk_norm is True"),
    "quantised": ("llama", config(quantization_config={"bits": 4}), "quantization_config is"),
    "head dim": ("llama", config(head_dim=16), "head_dim is 16; only None or 12 can be read"),
    "activation": ("llama", config(hidden_act="quick_gelu"), "hidden_act is 'quick_gelu'; known are relu"),
    "several": ("gpt2", config(add_cross_attention=True, scale_attn_by_inverse_layer_idx=True),
                "add_cross_attention is True; .*; scale_attn_by_inverse_layer_idx is True"),
    "unscaled": ("gpt2", config(scale_attn_weights=False), "scale_attn_weights is False"),
    "clipped": ("mpt", attention(clip_qkv=6.0), r"attn_config\.clip_qkv is 6.0"),
    "mpt norms of queries": ("mpt", attention(qk_ln=True), r"attn_config\.qk_ln is True"),
    "prefix": ("mpt", attention(prefix_lm=True), r"attn_config\.prefix_lm is True"),
    "no alibi": ("mpt", attention(alibi=False), r"attn_config\.alibi is False"),
    "other slopes": ("mpt", attention(alibi_bias_max=4), r"attn_config\.alibi_bias_max is 4; only 8 can be read"),
    "other scale": ("mpt", attention(softmax_scale=0.5), r"attn_config\.softmax_scale is 0.5"),
    "mpt biases": ("mpt", config(no_bias=False), "no_bias is False"),
    "mpt ratio": ("mpt", config(expansion_ratio=2), "expansion_ratio is 2; only 4 can be read"),
    "no attention settings": ("mpt", config(attn_config=[]), "attn_config must be a JSON object"),
    # files
    "no config": ("llama", drop("config.json"), "config.json of 'llama' is missing"),
    "damaged config": ("llama", write("config.json", b'{"model_type": '), "not valid JSON"),
    "deep config": ("llama", write("config.json", b"[" * 100_000), "not valid JSON: it nests too deep"),
    "a list": ("llama", write("config.json", b"[1]"), "config.json must hold a JSON object"),
    "bytes": ("llama", write("config.json", b"\xff\xfe"), "config.json of 'llama' is damaged"),
    "huge config": ("llama", write("config.json", b" " * 2**20 + b"{}"), "has 1,048,578 bytes; the most"),
    "huge number": ("llama", write("config.json", b'{"hidden_size": ' + b"9" * 5000 + b"}"), "not valid JSON"),
    "no tokenizer": ("llama", drop("tokenizer.json"), "it has no tokenizer.json, .* AutoTokenizer.from_pretrained"),
    "damaged tokenizer": ("llama", write("tokenizer.json", b"{"), "tokenizer.json is damaged"),
    "no token": ("llama", write("generation_config.json", b'{"eos_token_id": 300}'), "eos_token_id is 300, which is"),
    "wrong token": ("llama", write("generation_config.json", b'{"eos_token_id": ["a"]}'), "must be a token id or a"),
    "no eos_token": ("llama", lambda f: edit(f / "tokenizer_config.json", lambda v: v.update(eos_token="<end>")),
                     "the eos_token is '<end>', which is no token"),
    "link to the config": ("llama", link("config.json"), "config.json is a link to .*, outside of the folder"),
    "link to the weights": ("llama", link(WEIGHTS), "model.safetensors is a link to .*, outside of the folder"),
    "a link to itself": ("llama", lambda f: (drop("config.json")(f), os.symlink("config.json", f / "config.json")),
                         "config.json of 'llama' can't be read"),
    # shards
    "absolute path": ("sharded", place("/etc/passwd.safetensors"), "which is no file of this folder"),
    "parent path": ("sharded", place("../llama/model.safetensors"), "which is no file of this folder"),
    "hidden path": ("sharded", place(".safetensors"), "which is no file of this folder"),
    "a shard that is a pickle": ("sharded", place("model.bin"), "which is no file of this folder"),
    "no file name": ("sharded", place(7), "into 7, which is no file of this folder"),
    "missing shard": ("sharded", place("model-9.safetensors"), "model-9.safetensors is missing"),
    "tensor in no shard": ("sharded", index(lambda v: v["weight_map"].update(more=min(v["weight_map"].values()))),
                           "differ about the tensor 'more'"),
    "tensor in no index": ("sharded", index(lambda v: v["weight_map"].pop("model.norm.weight")),
                           "differ about the tensor 'model.norm.weight'"),
    "no map": ("sharded", index(lambda v: v.pop("weight_map")), "has no weight_map"),
    "link to a shard": ("sharded", lambda f: link(min(f.glob("*.safetensors")).name)(f), "is a link to .*, outside"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_can_not_be_read_is_refused_and_leaves_nothing(folders, tmp_path, monkeypatch, name):
    family, spoil, message = BAD[name]
    spoil(folders / family)
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RunError, match=message) as refusal:
        import_hf(folders / family, tmp_path / "runs", "mine")
    assert "is refused, nothing was written" in str(refusal.value)
    assert [path for path in sorted(tmp_path.rglob("*")) if path != tmp_path / "runs"] == before  # no pickle ran either
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_no_model_is_built_for_a_config_that_claims_another_size(folders, tmp_path, monkeypatch):
    config(num_hidden_layers=500, hidden_size=65_536, head_dim=None, intermediate_size=10**6)(folders / "llama")

    def build(*_, **__):
        raise AssertionError("a model was built")

    monkeypatch.setattr("modules.transformer.Transformer.__init__", build)
    monkeypatch.setattr("safetensors.torch.load_file", build)
    with pytest.raises(RunError, match=r"the weights do not fit config.json"):
        import_hf(folders / "llama", tmp_path / "runs", "mine")


def test_links_of_the_hugging_face_cache_are_followed(folders, tmp_path):
    """There, snapshots/REVISION holds links into blobs."""
    model = tmp_path / "models--mine"
    (model / "blobs").mkdir(parents=True)
    (model / "snapshots" / "0a1b").mkdir(parents=True)
    for file in (folders / "sharded").iterdir():
        shutil.move(file, model / "blobs" / f"blob-{file.name}")
        os.symlink(f"../../blobs/blob-{file.name}", model / "snapshots" / "0a1b" / file.name)
    assert import_hf(model / "snapshots" / "0a1b", tmp_path / "runs", "mine").stored_parameters() > 0


def test_what_stands_beside_the_files_does_not_matter(folders, tmp_path):
    """The published GPT-2 has a pickle, files of other libraries and a picture beside its safetensors."""
    folder = folders / "gpt2"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    (folder / "modeling.py").write_text("raise SystemExit('executed')")
    (folder / "tf_model.h5").write_bytes(b"\x00")
    config(attn_pdrop=0.25, unknown_setting=3, dtype="float32")(folder)
    run = import_hf(folder, tmp_path / "runs")
    assert run.name == "gpt2" and run.model_config.dropout.attention == 0.25


def test_names_and_places_are_checked_first(folders, tmp_path):
    run = import_hf(folders / "llama", tmp_path / "runs", "mine")
    for name, message in (("mine", "a run named 'mine' exists"), ("../x", "can't be a run's name")):
        with pytest.raises(RunError, match=message):
            import_hf(folders / "llama", tmp_path / "runs", name)
    with pytest.raises(RunError, match=r"is a run of Glassbox; copy it into trained/"):
        import_hf(run.folder, tmp_path / "runs", "other")
    with pytest.raises(RunError, match=r"is no folder; name the one that holds config.json"):
        import_hf(tmp_path / "nothing", tmp_path / "runs", "other")
    with pytest.raises(RunError, match=r"there is no file or folder './none'"):
        import_hf(folders / "llama", tmp_path / "runs", "other", text="./none")
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["mine"]


def test_impossible_exports_are_refused_before_anything_is_written(tmp_path):
    run = random_run(tmp_path / "runs", "mine", VARIANTS["llama"])
    (tmp_path / "taken").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for how, error, message in (
        (dict(folder=tmp_path / "taken"), RunError, "exists; delete it, or name another folder"),
        (dict(dtype="fp8"), ConfigError, "dtype must be one of fp32, bf16, or None"),
        (dict(shard_bytes=0), ConfigError, "shard_bytes must be a whole number of bytes"),
        (dict(shard_bytes="1GB"), ConfigError, "shard_bytes must be a whole number of bytes"),
    ):
        with pytest.raises(error, match=message):
            export_hf(run, **{"folder": tmp_path / "theirs", **how})
    run.weights_path.unlink()
    with pytest.raises(RunError, match=r"the run has stored no weights yet"):
        export_hf(run, tmp_path / "theirs")
    assert [path for path in before if path != run.weights_path] == sorted(tmp_path.rglob("*"))


def test_weights_that_are_not_finite_are_not_exported(tmp_path):
    run = random_run(tmp_path / "runs", "mine", VARIANTS["llama"])
    weights = load_file(run.weights_path)
    weights["blocks.0.mlp.down.weight"][0, 0] = torch.nan
    save_file(weights, run.weights_path, {"step": "1"})
    with pytest.raises(RunError, match=r"model.layers.0.mlp.down_proj.weight' holds NaN or infinity"):
        export_hf(run, tmp_path / "theirs")
    assert [entry.name for entry in tmp_path.iterdir()] == ["runs"]


# --- the terminal -----------------------------------------------------------------------------------------------


@pytest.fixture
def at_home(tmp_path, monkeypatch):
    """Runs and data of this test alone, and a working folder."""
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("GLASSBOX_PLAIN", "1")
    monkeypatch.setattr("lab.runs.names.TRAINED", tmp_path / "trained")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small_documents(folder):
    """Two hundred short texts, some of which are held out."""
    texts = [{"text": f"the cat and the hat, number {number}. " * 8} for number in range(200)]
    (folder / "texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    return folder / "texts.jsonl"


def test_import_use_and_export_in_the_terminal(folders, at_home, capsys):
    documents = str(small_documents(at_home))
    assert main(["import", str(folders / "llama"), "--name", "theirs", "--text", documents]) == 0
    assert "Run(theirs: trained elsewhere); 112,080 parameters, 300 tokens" in capsys.readouterr().out
    text = at_home / "text.txt"
    text.write_text("the cat and the hat, " * 20)
    for command, expected in (
        (["evaluate", "theirs", "--text", str(text)], "bits per byte"),
        (["evaluate", "theirs", "--max-tokens", "256"], "the text that it was trained on is unknown\nover 256 tokens"),
        (["generate", "theirs", "--prompt", "the", "--max-tokens", "4"], "the"),
        (["runs"], "trained elsewhere"),
    ):
        assert main(command) == 0
        assert expected in capsys.readouterr().out
    assert main(["resume", "theirs"]) == 1
    assert "has no checkpoint" in capsys.readouterr().err
    assert main(["export", "theirs", "--format", "hf", "--dtype", "bf16", "--shard-bytes", "100000"]) == 0
    assert "theirs-hf" in capsys.readouterr().out and (at_home / "theirs-hf" / INDEX).exists()
    assert main(["export", "theirs", "mine", "--format", "hf"]) == 0 and (at_home / "mine" / WEIGHTS).exists()
    assert main(["import", "mine"]) == 0
    assert main(["export", "theirs"]) == 0 and (at_home / "theirs.zip").exists()
    assert Run.open("mine", at_home / "trained").status() == "trained elsewhere"


def test_a_run_trained_elsewhere_is_compared_with_ours(folders, at_home):
    text, runs = str(small_documents(at_home)), at_home / "trained"
    for name in ("llama", "mpt"):
        import_hf(folders / name, text=text)
    data = TRAIN.data.replace(source=text, max_documents=None, validation_fraction=0.05)
    make_run(runs, "ours", train=TRAIN.replace(data=data))
    comparison = compare(["llama", "mpt", "ours"], runs).evaluate(max_tokens=2048)
    table = comparison.table()
    assert set(table.index) == {"llama", "mpt", "ours"} and not comparison.left_out
    assert table["bits_per_byte"].notna().all() and set(table.index[table["tokens"].isna()]) == {"llama", "mpt"}
    assert "llama was trained elsewhere: the text, the steps and the time of it are not known" in comparison.remarks
    assert "trained elsewhere" in repr(comparison)
    assert "llama" in str(comparison.paired("llama", "mpt", 2048))
    assert comparison.curves().png and comparison.pareto("parameters").png
    assert "ours" in comparison.pareto("seconds").description


@pytest.mark.parametrize("command, message", [
    (["export", "theirs", "folder"], "belong to --format hf"),
    (["export", "theirs", "--dtype", "bf16"], "belong to --format hf"),
    (["export", "theirs", "--format", "hf", "--file", "a.zip"], "--file names a zip"),
    (["import", "a.zip", "--text", "tales"], "--text is for a folder of Hugging Face's"),
])
def test_flags_of_the_other_format_are_refused(at_home, capsys, command, message):
    assert main(command) == 1
    assert message in capsys.readouterr().err


MEASURE = """
import sys
from pathlib import Path
from bench.memory import peak_of_steps
from lab.exchange.importing import import_hf
folder, small, large = map(Path, sys.argv[1:])
import_hf(small, folder, "small")  # imports what it needs
print(peak_of_steps(lambda: import_hf(large, folder, "large").status))
"""


def test_one_tensor_at_a_time_is_in_memory(tmp_path):
    """70 MiB of weights, of which no tensor has more than 6."""
    wide = VARIANTS["llama"].replace(width=512, n_layers=6)
    large, small = (
        export_hf(random_run(tmp_path / "runs", name, model), tmp_path / name)
        for name, model in (("large", wide), ("small", VARIANTS["llama"]))
    )
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "there"), str(small), str(large)]
    alone = os.environ | {"GLASSBOX_CACHE": str(tmp_path / "cache")}  # no shapes are remembered there
    done = subprocess.run(command, cwd=ROOT, env=alone, capture_output=True, encoding="utf-8", check=True)
    grown = float(done.stdout)
    assert (large / WEIGHTS).stat().st_size > 70 * 2**20 and grown < 35
