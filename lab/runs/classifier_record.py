"""What the folder of a classifier says about it (classifier.json), and whether a folder holds one.

    trained/<name>/classifier.json        its task and classes, its settings, how often it was right
                   classifier.safetensors the head's weights; where all parameters were trained, the model's too
                   origin.json            the run on which it stands
                   model_config.json      tokenizer.json   of that run; idea.py, if it has ideas
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from lab.files.reading import reading
from lab.runs.origin import Origin
from settings.errors import ConfigError, RunError
from settings.json_text import parse_json

RECORD, CLASSIFIER_WEIGHTS = "classifier.json", "classifier.safetensors"


@dataclass(frozen=True, kw_only=True)
class ClassifierRecord:
    """task: its name. texts: the fingerprint of its texts and labels. classes: their names, in the order of the logits.

    settings: those that it was trained with. accuracy, baseline: the shares of `held_out` texts on which it and a bag
    of words were right.
    """

    task: str
    texts: str
    classes: tuple[str, ...]
    settings: dict
    accuracy: float
    baseline: float
    held_out: int

    @classmethod
    def from_json(cls, text: str) -> "ClassifierRecord":
        """The inverse of `to_json`. Raises RunError for anything that `to_json` would not write."""
        try:
            record = cls(**parse_json(text))
        except (ConfigError, TypeError) as error:
            raise RunError(f"{RECORD} does not describe a classifier: {error}") from error
        kinds = {
            "task": str, "texts": str, "classes": list, "settings": dict, "accuracy": float, "baseline": float,
            "held_out": int,
        }
        wrong = [name for name, kind in kinds.items() if type(getattr(record, name)) is not kind]
        shares = () if wrong else (record.accuracy, record.baseline)
        names = () if wrong else record.classes
        if (
            wrong or record.held_out < 1 or not all(0 <= share <= 1 for share in shares) or len(names) < 2
            or not all(isinstance(name, str) for name in names) or len(set(names)) < len(names)
        ):
            raise RunError(f"{RECORD} does not describe a classifier; restore it from a copy")
        return cls(**asdict(record) | {"classes": tuple(names)})

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"


def is_classifier(folder: Path) -> bool:
    """Whether a folder holds a classifier, and not a run."""
    return os.path.lexists(folder / RECORD)


def read_record(folder: Path) -> tuple[ClassifierRecord, Origin]:
    """What the folder of a classifier says about it, and the run on which it stands. Raises RunError."""
    found = []
    for name, parse in ((RECORD, ClassifierRecord.from_json), ("origin.json", Origin.from_json)):
        with reading(folder / name):
            found.append(parse((folder / name).read_text(encoding="utf-8")))
    return found[0], found[1]


def check_is_run(folder: Path) -> None:
    """Raises RunError for the folder of a classifier."""
    if is_classifier(folder):
        raise RunError(
            f"{folder.name!r} is a classifier, and not a run: open it by open_classifier({folder.name!r}), or in the "
            f"terminal by python tools.py classify {folder.name} --text ..."
        )
