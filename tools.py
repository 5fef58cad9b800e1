"""The workbench door: the names that a notebook imports, and the terminal's commands (`python tools.py --help`).

    from tools import ModelConfig, Run, preset, train

A name is imported from its own module when it is first used, so a notebook waits only for what it uses. Every function
here checks its arguments: one that gets a name where it needs a run, say, raises a ConfigError that tells what to pass.
Editors read the names from tools.pyi, which a test keeps equal to HOMES.
"""

import importlib
import inspect
import sys

from lab.arguments import checked
from settings.registry import REGISTRY

HOMES = {
    "config": (
        "ALiBiConfig", "BlockConfig", "DataConfig", "DistilConfig", "DropoutConfig", "FactoredBlockConfig",
        "FutureBlockConfig", "HeadConfig", "LearnedPositionConfig", "LoRAConfig", "MLPConfig", "ModelConfig",
        "MultiTokenBlockConfig", "NoPositionConfig", "NormConfig", "PositionConfig", "Preset", "QuantisedConfig",
        "ResidualBlockConfig", "RoPEConfig", "ScheduleConfig", "ShapedBlockConfig", "SinusoidalConfig", "TrainConfig",
        "list_models", "list_presets", "preset",
    ),
    "lab.adapting.adapters": ("AdaptedModel", "merge_adapter"),
    "lab.adapting.classification": ("train_classifier",),
    "lab.adapting.classifier_report": ("measure_classifier",),
    "lab.adapting.classifier_settings": ("ClassifierConfig",),
    "lab.adapting.distillation": ("student_settings",),
    "lab.adapting.fine_tuning": ("fine_tune",),
    "lab.adapting.quantising": ("measure_quantisation", "quantise_run"),
    "lab.adapting.stored_classifier": ("open_classifier", "save_classifier"),
    "lab.adapting.tasks": ("list_tasks", "load_task"),
    "lab.adapting.text_classifier": ("build_classifier",),
    "lab.analysis.attention_maps": ("attention_maps",),
    "lab.analysis.attention_plots": ("attention_map", "attention_overview", "attention_summary"),
    "lab.future_sight.calibration": ("calibration",),
    "lab.comparison.comparison": ("compare",),
    "lab.data.bpe_training": ("learn_characters", "train_bpe"),
    "lab.data.fertility": ("fertility",),
    "lab.data.memory": ("register_texts",),
    "lab.data.packing": ("prepare",),
    "lab.data.readable_bpe": ("MergeStep", "apply_merges", "count_pairs", "learn_merges", "merge_pair", "split_text"),
    "lab.data.preview": ("preview_data",),
    "lab.data.sources": ("list_sources", "load_documents"),
    "lab.costs.estimates": ("estimate",),
    "lab.costs.memory": ("decoding_memory",),
    "lab.costs.plans": ("plan",),
    "lab.evaluation.evaluate": ("evaluate", "evaluate_text"),
    "lab.exchange.export": ("export_hf",),
    "lab.exchange.importing": ("import_hf",),
    "lab.evaluation.extrapolation": ("extrapolation", "loss_by_position"),
    "lab.evaluation.probes": ("probe_accuracy",),
    "lab.future_sight.future_attention": ("future_attention",),
    "lab.future_sight.future_plots": (
        "calibration_plot", "foresight_picture", "foresight_table", "future_attention_maps", "windows_diagram",
    ),
    "lab.future_sight.predictions": ("future_predictions",),
    "lab.analysis.attention_files": ("save_attention",),
    "lab.evaluation.diversity": ("diversity", "sample_strategies"),
    "lab.generation.batches": ("read_prompts", "transcribe_all"),
    "lab.generation.filter_plots": ("filter_picture",),
    "lab.generation.filter_steps": ("filter_steps",),
    "lab.generation.generate": ("generate", "generate_text", "next_token_probabilities", "stream_text", "transcribe"),
    "lab.analysis.interventions": (
        "ablate_heads", "ablate_streams", "amplified", "amplify", "one_stream", "without_heads",
    ),
    "lab.analysis.intervention_plots": ("ablation_heatmap",),
    "lab.future_sight.leak": ("demonstrate_leak", "leak_curves"),
    "lab.analysis.lens_plots": ("lens_curves", "lens_heatmap"),
    "lab.analysis.lenses": ("lens_quality", "read_layers"),
    "lab.training.live": ("live",),
    "lab.comparison.overrides": ("grid", "overridden"),
    "lab.display.plots": ("bars", "loss_curve", "next_token_bars", "shaded_tokens", "side_by_side"),
    "lab.display.position_plots": (
        "alibi_biases", "extrapolation_curves", "position_losses", "position_vectors", "rotations",
        "scores_by_offset", "slope_dots",
    ),
    "lab.analysis.provenance": ("provenance",),
    "lab.analysis.provenance_plots": ("logit_bars", "provenance_heatmap", "provenance_heatmaps"),
    "lab.display.quiz": ("ask",),
    "lab.training.rate_finder": ("find_learning_rate", "rate_curve"),
    "lab.training.start": ("open_or_create",),
    "lab.runs.listing": ("delete_run", "list_runs"),
    "lab.runs.run": ("Run",),
    "lab.generation_speed": ("generation_speed",),
    "lab.generation.sampling_settings": ("STRATEGIES", "SamplingConfig"),
    "lab.compute.schedule": ("learning_rates",),
    "lab.compute.schedule_preview": ("schedule_preview",),
    "lab.compute.mixture_preview": ("mixture_preview",),
    "lab.shapes.views": ("Shapes", "trace"),
    "lab.sharing": ("export_run", "import_run"),
    "lab.comparison.side_by_side": ("generate_side_by_side",),
    "lab.display.source_view": ("show",),
    "lab.generation.acceptance_step": ("acceptance_step",),
    "lab.generation.speculative": ("speculate", "speculative_text"),
    "lab.runs.drafting": ("load_draft",),
    "lab.comparison.sweep": ("compare_sweep", "matched", "mean_and_spread", "sweep", "sweep_results"),
    "lab.data.tales": ("stories", "story"),
    "lab.data.tokenizer_plots": ("compression_curve", "fertility_plot", "vocabulary_trade_off"),
    "lab.display.token_display": ("show_tokens",),
    "lab.data.tokenizers": (
        "huggingface_tokenizer", "list_tokenizers", "load_tokenizer", "register_tokenizer", "save_tokenizer",
    ),
    "lab.training.loop": ("train",),
    "lab.training.step": ("Step",),
    "lab.analysis.tuned_lens": ("load_lens", "train_lens"),
    "lab.training.watch": ("watch_warnings",),
    "lab.training.watch_plots": ("watch_heatmap",),
    "lab.widgets": ("merge_panel", "provenance_panel", "sampling_panel"),
    "settings.checked": ("settings",),
    "settings.hub": ("HubConfig",),
    "settings.mixture": ("MixtureConfig",),
    "settings.errors": ("ConfigError", "GlassboxError"),
    "settings.registry": ("register",),
    "tracing.glossary": ("GLOSSARY",),
    "modules.attention": ("Attention",),
    "modules.block": ("Block",),
    "modules.classifier": ("Classifier",),
    "modules.factored": ("FactoredBlock", "Mixing"),
    "modules.heads": ("Head",),
    "modules.linear": ("Linear",),
    "modules.lora": ("Adapter", "LoRALinear"),
    "modules.logging_module": ("LoggingModule",),
    "modules.mlp": ("GatedMLP", "MLP"),
    "modules.norms": ("CosineNorm", "LayerNorm", "Norm", "RMSNorm"),
    "modules.pools": ("Pool",),
    "modules.positions": ("ALiBi", "Position", "PositionContext", "RotaryPosition", "alibi_slopes"),
    "modules.residual": ("ResidualBlock",),
    "modules.rotation": ("Rotation",),
    "modules.transformer": ("Transformer",),
}
HOME_OF = {name: module for module, names in HOMES.items() for name in names}
__all__ = sorted(HOME_OF)
REGISTRY.load_ideas = lambda: importlib.import_module("modules.ideas")  # when a kind is asked for that is not built in


def __getattr__(name: str):
    if name not in HOME_OF:
        raise AttributeError(f"tools has no {name!r}; it offers {', '.join(__all__)}")
    value = getattr(importlib.import_module(HOME_OF[name]), name)
    if inspect.isfunction(value):
        value = checked(value)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """What completion in Jupyter offers."""
    return __all__


if __name__ == "__main__":
    try:
        from lab.terminal import main
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in ("config", "lab", "modules", "settings", "tracing"):
            raise
        sys.exit(
            f"error: this Python ({sys.executable}) has no package {error.name!r}. `make train` sets up .venv once; "
            "then `.venv/bin/python tools.py ...` runs a command (on Windows `.venv\\Scripts\\python tools.py ...`)"
        )
    sys.exit(main(sys.argv[1:]))
