"""Questions that check the answer: buttons or a text field in a notebook, folded answers where no kernel runs."""

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from lab.display.html import render
from lab.display.palette import SKY, translucent
from settings.errors import GlassboxError
from settings.messages import suggest

if TYPE_CHECKING:
    import ipywidgets

Answer = str | int | tuple[int, ...]
BOX = f"border-left:4px solid {translucent(SKY, 0.9)};padding:2px 0 2px 12px;line-height:1.5"
FOLDED = """
<div style="{{ box }}"><b>?</b> {{ question|safe }}
{% for head, body in folded.items() %}
<details><summary style="cursor:pointer">{{ head|safe }}</summary>
<div style="margin-left:1.2em">{{ body|safe }}</div></details>
{% endfor %}
</div>
"""

# Numbers may be typed as 2208, 2_208, 2F = 208, 40 channels; several as a shape; a single one also as 2,208
AXES = r"(?:\d*[A-Za-z]\w*(?:\s*[+|/*]\s*\d*[A-Za-z]\w*)*\s*=\s*)?"
UNITS = (
    r"(?:\s*(?:axes|axis|bytes?|blocks?|channels?|dimensions?|elements?|features?|heads?|keys?|layers?|numbers?"
    r"|parameters?|positions?|quer(?:y|ies)|rows?|columns?|scores?|steps?|tokens?|units?|values?|weights?|words?))?"
)
NUMBER = re.compile(rf"{AXES}(0|[1-9]\d*(?:_\d{{3}})*){UNITS}")
SHAPE = re.compile(rf"{NUMBER.pattern}(?:(?:\s*[,x×]\s*|\s+){NUMBER.pattern})*\s*,?")
THOUSANDS = re.compile(rf"{AXES}(\d{{1,3}}(?:[, ']\d{{3}})+){UNITS}")


class QuizError(GlassboxError, ValueError):
    """A question that can't be asked, or a reply that is not among its choices."""


class Verdict(NamedTuple):
    """Whether a reply is right, and an explanation."""

    right: bool
    text: str

    def __str__(self) -> str:
        return f"{'✓ Right.' if self.right else '✗ Not so.'} {self.text}"


@dataclass(frozen=True)
class Question:
    """A question made by `ask`. It shows itself as the last line of a cell; `check` checks a reply.

    wrong: the explanation for each expected wrong reply.
    """

    text: str
    answer: str
    why: str
    wrong: dict[str, str]
    typed: bool

    @property
    def choices(self) -> list[str]:
        """The replies to choose from, in an order that does not reveal the answer."""
        return sorted([self.answer, *self.wrong], key=lambda choice: (len(choice), choice))

    def check(self, reply: Answer) -> Verdict:
        """Whether `reply` is right, and why.

        A shape may be typed as 3, 17 or (B=3, T=17); a number with its axes or its unit, as in 2F=208 or 40 channels.
        Nothing is calculated. Raises QuizError for a reply that is not among the choices.
        """
        given = _plain(reply)
        if self.typed:
            return self._check_typed(given)
        if given not in self.choices:
            raise QuizError(f"{given!r} is not among the choices; {suggest(given, self.choices)}")
        return Verdict(given == self.answer, self.why if given == self.answer else self.wrong[given])

    def _check_typed(self, given: str) -> Verdict:
        expected = _numbers(self.answer)
        numbers = _numbers(given, alone=len(expected) == 1)
        if numbers is None:
            return Verdict(False, "Answer with numbers alone, as in 2208, or (2, 5) for a shape.")
        if numbers == expected:
            return Verdict(True, self.why)
        for reply, explanation in self.wrong.items():
            if numbers == _numbers(reply):
                return Verdict(False, explanation)
        if len(numbers) != len(expected):
            return Verdict(False, f"That is {_count(numbers)}, the answer has {_count(expected)}.")
        place = next(i for i, pair in enumerate(zip(numbers, expected)) if pair[0] != pair[1])
        where = f"Number {place + 1} of {len(expected)} is another one" if len(expected) > 1 else "It is another number"
        return Verdict(False, f"{where}; look again.")

    # --- how it looks -----------------------------------------------------------------------------------------

    def _ipython_display_(self) -> None:
        """Shows the widgets if a kernel runs, and their static twin, which stays in a stored notebook."""
        self.widget()._ipython_display_()

    def widget(self) -> "ipywidgets.VBox":
        """The question, a button for each choice or a field to type in, and the verdict below."""
        import ipywidgets as widgets

        from lab.display.static_twin import Html, WithTwin

        verdict = widgets.HTML()

        def show_verdict(reply: str) -> bool:
            found = self.check(reply)
            verdict.value = f'<div role="status" style="{BOX}">{_marked(str(found))}</div>'
            return found.right

        def press(button: widgets.Button) -> None:
            button.button_style = "success" if show_verdict(button.description) else "danger"

        if self.typed:
            field = widgets.Text(placeholder="your answer", continuous_update=False)
            field.observe(lambda change: show_verdict(change["new"]), "value")  # Enter
            button = widgets.Button(description="Check", button_style="primary")
            button.on_click(lambda _: show_verdict(field.value))
            replies = [widgets.HBox([field, button])]
        else:
            natural = widgets.Layout(width="max-content", max_width="100%")
            replies = [widgets.Button(description=choice, layout=natural) for choice in self.choices]
            for button in replies:
                button.on_click(press)
        asked = widgets.HTML(f'<div style="{BOX}"><b>?</b> {_marked(self.text)}</div>')
        return WithTwin([asked, *replies, verdict], Html(self.html, str(self)))

    @property
    def html(self) -> str:
        """The question without a kernel: each choice unfolds its verdict, or the answer is folded below."""
        if self.typed:
            folded = {"the answer": f"<b>{escape(self.answer)}</b> {_marked(self.why)}"}
        else:
            folded = {escape(choice): _marked(str(self.check(choice))) for choice in self.choices}
        return render(FOLDED, box=BOX, question=_marked(self.text), folded=folded)

    def __str__(self) -> str:
        return "\n".join([f"? {self.text}", *(f"  · {choice}" for choice in self.choices if not self.typed)])

    __repr__ = __str__


def ask(
    question: str, answer: Answer, why: str, wrong: dict[Answer, str] | None = None, typed: bool = False
) -> Question:
    """A question to answer in a notebook. `answer`, taken from the live model, is the only right reply.

    wrong: wrong replies, each with an explanation. They are the other choices, or the mistakes to expect where the
    answer is typed. A wrong reply that equals the answer is left out: with other sizes this may happen. The texts may
    contain `code`. Raises QuizError if there is nothing to choose from, or a typed answer is not a number or a shape.
    """
    right = _plain(answer)
    others = {_plain(reply): explanation for reply, explanation in (wrong or {}).items()}
    if not typed and not others:
        raise QuizError("a question with choices needs wrong ones: give wrong={reply: why not}, or typed=True")
    if typed and _numbers(right) is None:
        raise QuizError(f"the answer {right!r} can't be typed: it must be a number or a shape; give choices instead")
    others.pop(right, None)
    return Question(question, right, why, others, typed)


def _plain(reply: Answer) -> str:
    return str(tuple(reply)) if isinstance(reply, tuple) else str(reply).strip()  # torch.Size too is a tuple


def _numbers(text: str, alone: bool = False) -> tuple[int, ...] | None:
    """The numbers of `(3, 17)`, `3 x 17` or `(B=3, H+2G=17)`; None for any other text.

    alone: one number is expected, so 2,208 is read as one.
    """
    bare = text.strip()
    if alone and (found := THOUSANDS.fullmatch(bare)):
        return (int(re.sub(r"\D", "", found[1])),)
    for start, end in (("torch.Size(", ")"), ("(", ")"), ("[", "]")):
        if bare.startswith(start) and bare.endswith(end):
            bare = bare[len(start) : -len(end)].strip()
    return tuple(map(int, NUMBER.findall(bare))) if SHAPE.fullmatch(bare) else None


def _count(numbers: tuple[int, ...]) -> str:
    return f"{len(numbers)} number{'s' * (len(numbers) != 1)}"


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
