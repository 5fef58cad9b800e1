"""Panels with sliders for a notebook. Each stores its last result as a static twin, for pages without a kernel."""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from config import SAMPLE_PROMPT
from lab.display.plots import ShadedTokens, shaded_tokens
from lab.generation.sampling_settings import STRATEGIES, SamplingConfig
from settings.errors import GlassboxError

if TYPE_CHECKING:
    import ipywidgets

    from lab.analysis.provenance import Provenance
    from lab.data.readable_bpe import MergeStep
    from lab.data.tokenizers import Tokenizer
    from modules.transformer import Transformer

# label, smallest, largest, step, the value that switches the setting off (None: it can't be switched off)
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
    """Sliders for the sampling settings, and below them the continuation, its tokens shaded by probability.

    A change marks the continuation as old until the button writes a new one. Without a panel: `shaded_tokens` of a
    `transcribe` with the settings as a `SamplingConfig`.
    """
    import ipywidgets as widgets

    from lab.display.static_twin import WithTwin

    style, layout = {"description_width": "9em"}, widgets.Layout(width="32em")
    text = widgets.Text(prompt, description="prompt", style=style, layout=layout)
    start = widgets.Dropdown(options=list(STRATEGIES), value="balanced", description="start from", style=style)
    sliders = _sliders(style, layout)
    seed = widgets.BoundedIntText(0, min=0, max=10**6, description="seed", style=style)
    shown, latest = widgets.HTML(), shaded_tokens([], [])

    def use_strategy(change) -> None:
        for name, slider in sliders.items():
            slider.value = _shown(name, STRATEGIES[change["new"]])

    def mark_old(_) -> None:
        shown.value = as_old(latest, "written before the last change: press Write")

    def write(_) -> None:
        nonlocal latest
        said = "the generation was interrupted"
        shown.value = as_old(latest, "writing …")
        try:
            settings = SamplingConfig(**{name: _meant(name, slider.value) for name, slider in sliders.items()})
            options = dict(max_tokens=max_tokens, sampling=settings, seed=seed.value)
            latest, said = continuation(model, tokenizer, text.value, **options), ""
        except GlassboxError as error:
            said = str(error)
        finally:
            shown.value = as_old(latest, said) if said else latest._repr_html_()
        panel.keep(latest)

    start.observe(use_strategy, "value")
    for control in (text, *sliders.values(), seed):
        control.observe(mark_old, "value")
    button = widgets.Button(description="Write", button_style="primary", tooltip="continue the prompt like this")
    button.on_click(write)
    panel = WithTwin([text, start, *sliders.values(), widgets.HBox([seed, button]), shown])
    write(None)
    return panel


def _sliders(style: dict, layout: "ipywidgets.Layout") -> "dict[str, ipywidgets.Widget]":
    import ipywidgets as widgets

    return {
        name: (widgets.IntSlider if isinstance(step, int) else widgets.FloatSlider)(
            value=_shown(name, STRATEGIES["balanced"]), min=low, max=high, step=step, description=label, style=style,
            layout=layout, continuous_update=False,
        )
        for name, (label, low, high, step, _) in SLIDERS.items()
    }


def as_old(text: ShadedTokens, why: str) -> str:
    """The text as pale HTML, below the reason."""
    return f'<b>{escape(why)}</b><div style="opacity:.75">{text._repr_html_()}</div>'


def continuation(model: "Transformer", tokenizer: "Tokenizer", prompt: str, **options) -> ShadedTokens:
    """The prompt continued with the options of `transcribe`, each token shaded by its probability under the model."""
    from lab.generation.generate import transcribe

    (made,) = transcribe(model, tokenizer, [prompt], **options)
    return shaded_tokens(made.texts, made.probabilities)


def provenance_panel(found: "Provenance") -> "ipywidgets.VBox":
    """Sliders for the layer, the head and the source head, and below them where the token stream comes from.

    Layers count from 0, the start, and heads from 0. Without a panel: `provenance_heatmaps`, all layers in one picture.
    """
    import ipywidgets as widgets

    from lab.analysis.provenance_plots import provenance_heatmap
    from lab.display.static_twin import WithTwin

    names = {"layer": found.n_layers, "head": found.n_heads - 1, "source head": found.n_heads - 1}
    sliders = [
        widgets.IntSlider(value=0, min=0, max=last, description=name, continuous_update=False)
        for name, last in names.items()
    ]
    sliders[0].value = found.n_layers
    shown = widgets.Image(format="png")

    def show_picture(_) -> None:
        picture = provenance_heatmap(found, *(slider.value for slider in sliders))
        shown.value, shown.width = picture.png, str(picture.width)
        panel.keep(picture)

    panel = WithTwin([*sliders, shown])
    for slider in sliders:
        slider.observe(show_picture, "value")
    show_picture(None)
    return panel


def merge_panel(text: str, steps: "Sequence[MergeStep]") -> "ipywidgets.VBox":
    """A slider over the merges of a byte-pair encoding, and below it the text as the merges so far cut it.

    At 0 each byte is a token. Without a panel: `show_tokens(text, step.tokenizer)` for each step.
    """
    import ipywidgets as widgets

    from lab.data.tokenizers import load_tokenizer
    from lab.display.static_twin import WithTwin
    from lab.display.token_display import show_tokens

    slider = widgets.IntSlider(value=len(steps), min=0, max=len(steps), description="merges")
    said, shown = widgets.HTML(), widgets.HTML()

    def show_step(_) -> None:
        step = steps[slider.value - 1] if slider.value else None
        display = show_tokens(text, step.tokenizer if step else load_tokenizer("byte"))
        said.value, shown.value = escape(str(step)) if step else "each byte is a token", display._repr_html_()
        panel.keep(display)

    panel = WithTwin([slider, said, shown])
    slider.observe(show_step, "value")
    show_step(None)
    return panel


def _shown(name: str, settings: SamplingConfig) -> float:
    value = getattr(settings, name)
    return SLIDERS[name][4] if value is None else value


def _meant(name: str, value: float) -> float | None:
    return None if SLIDERS[name][4] is not None and value == SLIDERS[name][4] else value
