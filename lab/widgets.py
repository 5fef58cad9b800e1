"""Panels with sliders for a notebook. Each shows something that a plain call shows too, for when no kernel runs."""

from html import escape
from typing import TYPE_CHECKING

from config import SAMPLE_PROMPT, GlassboxError
from lab.plots import shaded_tokens
from lab.sampling_config import STRATEGIES, SamplingConfig

if TYPE_CHECKING:
    import ipywidgets

    from lab.provenance import Provenance
    from lab.tokenizers import Tokenizer
    from modules.transformer import Transformer

# label, smallest, largest, step, the value at which the setting changes nothing (None: it always acts)
SLIDERS = {
    "temperature": ("temperature", 0.0, 2.0, 0.05, None),
    "top_k": ("top-k (0: all)", 0, 100, 1, 0),
    "top_p": ("top-p", 0.05, 1.0, 0.05, 1.0),
    "min_p": ("min-p", 0.0, 0.5, 0.01, 0.0),
    "repetition_penalty": ("repetition penalty", 1.0, 2.0, 0.05, None),
}


def sampling_panel(
    model: "Transformer", tokenizer: "Tokenizer", prompt: str = SAMPLE_PROMPT, max_tokens: int | None = None
) -> "ipywidgets.VBox":
    """Sliders for the sampling settings; the continuation below, its tokens shaded by probability.

    The static twin: `shaded_tokens` of a transcript with the settings as a `SamplingConfig`.
    """
    import ipywidgets as widgets

    style, layout = {"description_width": "9em"}, widgets.Layout(width="32em")
    text = widgets.Text(prompt, description="prompt", style=style, layout=layout)
    start = widgets.Dropdown(options=list(STRATEGIES), value="balanced", description="start from", style=style)
    sliders = {
        name: (widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider)(
            value=_shown(name, STRATEGIES["balanced"]), min=low, max=high, step=step, description=label, style=style,
            layout=layout, continuous_update=False,
        )
        for name, (label, low, high, step, _) in SLIDERS.items()
    }  # fmt: skip
    seed = widgets.BoundedIntText(0, min=0, max=10**6, description="seed", style=style)
    shown = widgets.HTML()

    def use_strategy(change) -> None:
        for name, slider in sliders.items():
            slider.value = _shown(name, STRATEGIES[change["new"]])

    def write(_) -> None:
        try:
            settings = SamplingConfig(**{name: _meant(name, slider.value) for name, slider in sliders.items()})
            shown.value = continuation(model, tokenizer, text.value, max_tokens, settings, seed.value)._repr_html_()
        except GlassboxError as error:
            shown.value = f"<b>{escape(str(error))}</b>"

    start.observe(use_strategy, "value")
    button = widgets.Button(description="Write", button_style="primary", tooltip="continue the prompt like this")
    button.on_click(write)
    write(None)
    return widgets.VBox([text, start, *sliders.values(), widgets.HBox([seed, button]), shown])


def continuation(
    model: "Transformer", tokenizer: "Tokenizer", prompt: str, max_tokens: int | None, sampling: SamplingConfig,
    seed: int,
):  # fmt: skip
    """The prompt continued, each token shaded by the probability that the model itself gave it."""
    from lab.generation import transcribe

    (made,) = transcribe(model, tokenizer, [prompt], max_tokens=max_tokens, sampling=sampling, seed=seed)
    return shaded_tokens(made.texts, made.probabilities)


def provenance_panel(found: "Provenance") -> "ipywidgets.VBox":
    """A slider over the layers and one for each end's head; below, what the token stream carries from where.

    The static twin: `provenance_heatmaps`, every layer in one picture.
    """
    import ipywidgets as widgets

    from lab.provenance_plots import provenance_heatmap

    names = {"layer": found.n_layers, "head": found.n_heads - 1, "source head": found.n_heads - 1}
    sliders = [
        widgets.IntSlider(value=0, min=0, max=last, description=name, continuous_update=False)
        for name, last in names.items()
    ]
    sliders[0].value = found.n_layers
    shown = widgets.Image(format="png")

    def draw(_) -> None:
        picture = provenance_heatmap(found, *(slider.value for slider in sliders))
        shown.value, shown.width = picture.png, str(picture.width)

    for slider in sliders:
        slider.observe(draw, "value")
    draw(None)
    return widgets.VBox([*sliders, shown])


def _shown(name: str, settings: SamplingConfig) -> float:
    value = getattr(settings, name)
    return SLIDERS[name][4] if value is None else value


def _meant(name: str, value: float) -> float | None:
    return None if SLIDERS[name][4] is not None and value == SLIDERS[name][4] else value
