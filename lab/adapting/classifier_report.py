"""How often a classifier is right on held-out texts, beside a bag of words on the same texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.adapting.baseline import fit_bag_of_words
from lab.adapting.classification import check_classes, label_numbers
from lab.adapting.labelled import LabelledTask
from lab.adapting.text_classifier import TextClassifier
from lab.display.heat_maps import Labels, Scale, heat_maps
from lab.display.html import render
from lab.display.style import Picture
from lab.evaluation.bootstrap import interval, resampled_sums
from lab.evaluation.wilson import wilson_interval

MOST_SHOWN = 16  # classes of a table; of more classes, so many of the most frequent mistakes are listed
TABLE = """
<div style="overflow-x:auto">
<p>{{ title }}</p>
{% if rows %}
<table>
<tr><th>true class</th>{% for name in classes %}<th>{{ name }}</th>{% endfor %}<th>right</th></tr>
{% for name, row, share in rows %}
<tr><th style="text-align:left">{{ name }}</th>
{% for count in row %}<td>{{ count }}</td>{% endfor %}
<td>{{ share }}</td></tr>
{% endfor %}
</table>
{% endif %}
{% for line in lines %}<p>{{ line }}</p>{% endfor %}
</div>
"""


@dataclass(frozen=True, eq=False, repr=False)
class ClassifierReport:
    """labels, predicted, baseline: of each text, the number of the true class, the classifier's and the bag of words'.

    texts: the task's fingerprint. documents: the number of each text's document; texts of one document are resampled
    together. n_cut: how many texts were cut to max_tokens.
    """

    task: str
    texts: str
    run: str
    full: bool
    classes: tuple[str, ...]
    labels: np.ndarray
    predicted: np.ndarray
    baseline: np.ndarray
    documents: np.ndarray
    n_cut: int
    max_tokens: int

    @property
    def accuracy(self) -> float:
        """The share of held-out texts on which the classifier is right."""
        return float((self.predicted == self.labels).mean())

    @property
    def baseline_accuracy(self) -> float:
        """The same share of the bag of words."""
        return float((self.baseline == self.labels).mean())

    @property
    def difference(self) -> float:
        """The classifier's share − the bag of words'."""
        return self.accuracy - self.baseline_accuracy

    @property
    def difference_interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference: a paired bootstrap over documents, which both classified."""
        better = (self.predicted == self.labels).astype(float) - (self.baseline == self.labels)
        sums = np.zeros((self.documents.max() + 1, 2))
        np.add.at(sums, self.documents, np.stack([better, np.ones_like(better)], axis=1))
        drawn = resampled_sums(sums)
        return interval(drawn[:, 0] / drawn[:, 1])

    @property
    def confusion(self) -> np.ndarray:
        """How many texts of each true class (row) were taken for each class (column)."""
        counts = np.zeros((len(self.classes), len(self.classes)), dtype=int)
        np.add.at(counts, (self.labels, self.predicted), 1)
        return counts

    def picture(self) -> Picture:
        """The confusions as a heat map: of each true class, the share that was taken for each class."""
        sizes = self.confusion.sum(axis=1, keepdims=True)
        shares = np.where(sizes > 0, self.confusion / np.maximum(sizes, 1), np.nan)
        names = [name[:30] for name in self.classes]
        return heat_maps(
            {f"{self.task}: what each class was taken for": 100 * shares}, Labels("true class", names),
            Labels("taken for", names), Scale("% of the true class", most=100.0),
        )

    def sentences(self) -> list[str]:
        """The result in words."""
        n, (low, high) = len(self.labels), self.difference_interval
        one, other = (
            describe_share(int((found == self.labels).sum()), n) for found in (self.predicted, self.baseline)
        )
        how = "all parameters trained" if self.full else "its head alone trained"
        better = "classifier" if low > 0 else "bag of words"
        told = "no difference can be told" if low <= 0 <= high else f"the {better} is right more often"
        lines = [
            f"classifier on {self.run} ({how}): {one} right",
            f"bag of words: {other} right",
            f"difference: {100 * self.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}): {told}",
            "in brackets 95 % intervals: Wilson's; of the difference by a paired bootstrap over documents",
        ]
        if self.n_cut:
            lines.append(f"{self.n_cut:,} of the {n:,} texts were cut at their end, to {self.max_tokens:,} tokens")
        return lines

    def mistakes(self) -> list[str]:
        """The most frequent mistakes, in words."""
        counts = self.confusion
        np.fill_diagonal(counts, 0)
        order = np.argsort(-counts, axis=None, kind="stable")[:MOST_SHOWN]
        found = [divmod(int(place), len(self.classes)) for place in order if counts.flat[place]]
        return [f"{counts[i, j]:,} of {self.classes[i]} taken for {self.classes[j]}" for i, j in found]

    def __repr__(self) -> str:
        if len(self.classes) > MOST_SHOWN:
            title = f"{len(self.labels):,} held-out texts of {self.task}; the most frequent mistakes:"
            return "\n".join([title, *(f"  {mistake}" for mistake in self.mistakes()), *self.sentences()])
        names = [name if len(name) <= 14 else name[:13] + "…" for name in self.classes]
        widths = [max(5, len(name)) for name in names]
        head = "  ".join(name.rjust(width) for name, width in zip(names, widths))
        side = max(len(name) for name in ["true class", *names])
        lines = [f"{'true class':{side}}  {head}   (taken for; {len(self.labels):,} held-out texts of {self.task})"]
        for name, row in zip(names, self.confusion):
            lines.append(f"{name:{side}}  " + "  ".join(f"{count:{width},}" for count, width in zip(row, widths)))
        return "\n".join([*lines, *self.sentences()])

    def _repr_html_(self) -> str:
        if len(self.classes) > MOST_SHOWN:
            title = f"{len(self.labels):,} held-out texts of {self.task}; the most frequent mistakes:"
            return render(TABLE, title=title, classes=(), rows=(), lines=[*self.mistakes(), *self.sentences()])
        rows = [
            (name, row.tolist(), f"{100 * row[i] / row.sum():.1f} %" if row.sum() else "")
            for i, (name, row) in enumerate(zip(self.classes, self.confusion))
        ]
        title = f"{len(self.labels):,} held-out texts of {self.task}: the class that each true class was taken for"
        return render(TABLE, title=title, classes=self.classes, rows=rows, lines=self.sentences())


def describe_share(right: int, n: int) -> str:
    """`97.2 % of 998 (96.0 to 98.1 %)`, with Wilson's 95 % interval, as if the texts were independent of each other."""
    low, high = wilson_interval(right, n)
    return f"{100 * right / n:.1f} % of {n:,} ({100 * low:.1f} to {100 * high:.1f} %)"


def measure_classifier(classifier: TextClassifier, task: LabelledTask) -> ClassifierReport:
    """Classifies the held-out texts, and fits a bag of words to the training texts; both read the same tokens.

    Raises ConfigError for a classifier of another task's classes.
    """
    check_classes(classifier, task)
    training, held_out = ([one.text for one in side] for side in (task.training, task.held_out))
    learned, asked = classifier.encode(training), classifier.encode(held_out)
    bag = fit_bag_of_words(learned, label_numbers(task.training, task), len(task.classes))
    whole = classifier.tokenizer.encode_batch(held_out)
    return ClassifierReport(
        task=task.name, texts=task.fingerprint, run=classifier.origin.run, full=classifier.config.full,
        classes=task.classes,
        labels=label_numbers(task.held_out, task).numpy(), predicted=classifier.logits(asked).argmax(dim=1).numpy(),
        baseline=bag.predict(asked).numpy(), documents=number_documents([one.document for one in task.held_out]),
        n_cut=sum(len(ids) > classifier.config.max_tokens for ids in whole), max_tokens=classifier.config.max_tokens,
    )


def number_documents(names: Sequence[str]) -> np.ndarray:
    """A number for each name, from 0 on in the order in which they come; equal names have the same."""
    places: dict[str, int] = {}
    return np.array([places.setdefault(name, len(places)) for name in names])
