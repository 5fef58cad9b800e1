"""A run with a classification head: texts in, classes out."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lab.adapting.classifier_settings import ClassifierConfig
from lab.adapting.labelled import LabelledTask
from lab.compute.device import pick_device, seeded
from lab.compute.eval_mode import eval_mode
from lab.data.tokenizers import Tokenizer
from lab.runs.origin import Origin
from lab.runs.run import Run
from modules.classifier import Classifier
from settings.errors import ConfigError, DataError
from settings.messages import short

BATCH = 64  # texts at a time: bounds the memory


@dataclass(frozen=True, repr=False)
class Classified:
    """The probability of each class for a text. read, tokens: how many of how many tokens were read."""

    text: str
    probabilities: dict[str, float]
    read: int
    tokens: int

    @property
    def label(self) -> str:
        """The likeliest class."""
        return max(self.probabilities, key=self.probabilities.get)

    def __repr__(self) -> str:
        ranked = sorted(self.probabilities.items(), key=lambda pair: -pair[1])
        lines = [f"{short(self.text)}: {self.label}"]
        lines += [f"  {100 * share:5.1f} %  {label}" for label, share in ranked]
        cut = f"only the first {self.read:,} of its {self.tokens:,} tokens were read (max_tokens)"
        return "\n".join([*lines, *([cut] if self.read < self.tokens else [])])


@dataclass(frozen=True, eq=False, repr=False)
class TextClassifier:
    """A `Classifier` with the names of its classes and the tokenizer of its run.

    origin: the run on which it stands. config: its settings, with max_tokens written out.
    """

    module: Classifier
    classes: tuple[str, ...]
    tokenizer: Tokenizer
    origin: Origin
    config: ClassifierConfig

    def __repr__(self) -> str:
        names = ", ".join(map(short, self.classes[:8])) + (", ..." if self.classes[8:] else "")
        how = "all parameters train" if self.config.full else "its head alone trains"
        return f"TextClassifier(on {self.origin.run!r}, {how}; {len(self.classes)} classes: {names})"

    @property
    def device(self) -> torch.device:
        return self.module.head.weight.device

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """The first max_tokens token ids of each text. Raises DataError for a text without any."""
        found = [ids[: self.config.max_tokens] for ids in self.tokenizer.encode_batch(texts)]
        if not all(found):
            raise DataError("an empty text has no last token to read a class from; give one of a character or more")
        return found

    def classify(self, text: str) -> Classified:
        """The probability of each class. A text of more than max_tokens is cut at its end, and the result says so."""
        (ids,) = self.encode([text])
        (row,) = self.logits([ids]).softmax(dim=1).tolist()
        return Classified(text, dict(zip(self.classes, row)), len(ids), len(self.tokenizer.encode(text)))

    def logits(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """The logits of the classes for the token ids of each text, in eval mode: (texts, classes), on the CPU."""
        return self._in_batches(self.module, texts)

    def features(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """What the head reads of each text, in eval mode: (texts, width), on the CPU."""
        return self._in_batches(self.module.features, texts)

    def _in_batches(self, compute, texts: Sequence[Sequence[int]]) -> Tensor:
        """compute(tokens, lengths) for all texts. Texts of like lengths share a batch, so that little is padding."""
        order, found = sorted(range(len(texts)), key=lambda i: len(texts[i])), []
        with torch.no_grad(), eval_mode(self.module):
            for start in range(0, len(texts), BATCH):
                tokens, lengths = pad([texts[i] for i in order[start : start + BATCH]])
                found.append(compute(tokens.to(self.device), lengths.to(self.device)).cpu())
        return torch.cat(found)[torch.tensor(order).argsort()]


def build_classifier(run: Run, task: LabelledTask, config: ClassifierConfig | None = None) -> TextClassifier:
    """An untrained head for the task's classes on the weights of a run, on the device of the settings.

    Raises ConfigError where max_tokens is more than the model's positions, and for training all of a quantised model;
    RunError for damaged weights.
    """
    config, limit = config or ClassifierConfig(), run.model_config.position_limit
    max_tokens = config.max_tokens or run.model_config.context_length
    if max_tokens > limit:
        raise ConfigError(
            f"max_tokens={max_tokens} is more than the {limit} positions of {run.name!r}; set {limit} or fewer"
        )
    if config.full and run.model_config.quantised:
        raise ConfigError(
            f"{run.name!r} is quantised, and rounded weights can't train; train the head alone (full=False), or build "
            "on the run that it was quantised from"
        )
    device, trunk, origin = pick_device(config.device), run.load_model(), run.as_origin("classifier")
    with seeded(config.seed, 0, torch.device("cpu")):
        module = Classifier(trunk, len(task.classes), config.full)
    config = config.replace(max_tokens=max_tokens)
    return TextClassifier(module.to(device).eval(), task.classes, run.tokenizer, origin, config)


def pad(texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Token ids of different lengths as rows (B, T), padded behind with 0, and their lengths (B)."""
    lengths = torch.tensor([len(ids) for ids in texts])
    tokens = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    for row, ids in zip(tokens, texts):
        row[: len(ids)] = torch.tensor(ids)
    return tokens, lengths
