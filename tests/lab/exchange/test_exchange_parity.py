"""The same logits, ids and texts in transformers and here, whichever of the two wrote the folder."""

import json
import re

import pytest
import torch
from safetensors.torch import load_file

from config import ARCHITECTURES, ALiBiConfig, LoRAConfig, MLPConfig, ModelConfig
from lab.adapting.fine_tuning import fine_tune
from lab.exchange.counterpart import FAMILIES, find_counterpart, written_out
from lab.exchange.export import export_hf
from lab.exchange.importing import import_hf
from lab.generation.generate import generate
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from lab.runs.run import Run
from lab.shapes.views import trace
from lab.sharing import export_run, import_run
from lab.terminal_generation import parse_generation
from lab.training.loop import train
from modules.positions import alibi_slopes
from settings.errors import ConfigError, RunError
from tests.helpers.foreign_models import gpt2, llama, mpt, open_their_tokenizer, open_theirs, random_run, save
from tests.helpers.variants import VARIANTS, vary

pytestmark = pytest.mark.usefixtures("seeded")

THEIRS = {
    "gpt2": lambda: gpt2(),
    "gpt2 untied": lambda: gpt2(tie_word_embeddings=False, activation_function="gelu"),
    "gpt2 narrow": lambda: gpt2(n_inner=50, layer_norm_epsilon=1e-3, activation_function="relu"),
    "llama": lambda: llama(),
    "llama tied": lambda: llama(tie_word_embeddings=True, rms_norm_eps=0.1),
    "llama grouped": lambda: llama(num_key_value_heads=2, rope_parameters=dict(rope_type="default", rope_theta=5e5)),
    "llama single, tied": lambda: llama(
        num_key_value_heads=1, tie_word_embeddings=True, hidden_act="gelu_pytorch_tanh"
    ),
    "llama biases": lambda: llama(attention_bias=True, mlp_bias=True),
    "llama biases in attention, odd": lambda: llama(attention_bias=True, intermediate_size=101, num_key_value_heads=2),
    "llama biases in the mlp, odd": lambda: llama(mlp_bias=True, intermediate_size=77, tie_word_embeddings=True),
    "mpt": lambda: mpt(),
    "mpt untied": lambda: mpt(tie_word_embeddings=False, layer_norm_epsilon=1e-3),
    "mpt six heads": lambda: mpt(n_heads=6),
}


def greedy(model, prompt: list[int], n: int) -> list[int]:
    steps = generate(model, [prompt], max_tokens=n, sampling=STRATEGIES["greedy"])
    return [step.ids[0] for step in steps]


def their_greedy(model, prompt: list[int], n: int) -> list[int]:
    ids = torch.tensor([prompt])
    how = dict(max_new_tokens=n, do_sample=False, eos_token_id=-1, pad_token_id=0)
    return model.generate(ids, attention_mask=torch.ones_like(ids), **how)[0, len(prompt) :].tolist()


@torch.no_grad()
def assert_same_model(ours, theirs, vocab_size: int) -> None:
    """Compares logits to 1e-5, and the likeliest tokens one after another, with the caches of both."""
    ids = torch.randint(vocab_size, (2, 17))
    expected = theirs(ids).logits
    assert expected.abs().max() > 1 and expected.std() > 0.1  # numbers that differ, and are large enough to
    torch.testing.assert_close(ours(ids), expected, rtol=0, atol=1e-5)
    prompt = ids[0, :5].tolist()
    assert greedy(ours, prompt, 8) == their_greedy(theirs, prompt, 8)


@pytest.mark.parametrize("name", THEIRS)
def test_their_models_compute_the_same_here_and_go_back_unchanged(tmp_path, name):
    theirs = THEIRS[name]()
    run = import_hf(save(theirs, tmp_path / "theirs"), tmp_path / "runs", "mine")
    assert_same_model(run.load_model(), theirs, 300)
    back = open_theirs(export_hf(run, tmp_path / "back"))
    assert type(back) is type(theirs)
    before, after = theirs.state_dict(), back.state_dict()
    assert before.keys() <= after.keys()
    for key, tensor in after.items():
        if key not in before:
            assert not tensor.any()  # a bias that ours has in both, or in none
        elif tensor.shape == before[key].shape:
            assert torch.equal(tensor, before[key]), key
        else:  # hidden units up to a multiple of 8
            inside = tensor[tuple(slice(size) for size in before[key].shape)]
            assert "odd" in name and torch.equal(inside, before[key])
            assert tensor.count_nonzero() == inside.count_nonzero()
    assert_same_model(run.load_model(), back, 300)


ALIBI = ARCHITECTURES["alibi"] | dict(mlp=MLPConfig(activation="gelu", gated=False))
OURS = VARIANTS | {
    "alibi-gelu": vary("alibi", **ALIBI),
    "alibi-gelu-untied-six-heads": vary("alibi", **ALIBI, n_heads=6, width=48, tie_weights=False, max_positions=17),
    "alibi-gelu-slopes": vary("alibi", **ALIBI | dict(position=ALiBiConfig(slopes=(1 / 4, 1 / 16, 1 / 64, 1 / 256)))),
    "gpt2-untied": vary("gpt2", tie_weights=False),
    "llama-bias-grouped": vary("llama", bias=True, n_kv_heads=2, tie_weights=False),
}


def has_counterpart(config: ModelConfig) -> bool:
    try:
        find_counterpart(config)
    except ConfigError:
        return False
    return True


EXPORTED = [name for name, config in OURS.items() if has_counterpart(config)]


def test_the_models_that_can_be_exported_are_those_of_the_three_families():
    expected = {
        "gpt2", "vanilla", "gpt2-untied", "llama", "llama-grouped", "llama-single", "llama-bias-grouped",
        "relu2-gated", "mish-gated-narrow", "alibi-gelu", "alibi-gelu-untied-six-heads", "alibi-gelu-slopes",
    }
    kinds = {name: find_counterpart(OURS[name])[0].name for name in expected}
    assert kinds["vanilla"] == "GPT-2" and kinds["mish-gated-narrow"] == "Llama" and kinds["alibi-gelu-slopes"] == "MPT"
    assert expected <= set(EXPORTED)


@pytest.mark.parametrize("name", EXPORTED)
def test_our_models_compute_the_same_there_and_come_back_unchanged(tmp_path, name):
    run = random_run(tmp_path / "here", "mine", OURS[name])
    folder = export_hf(run, tmp_path / "theirs", shard_bytes=10_000)
    theirs, ours = open_theirs(folder), run.load_model()
    assert_same_model(ours, theirs, 257)
    back = import_hf(folder, tmp_path / "there", "back")
    before, after = load_file(run.weights_path), load_file(back.weights_path)
    assert before.keys() <= after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert not any(after[key].any() for key in after.keys() - before.keys())  # biases that GPT-2 has and ours has not
    if before.keys() == after.keys():
        changed = dict(dropout=run.model_config.dropout)
        assert written_out(back.model_config).replace(**changed) == written_out(run.model_config)


def test_folders_are_cut_into_shards_of_the_size_asked_for(tmp_path):
    run = random_run(tmp_path, "mine", VARIANTS["llama"])
    folder = export_hf(run, tmp_path / "theirs", shard_bytes=30_000)
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shards = {file: load_file(folder / file) for file in set(index["weight_map"].values())}
    assert len(shards) > 3 and not (folder / "model.safetensors").exists()
    sizes = {file: sum(t.nbytes for t in tensors.values()) for file, tensors in shards.items()}
    assert all(size <= 30_000 or len(shards[file]) == 1 for file, size in sizes.items())
    assert sum(sizes.values()) == index["metadata"]["total_size"]
    whole = export_hf(run, tmp_path / "whole")
    assert [entry.name for entry in whole.glob("*.safetensors*")] == ["model.safetensors"]
    expected = load_file(whole / "model.safetensors")
    assert {name: file for file, tensors in shards.items() for name in tensors} == index["weight_map"]
    assert all(torch.equal(tensor, expected[name]) for tensors in shards.values() for name, tensor in tensors.items())


@pytest.mark.parametrize("name", ["gpt2", "llama grouped", "mpt"])
def test_bfloat16_is_kept_on_disk_and_computed_in_fp32(tmp_path, name):
    theirs = THEIRS[name]().to(torch.bfloat16)
    folder = save(theirs, tmp_path / "theirs")
    run = import_hf(folder, tmp_path / "runs", "mine")
    assert {tensor.dtype for tensor in load_file(run.weights_path).values()} == {torch.bfloat16}
    assert next(run.load_model().parameters()).dtype == torch.float32
    assert_same_model(run.load_model(), open_theirs(folder), 300)
    kept = load_file(export_hf(run, tmp_path / "kept") / "model.safetensors")
    assert {tensor.dtype for tensor in kept.values()} == {torch.bfloat16}
    wide = load_file(export_hf(run, tmp_path / "wide", dtype="fp32") / "model.safetensors")
    assert {tensor.dtype for tensor in wide.values()} == {torch.float32}


def test_bfloat16_is_written_where_asked_for(tmp_path):
    from transformers import AutoModelForCausalLM

    run = random_run(tmp_path, "mine", VARIANTS["gpt2"])
    folder = export_hf(run, tmp_path / "theirs", dtype="bf16")
    written, stored = load_file(folder / "model.safetensors"), load_file(run.weights_path)
    assert torch.equal(written["transformer.wte.weight"], stored["embedding.weight"].bfloat16())
    assert {tensor.dtype for tensor in written.values()} == {torch.bfloat16}
    assert next(AutoModelForCausalLM.from_pretrained(folder).parameters()).dtype == torch.bfloat16


def test_files_of_the_bare_model_and_of_earlier_versions_are_read(tmp_path):
    """As the published GPT-2: no name begins with "transformer.", and each layer has its causal mask."""
    from safetensors.torch import save_file

    theirs = gpt2()
    folder = save(theirs, tmp_path / "theirs")
    tensors = {name.removeprefix("transformer."): tensor.contiguous()
               for name, tensor in theirs.state_dict().items() if name != "lm_head.weight"}
    masks = {f"h.{i}.attn.bias": torch.ones(1, 1, 33, 33, dtype=torch.bool).tril() for i in range(3)}
    save_file(tensors | masks, folder / "model.safetensors", {"format": "pt"})
    assert_same_model(import_hf(folder, tmp_path / "runs", "mine").load_model(), theirs, 300)
    tied = {f"transformer.{name}": tensor for name, tensor in tensors.items()}
    tied["lm_head.weight"] = tensors["wte.weight"].clone()
    save_file(tied, folder / "model.safetensors", {"format": "pt"})
    assert_same_model(import_hf(folder, tmp_path / "runs", "other").load_model(), theirs, 300)


def test_a_config_of_earlier_versions_is_read(tmp_path):
    theirs = llama(rope_parameters=dict(rope_type="default", rope_theta=500.0))
    folder = save(theirs, tmp_path / "theirs")
    config = json.loads((folder / "config.json").read_text())
    config |= {"rope_theta": config.pop("rope_parameters")["rope_theta"], "rope_scaling": None}
    (folder / "config.json").write_text(json.dumps(config))
    run = import_hf(folder, tmp_path / "runs", "mine")
    assert run.model_config.position.theta == 500.0
    assert_same_model(run.load_model(), theirs, 300)


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_what_a_config_leaves_out_is_what_transformers_takes(family):
    from transformers import AutoConfig

    theirs = AutoConfig.for_model(family.model_type)
    written = json.loads(theirs.to_json_string(use_diff=False))
    missing = {"num_key_value_heads": None, "head_dim": None, "attn_config": None}  # they follow from others
    assert all(written[name] == value for name, value in family.defaults.items() if name not in missing)
    if family.model_type == "mpt":
        assert all(written["attn_config"][name] == value for name, value in family.attention.items())
    if family.model_type == "llama":
        assert theirs.num_key_value_heads == theirs.num_attention_heads
        assert theirs.rope_parameters["rope_theta"] == 10_000.0


@pytest.mark.parametrize("n_heads", range(1, 17))
def test_mpts_slopes_are_the_papers(n_heads):
    from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor

    theirs = -build_mpt_alibi_tensor(n_heads, 2)[:, 0, 0]
    torch.testing.assert_close(torch.tensor(alibi_slopes(n_heads)), theirs)


@pytest.mark.parametrize("config, reasons", [
    (VARIANTS["alibi"], ["nearest is MPT", "model.mlp.activation is 'gelu_tanh' and would be 'gelu'"]),
    (VARIANTS["factored"], ["nearest is GPT-2", "model.block.kind is 'factored'"]),
    (VARIANTS["sasp"], ["model.block.kind is 'shaped'", "model.mlp.activation"]),
    (VARIANTS["future"], ["nearest is Llama", "model.block.kind is 'future'"]),
    (VARIANTS["multi-token"], ["model.block.kind is 'multi_token'"]),
    (VARIANTS["post-norm"], ["model.block.post_norm is True", "model.embedding_scale is True"]),
    (VARIANTS["parallel"], ["model.block.parallel is True and would be False"]),
    (VARIANTS["sinusoidal-theta"], ["model.position.kind is 'sinusoidal' and would be 'rope'"]),
    (VARIANTS["gpt2-grouped"], ["model.n_kv_heads is 2 and would be 4"]),
    (VARIANTS["cosine"], ["model.norm.kind is 'cosine'"]),
    (VARIANTS["rms-bare"], ["model.norm.weight is False"]),
    (vary("alibi", **{**ALIBI, "position": ALiBiConfig(slopes=(0.9, 0.3, 0.05, 0.0))}), ["model.position.slopes is"]),
    (vary("alibi", **ALIBI, bias=True), ["model.bias is True and would be False"]),
    (VARIANTS["llama"].replace(lora=LoRAConfig(rank=2)), ["nearest is Llama", "model.lora is", "merge them first"]),
    (VARIANTS["llama"].replace(window=8), ["nearest is Llama", "model.window is 8 and would be None"]),
    (VARIANTS["llama"].replace(qk_norm=True), ["model.qk_norm is True and would be False"]),
    (VARIANTS["llama"].replace(logit_cap=30.0), ["model.logit_cap is 30.0 and would be None"]),
    (VARIANTS["head-soft_cap"], ["model.head.kind is 'soft_cap' and would be 'linear'"]),
])
def test_what_has_no_counterpart_is_refused_by_name(tmp_path, config, reasons):
    with pytest.raises(ConfigError, match="no counterpart in Hugging Face's transformers") as refusal:
        find_counterpart(config)
    assert all(reason in str(refusal.value) for reason in reasons), refusal.value


def test_how_a_model_started_is_no_matter():
    assert find_counterpart(VARIANTS["llama"].replace(zero_init=True))[0].name == "Llama"


def test_refused_exports_leave_nothing(tmp_path):
    run = random_run(tmp_path / "runs", "mine", VARIANTS["factored"])
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(ConfigError, match=r"model\.block\.kind"):
        export_hf(run, tmp_path / "theirs")
    assert sorted(tmp_path.rglob("*")) == before


def test_an_imported_run_opens_generates_and_is_shared_like_any_other(tmp_path):
    theirs = llama()
    run = import_hf(save(theirs, tmp_path / "theirs"), tmp_path / "runs")
    assert run.name == "theirs" and run.status() == "trained elsewhere" and not run.is_finished()
    assert Run.open("theirs", tmp_path / "runs").model_config == run.model_config
    again = import_run(export_run(run, tmp_path / "theirs.zip"), tmp_path / "others")
    assert_same_model(again.load_model(), theirs, 300)
    assert again.tokenizer.encode("the cat") == run.tokenizer.encode("the cat")
    assert open_their_tokenizer(tmp_path / "theirs")("the cat")["input_ids"] == run.tokenizer.encode("the cat")
    model = again.load_model()
    with trace(model) as shapes:
        model(torch.tensor([run.tokenizer.encode("the cat and the hat")]))
    assert shapes.mismatches() == []


def test_the_card_says_where_it_came_from_and_how_to_sample(tmp_path):
    folder = save(llama(), tmp_path / "theirs")
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {"temperature": 0.6, "top_p": 0.9, "top_k": None}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    card = (import_hf(folder, tmp_path / "runs", "mine").folder / "README.md").read_text()
    assert "| from | the folder theirs in Hugging Face's layout |" in card and "| trained on | unknown;" in card
    assert str(tmp_path) not in card
    (command,) = re.findall(r"`python tools.py (generate .*)`", card)
    assert parse_generation(command.split()[1:]).sampling == SamplingConfig(temperature=0.6, top_p=0.9)


def test_training_goes_on_from_an_imported_run(tmp_path):
    text = tmp_path / "texts.jsonl"
    text.write_text("\n".join(json.dumps({"text": f"the cat and the hat, number {i}. " * 8}) for i in range(200)))
    run = import_hf(save(llama(), tmp_path / "theirs"), tmp_path / "runs", text=str(text))
    with pytest.raises(RunError, match="has no checkpoint"):
        next(train(run))
    settings = run.train_config.replace(
        steps=30, batch_size=4, evaluate_every=30, evaluation_tokens=512, sample_tokens=4, device="cpu",
        precision="fp32", compile="off", sample_prompt="the",
    )
    tuned = fine_tune(run, settings, folder=tmp_path / "runs")
    steps = list(train(tuned))
    assert steps[-1].loss < steps[0].loss - 1
    theirs = open_theirs(export_hf(tuned, tmp_path / "tuned"))
    assert_same_model(tuned.load_model(), theirs, 300)
