"""Settings: checked when made, all problems in one error, JSON there and back, presets as published."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from config import (
    ALiBiConfig,
    DataConfig,
    DistilConfig,
    DropoutConfig,
    FactoredBlockConfig,
    FutureBlockConfig,
    LearnedPositionConfig,
    LoRAConfig,
    MLPConfig,
    ModelConfig,
    MultiTokenBlockConfig,
    NoPositionConfig,
    NormConfig,
    ResidualBlockConfig,
    RoPEConfig,
    ScheduleConfig,
    ShapedBlockConfig,
    SinusoidalConfig,
    TrainConfig,
    list_models,
    list_presets,
    preset,
)
from lab.comparison.overrides import ROOTS
from lab.data.tokenizers import load_tokenizer
from lab.runs.settings import settings_by_name
from settings import errors
from settings.by_name import check_setting, read_setting, types_by_name
from settings.errors import ConfigError, GlassboxError
from settings.paths import ROOT, cache_folder
from tests.helpers.variants import VARIANTS, config_of, factored, vary


def refused(*names, make=ModelConfig, **settings) -> str:
    """The message of the one ConfigError, which names each of `names`."""
    with pytest.raises(ConfigError) as error:
        make(**settings)
    message = str(error.value)
    missing = [name for name in names if name not in message]
    assert not missing, f"{missing} not named in: {message}"
    return message


# --- there and back -----------------------------------------------------------------------------------------

TRAININGS = {
    "default": TrainConfig(),
    "changed": TrainConfig(
        data=DataConfig(source="books/*.txt", max_documents=7, text_field="body", validation_fraction=1 / 3),
        schedule=ScheduleConfig(decay="linear", warmup_steps=0, flat_steps=3, cycles=2, cycle_growth=1.7),
        steps=9, batch_size=6, micro_batch_size=2, gradient_clip=None, learning_rate=0.1 + 0.2, compile="on",
        sample_prompt="Grüße, “Welt”\n\u2028",
    ),
    "whatever fits": TrainConfig(micro_batch_size="auto"),
}
CONFIGS = (
    {f"variant {name}": model for name, model in VARIANTS.items()}
    | {f"preset {name} model": preset(name).model for name in list_presets()}
    | {f"preset {name} train": preset(name).train for name in list_presets()}
    | {f"training {name}": training for name, training in TRAININGS.items()}
)


@pytest.mark.parametrize("name", CONFIGS)
def test_json_round_trip_is_exact(name):
    original = CONFIGS[name]
    text = original.to_json()
    again = type(original).from_json(text)
    assert again == original and again.to_json() == text
    assert repr(again) == repr(original)  # equal in types too: a tuple stays a tuple, 1.0 does not become 1


def test_json_holds_every_setting():
    model = vary("alibi", position=ALiBiConfig(slopes=(4.0, 3.0, 2.0, 1.0)))
    written = json.loads(model.to_json())
    optional = {"lora", "quantised"}  # what was done to a trained model; nothing is written where nothing was
    assert written.keys() == {field.name for field in dataclasses.fields(ModelConfig)} - optional
    assert json.loads(model.replace(lora=LoRAConfig(rank=2)).to_json())["lora"]["rank"] == 2
    assert written["position"] == {"kind": "alibi", "slopes": [4.0, 3.0, 2.0, 1.0]}
    assert written["norm"] == {"kind": "layer", "weight": True, "bias": False, "eps": 1e-5}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", "3", "null", '{"vocab_size": 10,}', '{"vocab_size": NaN}', '{"position": "rope"}'],
)
def test_text_that_is_no_config(text):
    with pytest.raises(ConfigError):
        ModelConfig.from_json(text)


# --- problems, all at once ----------------------------------------------------------------------------------


def test_unknown_keys_wrong_types_and_missing_ones_come_together():
    message = refused("n_hads", "n_heads", "width", "wide", "tie_weights", "norm", "vocab_size",
                      n_hads=3, width="wide", tie_weights=1, norm="rms")
    assert message.count("ModelConfig:") == 1


def test_impossible_combinations_come_together():
    refused(
        "n_heads=5", "width=64", "n_kv_heads=2", "slopes", "max_positions=100", "context_length", "n_layers",
        vocab_size=10, n_heads=5, width=64, n_kv_heads=2, n_layers=0, max_positions=100,
        position=ALiBiConfig(slopes=(1.0, 2.0)),
    )


def test_impossible_windows_caps_and_starts_are_refused():
    refused("window=257", "context_length=256", window=257)
    refused("logit_cap", "'soft_cap'", logit_cap=30.0, head=config_of("head", "soft_cap"))
    for block in (ResidualBlockConfig(post_norm=True), MultiTokenBlockConfig(post_norm=True, heads=2)):
        refused("zero_init", "block.post_norm", zero_init=True, block=block)
    assert ModelConfig(window=256).window == 256


def test_unknown_keys_and_impossible_combinations_come_together():
    refused("n_hads", "n_heads=6", "width=64", vocab_size=10, n_hads=3, width=64)


def test_problems_inside_a_part_come_with_those_around_it():
    parts = {"norm": {"kind": "rms", "bar": 2}, "position": {"kind": "ropy"}}
    values = {"vocab_size": 10, "foo": 1, "width": "b"} | parts
    named = ("foo", "width", "norm", "bar", "position", "ropy", "rope")
    refused(*named, make=ModelConfig.from_dict, values=values)


@pytest.mark.parametrize("part", ["position", "block"])
def test_a_part_of_an_unknown_kind_is_not_taken_for_another(part):
    values = {"vocab_size": 10, part: {"kind": "sideways"}}
    refused(part, "kind", "sideways", make=ModelConfig.from_dict, values=values)


def test_settings_are_named_never_counted():
    with pytest.raises(ConfigError, match="keyword"):
        ModelConfig(100)


NAN, INFINITY = float("nan"), float("inf")
WRONG = {
    ModelConfig: dict(
        vocab_size=(0, -1, 10.0, True), context_length=(0,), max_positions=(0, 255),
        n_layers=(0, False), n_heads=(0, -2, None, 5), n_kv_heads=(0, -1, 4, 12), width=(0, 54, 193),
        mlp=(None, NormConfig()), position=(None, "rope", {"kind": "rope"}), block=("parallel",),
        dropout=(0.1,), bias=(None, 0), tie_weights=("yes",), init_std=(0.0, NAN, INFINITY),
        window=(0, -1, 2.0, 257), logit_cap=(0.0, -30.0, INFINITY, True), qk_norm=(None, 1), zero_init=("yes",),
    ),
    NormConfig: dict(kind=("rns", ["rms"]), eps=(0.0,), weight=(1,)),
    MLPConfig: dict(activation=("swish",), ratio=(-4.0,), gated=("yes",)),
    NoPositionConfig: dict(theta=(1.0,)),
    LearnedPositionConfig: dict(length=(1,)),
    SinusoidalConfig: dict(theta=(-1.0,)),
    RoPEConfig: dict(theta=(0.0, "big")),
    ALiBiConfig: dict(slopes=([0.5, 0.25], (0.5, "x"), 0.5, (0.5, NAN))),
    ResidualBlockConfig: dict(parallel=(1,), post_norm=(None,)),
    FactoredBlockConfig: dict(
        value_mixing=("kron", None), output_mixing=(True,), mixing_init=("zero",), frozen_tokens=(0,), head_norm=(None,)
    ),
    FutureBlockConfig: dict(
        levels=(0, 10, 1.0), factor=(1, 5, 2.0, True), pool=("median", None), schedule=("cubic",), vectors=(0,),
        predicts=("next",), loss_weight=(-0.1, NAN), decay=(0.0, 1.5, -1.0), norm_before=(1,), linear_after=(None,),
        share=(0,),
    ),
    ShapedBlockConfig: dict(mlp_gain=("small", NAN), alpha=(1.0,)),
    DropoutConfig: dict(embedding=("much",), attention=(1.0,), residual=(-0.1,)),
    DataConfig: dict(
        validation_fraction=(0.0, 1.0), seed=(-1,), max_documents=(0,), source=(" ", None), text_field=(1,)
    ),
    ScheduleConfig: dict(
        decay=("exponential",), warmup_steps=(-1,), flat_steps=(-1,), final_fraction=(1.1,), cycles=(0,),
        cycle_growth=(0.0,),
    ),
    TrainConfig: dict(
        steps=(0,), batch_size=(0,), micro_batch_size=(0, 7, 128, "all"), learning_rate=(0.0, INFINITY),
        weight_decay=(-0.1,), beta2=(1.0,), gradient_clip=(0.0,), dropout_final=(1.5,), precision=("fp16",),
        device=("tpu",), compile=("yes", True), evaluate_every=(0,), sample_every=(-1,), checkpoint_every=(0,),
        watch_every=(-1, 0.5), seed=(-1,), data=("tales",), schedule=(None,),
    ),
}


@pytest.mark.parametrize(
    "make, setting, value",
    [
        (make, setting, value)
        for make, wrong in WRONG.items()
        for setting, values in wrong.items()
        for value in values
    ],
)
def test_a_setting_that_cannot_be(make, setting, value):
    required = {"vocab_size": 10} if make is ModelConfig else {}
    refused(setting, make.__name__, make=make, **required | {setting: value})


def test_combinations_that_cannot_be():
    refused(
        "width", "even", vocab_size=10, width=54, n_heads=6
    )  # RoPE turns pairs; 9 channels a head are odd
    refused("sinusoidal", "width=15", vocab_size=10, width=15, n_heads=3, position=SinusoidalConfig())
    refused("learned", "max_positions", vocab_size=10, position=LearnedPositionConfig(), max_positions=512)
    refused("steps=10", "warmup_steps", "flat_steps", make=TrainConfig, steps=10,
            schedule=ScheduleConfig(warmup_steps=5, flat_steps=5))
    assert [TrainConfig(steps=steps).warmup_steps for steps in (1, 30, 1000)] == [0, 3, 100], "a tenth, unless set"
    settled = TrainConfig(steps=30).settled(ModelConfig())
    assert settled == TrainConfig(steps=30, schedule=ScheduleConfig(warmup_steps=3), optimizer="muon")
    assert TrainConfig(steps=11, schedule=ScheduleConfig(warmup_steps=5, flat_steps=5)).steps == 11


@pytest.mark.parametrize("block", [FactoredBlockConfig(), ShapedBlockConfig()])
def test_values_are_heads_of_the_stream(block):
    with pytest.raises(ConfigError, match=r"n_kv_heads=2.*n_heads=4"):
        vary("llama", block=block, n_kv_heads=2)
    assert vary("llama", block=block, n_kv_heads=4).kv_heads == 4


def test_mixing_init_without_a_mixing_is_refused():
    with pytest.raises(ConfigError, match="mixing_init='normal'"):
        factored("identity", "identity", mixing_init="normal")


def test_levels_must_fit_the_depth_and_the_context():
    assert vary("llama", n_layers=5, block=FutureBlockConfig()).block.look_ahead == 15
    with pytest.raises(ConfigError, match=r"3 levels need n_layers=5 or more.*not 4.*lower block.levels"):
        vary("llama", n_layers=4, block=FutureBlockConfig())
    assert vary("llama", n_layers=5, context_length=16, block=FutureBlockConfig())
    with pytest.raises(ConfigError, match=r"look 15 tokens ahead.*below context_length=15.*lower block.levels"):
        vary("llama", n_layers=5, context_length=15, block=FutureBlockConfig())


def test_sharing_where_there_is_nothing_to_share_is_refused():
    with pytest.raises(ConfigError, match="pool 'max' has no weights"):
        FutureBlockConfig(pool="max", share=True, norm_before=False)
    with pytest.raises(ConfigError, match="with one level"):
        FutureBlockConfig(pool="flatten", share=True, levels=1)
    assert FutureBlockConfig(pool="max", share=True, linear_after=True, norm_before=False).share
    with pytest.raises(ConfigError, match="have no weights"):
        vary("llama", n_layers=5, norm=NormConfig(weight=False), block=FutureBlockConfig(share=True))


def test_tiny_has_the_layers_that_its_levels_need():
    assert (preset("future-tiny").model.n_layers, preset("future-small").model.n_layers) == (5, 6)


def test_layer_norm_of_heads_with_one_channel_is_refused():
    with pytest.raises(ConfigError, match="head_norm"):
        vary("factored", n_heads=40, block=FactoredBlockConfig(head_norm=True))


def test_compiling_and_annealing_dropout_are_refused_together():
    """Each new rate would be compiled again, until the compiler gives up and goes on uncompiled."""
    refused("compile", "dropout_final", make=TrainConfig, compile="on", dropout_final=0.0)


def test_an_unknown_name_gets_the_nearest_one():
    assert "did you mean 'n_heads'?" in refused(vocab_size=10, n_head=3)
    with pytest.raises(ConfigError, match=r"did you mean 'llama-tiny'.*gpt2-124m"):
        preset("llama-tny")


# --- values -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "original", [vary("llama"), TrainConfig(), RoPEConfig(), DataConfig(), DropoutConfig()]
)
def test_frozen(original):
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(original, dataclasses.fields(original)[0].name, 1)


def test_replace_is_checked_like_a_new_one():
    original = vary("llama")
    assert original.replace(n_layers=5) == vary("llama", n_layers=5) != original
    with pytest.raises(ConfigError, match="wdth"):
        original.replace(wdth=5)
    with pytest.raises(ConfigError, match="n_heads=4"):
        original.replace(width=41)


def test_variants_of_equal_fields_are_not_equal():
    assert NoPositionConfig() != LearnedPositionConfig()
    assert RoPEConfig(theta=5.0) != SinusoidalConfig(theta=5.0)


def test_derived_values():
    assert (vary("llama").head_dim, vary("llama").kv_heads) == (10, 4)
    assert vary("llama", n_kv_heads=2).kv_heads == 2
    assert vary("gpt2").position_limit == 17  # learned positions know no others
    assert vary("alibi").position_limit == 68 and vary("alibi", max_positions=20).position_limit == 20
    assert TrainConfig(batch_size=12, micro_batch_size=4).accumulation == 3
    assert TrainConfig(batch_size=12).accumulation == 1
    assert [TrainConfig(batch_size=12, micro_batch_size=size).at_once for size in (4, None, "auto")] == [4, 12, 12]


@pytest.mark.parametrize(
    "gated, ratio, width, hidden", [(False, 4.0, 768, 3072), (True, 4.0, 768, 2048), (True, 4.0, 192, 512),
                                    (True, 4.0, 40, 104), (False, 2.5, 40, 100), (True, 0.1, 10, 8)]
)
def test_hidden_units(gated, ratio, width, hidden):
    assert MLPConfig(gated=gated, ratio=ratio).hidden(width) == hidden


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("GLASSBOX_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("GLASSBOX_CACHE", "~/glass")
    assert cache_folder() == Path.home() / "glass"
    monkeypatch.delenv("GLASSBOX_CACHE")
    assert cache_folder().is_absolute() and "glassbox" in cache_folder().parts


def test_errors_are_of_one_family():
    for name in ("ConfigError", "DataError", "TokenizerError", "RunError", "GenerationError"):
        assert issubclass(getattr(errors, name), GlassboxError)


# --- presets ------------------------------------------------------------------------------------------------

# layers, heads, width, context, positions, batch; that of medium is twice the published one (README, "Speed")
PUBLISHED = {
    "tiny": (2, 2, 128, 128, 512, 64),
    "small": (6, 6, 192, 256, 1024, 32),
    "medium": (6, 6, 768, 128, 256, 64),
    "large": (12, 12, 768, 1024, 4096, 8),
    "character": (6, 6, 384, 256, 1024, 64),
}


def test_there_is_a_preset_for_every_architecture_and_size():
    named = {f"{architecture}-{size}" for architecture in ("gpt2", "llama", "alibi") for size in PUBLISHED}
    assert named | {"gpt2-124m"} <= set(list_presets())


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "alibi"])
@pytest.mark.parametrize("size", PUBLISHED)
def test_preset_has_the_published_size(architecture, size):
    model, train = preset(f"{architecture}-{size}")
    layers, heads, width, context, positions, batch = PUBLISHED[size]
    if architecture == "gpt2":
        positions = context  # a table of learned positions is as long as what it is trained on
    assert (model.n_layers, model.n_heads, model.width) == (layers, heads, width)
    assert (model.context_length, model.position_limit) == (context, positions)
    assert (train.batch_size, train.learning_rate) == (batch, pytest.approx(1.2e-2 * 128 / width))


def test_preset_architectures():
    gpt2, llama, alibi = (preset(f"{name}-tiny").model for name in ("gpt2", "llama", "alibi"))
    assert gpt2.norm == NormConfig(kind="layer", weight=True, bias=True, eps=1e-5)
    assert gpt2.bias and gpt2.tie_weights
    assert gpt2.mlp == MLPConfig(activation="gelu_tanh", gated=False, ratio=4.0)
    assert gpt2.position == LearnedPositionConfig()
    assert llama.norm == NormConfig(kind="rms", weight=True, bias=False, eps=1e-5) and not llama.bias
    assert llama.mlp == MLPConfig(activation="silu", gated=True, ratio=4.0)
    assert llama.position == RoPEConfig(theta=10_000.0)
    assert alibi.position == ALiBiConfig(slopes=None) and not alibi.mlp.gated


def test_every_model_is_listed_and_is_a_preset():
    assert list_models() == [
        "gpt2", "llama", "alibi", "vanilla", "sasp", "factored", "factored-alibi", "future", "multi-token"
    ]
    assert {f"{name}-tiny" for name in list_models()} <= set(list_presets())
    model = preset("factored-alibi-tiny").model
    assert (model.position.kind, model.block, model.width) == ("alibi", FactoredBlockConfig(), 128)
    assert preset("factored-tiny").model.position == preset("vanilla-tiny").model.position == LearnedPositionConfig()
    assert preset("sasp-small").model.block == ShapedBlockConfig()


@pytest.mark.parametrize("name", [name for name in list_presets() if name != "gpt2-124m"])
def test_preset_vocabulary_is_its_tokenizers(name):
    model, train = preset(name)
    assert load_tokenizer(train.data.tokenizer).vocab_size == model.vocab_size


def test_gpt2_124m_has_the_published_parameters():
    import torch

    from modules.transformer import Transformer

    model, train = preset("gpt2-124m")
    with torch.device("meta"):
        built = Transformer(model)
    assert sum(parameter.numel() for parameter in built.parameters()) == 124_439_808
    assert {tensor.device.type for tensor in built.parameters()} == {"meta"}
    assert (model.vocab_size, model.context_length, train.data.tokenizer) == (50_257, 1024, "gpt2")


@pytest.mark.parametrize("name", VARIANTS)
def test_every_setting_is_read_from_what_it_prints(name):
    for setting, value in settings_by_name(VARIANTS[name], TrainConfig()).items():
        if isinstance(value, list):  # JSON's tuple
            check_setting(ROOTS, setting, tuple(value))
        else:
            read = read_setting(ROOTS, setting, str(value))
            assert read == value and type(read) is type(value), setting


def test_settings_by_name_are_those_of_all_variants_and_no_more():
    train = TrainConfig(distil=DistilConfig(teacher="run"))
    there = {setting for model in VARIANTS.values() for setting in settings_by_name(model, train)}
    missing = set(types_by_name(ROOTS)) - there
    assert there <= set(types_by_name(ROOTS)) and not missing, missing


@pytest.mark.parametrize(
    "setting, text, message",
    [
        ("train.step", "3", "unknown setting 'train.step'; did you mean 'train.steps'"),
        ("train.steps", "3.0", "train.steps must be an integer from 1 to 1,000,000,000, not '3.0'"),
        ("train.steps", "True", "train.steps must be an integer from 1 to 1,000,000,000, not 'True'"),
        ("train.precision", "fp16", "train.precision must be one of 'auto', 'fp32', 'tf32', 'bf16', not 'fp16'"),
        ("model.n_kv_heads", "none", "model.n_kv_heads must be an integer from 1 to 1,024 or None, not 'none'"),
        ("model.init_std", "inf", "model.init_std must be a finite number above 0, not 'inf'"),
    ],
)
def test_a_setting_reads_only_what_it_takes(setting, text, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_setting(ROOTS, setting, text)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_can_be_built_on_the_meta_device(name):
    import torch

    from modules.transformer import Transformer

    with torch.device("meta"):
        model = Transformer(VARIANTS[name])
    assert {tensor.device.type for tensor in (*model.parameters(), *model.buffers())} == {"meta"}


def test_config_imports_no_torch():
    heavy = {"torch", "numpy", "datasets", "matplotlib"}
    code = f"import config, sys; print(sorted({heavy!r} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, encoding="utf-8", check=True
    )
    assert found.stdout.strip() == "[]"
