"""Questions that check themselves: buttons or a text field in a notebook, folded answers where no kernel runs."""

import re
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, NamedTuple

from config import GlassboxError, suggest

if TYPE_CHECKING:
    import ipywidgets

Answer = str | int | tuple[int, ...]
BOX = "border-left:4px solid rgba(86,180,233,.9);padding:2px 0 2px 12px;line-height:1.5"
NUMBERS = re.compile(r"\d+([\s,x×]+\d+)*")


class QuizError(GlassboxError, ValueError):
    """A question that can't be asked, or a reply that is none of its choices."""


class Verdict(NamedTuple):
    """Whether a reply is right, and what there is to say about it."""

    right: bool
    text: str

    def __str__(self) -> str:
        return f"{'✓ Right.' if self.right else '✗ Not so.'} {self.text}"


@dataclass(frozen=True)
class Question:
    """Shows itself as the last line of a cell; `check` judges a reply anywhere. Made by `ask`.

    wrong: what to say to each wrong reply that was foreseen.
    """

    text: str
    answer: str
    why: str
    wrong: dict[str, str]
    typed: bool

    @property
    def choices(self) -> list[str]:
        """The replies to choose from, in an order that does not give the answer away."""
        return sorted([self.answer, *self.wrong], key=lambda choice: (len(choice), choice))

    def check(self, reply: Answer) -> Verdict:
        """Whether `reply` is right, and why. A shape may be typed as 3, 17 or (B=3, T=17).

        Raises QuizError for a reply that is none of the choices.
        """
        given = _plain(reply)
        if self.typed:
            return self._check_typed(given)
        if given not in self.choices:
            raise QuizError(f"{given!r} is none of the choices; {suggest(given, self.choices)}")
        return Verdict(given == self.answer, self.why if given == self.answer else self.wrong[given])

    def _check_typed(self, given: str) -> Verdict:
        expected, numbers = _numbers(self.answer), _numbers(given)
        if numbers is None:
            return Verdict(False, "Answer with numbers alone, as in (2, 5) for a shape.")
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

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, object]:
        """The widget where a kernel runs, and its static twin, which is what stays in a stored notebook."""
        return self.widget()._repr_mimebundle_() | {"text/html": self.html, "text/plain": str(self)}

    def widget(self) -> "ipywidgets.VBox":
        """The question, a button for each choice or a field to write in, and below them the verdict."""
        import ipywidgets as widgets

        verdict = widgets.HTML()

        def judge(reply: str) -> bool:
            found = self.check(reply)
            verdict.value = f'<div role="status" style="{BOX}">{_marked(str(found))}</div>'
            return found.right

        def press(button: widgets.Button) -> None:
            button.button_style = "success" if judge(button.description) else "danger"

        if self.typed:
            field = widgets.Text(placeholder="your answer", continuous_update=False)
            field.observe(lambda change: judge(change["new"]), "value")  # Enter
            button = widgets.Button(description="Check", button_style="primary")
            button.on_click(lambda _: judge(field.value))
            replies = [widgets.HBox([field, button])]
        else:
            natural = widgets.Layout(width="max-content", max_width="100%")
            replies = [widgets.Button(description=choice, layout=natural) for choice in self.choices]
            for button in replies:
                button.on_click(press)
        asked = widgets.HTML(f'<div style="{BOX}"><b>?</b> {_marked(self.text)}</div>')
        return widgets.VBox([asked, *replies, verdict])

    @property
    def html(self) -> str:
        """Needs no kernel: each choice unfolds to its verdict; under a question to type, the answer is folded."""
        if self.typed:
            folded = {"the answer": f"<b>{escape(self.answer)}</b> {_marked(self.why)}"}
        else:
            folded = {escape(choice): _marked(str(self.check(choice))) for choice in self.choices}
        parts = "".join(
            f'<details><summary style="cursor:pointer">{head}</summary>'
            f'<div style="margin-left:1.2em">{body}</div></details>'
            for head, body in folded.items()
        )
        return f'<div style="{BOX}"><b>?</b> {_marked(self.text)}{parts}</div>'

    def __str__(self) -> str:
        return "\n".join([f"? {self.text}", *(f"  · {choice}" for choice in self.choices if not self.typed)])

    __repr__ = __str__


def ask(
    question: str, answer: Answer, why: str, wrong: dict[Answer, str] | None = None, typed: bool = False
) -> Question:
    """A question to answer in a notebook; `answer`, taken from the live model, is the only reply that is right.

    wrong: replies with what each of them overlooks: the other choices or, where the answer is typed, mistakes to be
    ready for. One that equals the answer, as may be with other sizes, is left out. `code` may stand in the texts.

    Raises QuizError where there is nothing to choose from, or a typed answer is no number and no shape.
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
    return str(tuple(reply)) if isinstance(reply, tuple) else str(reply).strip()  # torch.Size is a tuple too


def _numbers(text: str) -> tuple[int, ...] | None:
    """Those of `(3, 17)`, `3 x 17` or `(B=3, H+2G=17)`; None where the text is something else."""
    bare = re.sub(r"[A-Za-z][A-Za-z0-9+|/]*=", "", text).strip("()[], ")
    return tuple(map(int, re.split(r"[\s,x×]+", bare))) if NUMBERS.fullmatch(bare) else None


def _count(numbers: tuple[int, ...]) -> str:
    return f"{len(numbers)} number{'s' * (len(numbers) != 1)}"


def _marked(text: str) -> str:
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
