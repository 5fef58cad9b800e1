"""The workbench door: the names that a notebook imports, and the terminal's commands (`python tools.py --help`).

    from tools import ModelConfig, Run, preset, train

Each name is fetched from its own module when first asked for, so that nothing waits for what it does not use. The
functions tell at once where they are given a name, a preset or a config in place of what they take.
"""

import importlib
import inspect
import sys

from lab.arguments import checked

HOMES = {
    "config": (
        "ALiBiConfig", "ConfigError", "DataConfig", "DropoutConfig", "FactoredBlockConfig", "FutureBlockConfig",
        "GlassboxError", "LearnedPositionConfig", "MLPConfig", "ModelConfig", "MultiTokenBlockConfig",
        "NoPositionConfig", "NormConfig", "Preset", "ResidualBlockConfig", "RoPEConfig", "ScheduleConfig",
        "ShapedBlockConfig", "SinusoidalConfig", "TrainConfig", "list_models", "list_presets", "preset",
    ),
    "lab.attention_maps": ("attention_maps",),
    "lab.attention_plots": ("attention_map", "attention_overview", "attention_summary"),
    "lab.calibration": ("calibration",),
    "lab.comparison": ("compare",),
    "lab.data": ("list_sources", "load_documents", "prepare"),
    "lab.estimates": ("decoding_memory", "estimate"),
    "lab.evaluation": ("evaluate", "evaluate_text", "probe_accuracy"),
    "lab.extrapolation": ("extrapolation", "loss_by_position"),
    "lab.foreseen": ("foreseen", "thought_attention"),
    "lab.foreseen_plots": (
        "calibration_plot", "foresight_picture", "foresight_table", "thought_maps", "windows_diagram",
    ),
    "lab.generation": ("generate", "generate_text", "next_token_probabilities", "stream_text", "transcribe"),
    "lab.interventions": (
        "ablate_heads", "ablate_streams", "ablation_heatmap", "amplified", "amplify", "one_stream",
        "without_heads",
    ),
    "lab.leak": ("demonstrate_leak", "leak_curves"),
    "lab.lens_plots": ("lens_curves", "lens_heatmap"),
    "lab.lenses": ("lens_quality", "read_layers"),
    "lab.live": ("live",),
    "lab.overrides": ("grid", "overridden"),
    "lab.plots": ("bars", "loss_curve", "next_token_bars", "schedule_preview", "shaded_tokens", "side_by_side"),
    "lab.position_plots": (
        "alibi_biases", "extrapolation_curves", "position_losses", "position_vectors", "rotations",
        "scores_by_offset", "slope_dots",
    ),
    "lab.provenance": ("provenance",),
    "lab.provenance_plots": ("logit_bars", "provenance_heatmap", "provenance_heatmaps"),
    "lab.quiz": ("ask",),
    "lab.rate_finder": ("find_learning_rate", "rate_curve"),
    "lab.run_start": ("open_or_create",),
    "lab.runs": ("Run", "delete_run", "list_runs"),
    "lab.sampling_config": ("STRATEGIES", "SamplingConfig"),
    "lab.schedule": ("learning_rates",),
    "lab.scores": ("score", "score_text"),
    "lab.shapes.views": ("Shapes", "trace"),
    "lab.sharing": ("export_run", "import_run"),
    "lab.side_by_side": ("generate_side_by_side",),
    "lab.source_view": ("show",),
    "lab.speculative": ("speculate", "speculative_text"),
    "lab.sweep": ("compare_sweep", "matched", "mean_and_spread", "sweep", "sweep_results"),
    "lab.tales": ("stories", "story"),
    "lab.token_display": ("show_tokens",),
    "lab.tokenizers": ("list_tokenizers", "load_tokenizer", "register_tokenizer"),
    "lab.training": ("Step", "train"),
    "lab.tuned_lens": ("load_lens", "train_lens"),
    "lab.watch": ("watch_warnings",),
    "lab.watch_plots": ("watch_heatmap",),
    "lab.widgets": ("provenance_panel", "sampling_panel"),
    "modules": ("GLOSSARY",),
    "modules.attention": ("Attention",),
    "modules.factored": ("FactoredBlock",),
    "modules.linear": ("Linear",),
    "modules.logging_module": ("LoggingModule",),
    "modules.mlp": ("GatedMLP", "MLP"),
    "modules.norms": ("CosineNorm", "LayerNorm", "RMSNorm"),
    "modules.positions": ("ALiBi", "Placement", "RotaryPosition", "alibi_slopes"),
    "modules.residual": ("ResidualBlock",),
    "modules.transformer": ("Transformer",),
}  # fmt: skip
HOME_OF = {name: module for module, names in HOMES.items() for name in names}
__all__ = sorted(HOME_OF)


def __getattr__(name: str):
    if name not in HOME_OF:
        raise AttributeError(f"tools has no {name!r}; it offers {', '.join(__all__)}")
    value = getattr(importlib.import_module(HOME_OF[name]), name)
    if inspect.isfunction(value):
        value = checked(value)
    globals()[name] = value
    return value


if __name__ == "__main__":
    try:
        from lab.terminal import main
    except ModuleNotFoundError as error:
        if error.name.split(".")[0] in ("config", "lab", "modules"):
            raise
        sys.exit(
            f"error: this Python ({sys.executable}) has no package {error.name!r}. `make train` sets up .venv once; "
            "then `.venv/bin/python tools.py ...` runs a command (on Windows `.venv\\Scripts\\python tools.py ...`)"
        )
    sys.exit(main(sys.argv[1:]))
