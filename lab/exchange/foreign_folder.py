"""A folder in Hugging Face's layout, read without trust: only JSON and safetensors. Nothing in it is executed."""

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from lab.data.tokenizer_folders import CONFIG, GENERATION, SPECIAL_TOKENS, TOKENIZER, TOKENIZER_CONFIG
from lab.files.reading import MIB, reading
from lab.runs.weights import read_header
from settings.errors import RunError
from settings.json_text import parse_json
from settings.messages import short

if TYPE_CHECKING:
    import torch

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
MOST_BYTES = {
    CONFIG: MIB, GENERATION: MIB, TOKENIZER_CONFIG: 16 * MIB, SPECIAL_TOKENS: MIB, TOKENIZER: 64 * MIB, INDEX: 16 * MIB
}
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")


class ForeignFolder:
    """A folder that somebody else may have written. Reading it gives values or raises RunError."""

    def __init__(self, path: Path):
        self.path = path
        if not path.is_dir():
            raise RunError(f"{path} is no folder; name the one that holds {CONFIG} and {WEIGHTS}")
        if os.path.lexists(path / "model_config.json"):
            raise RunError(f"{path} is a run of Glassbox; copy it into trained/ as it is")

    def has(self, name: str) -> bool:
        return os.path.lexists(self.path / name)

    def file(self, name: str) -> Path:
        """The path of a file in it. Raises RunError for a link out of the folder, which may name private data.

        Hugging Face's own cache keeps every file as a link to ../../blobs; these links are followed.
        """
        path, folder = self.path / name, self.path.resolve()
        place = Path(os.path.realpath(path))
        if place.parent not in (folder, folder.parent.parent / "blobs"):
            raise RunError(f"{name} is a link to {place}, outside of the folder; put a copy in its place")
        return path

    def text(self, name: str) -> str:
        """The text of a file. Raises RunError where it is missing, too large or no UTF-8."""
        path, most = self.file(name), MOST_BYTES[name]
        if path.is_file() and path.stat().st_size > most:
            raise RunError(f"{name} has {path.stat().st_size:,} bytes; the most that are read is {most:,}")
        with reading(path):
            return path.read_text(encoding="utf-8")

    def json(self, name: str, *, optional: bool = False) -> dict:
        """The JSON object of a file; {} where an optional file is missing. Raises RunError; code that it names is
        refused."""
        if optional and not self.has(name):
            return {}
        text, path = self.text(name), self.path / name
        with reading(path):
            values = parse_json(text)
        if not isinstance(values, dict):
            raise RunError(f"{name} must hold a JSON object, not {short(values)}")
        if values.get("auto_map"):
            raise RunError(
                f"{name} names code to be run (auto_map: {short(values['auto_map'])}), which is never run here. If the "
                "model is one of transformers' own, save it again: from_pretrained(...).save_pretrained(FOLDER)"
            )
        return values

    def shards(self) -> dict[str, list[str]]:
        """The names of the tensors in each safetensors file, as the index says; of a single file, all that it holds.

        Raises RunError for an index that names anything but files of this folder.
        """
        if self.has(WEIGHTS):
            return {WEIGHTS: list(read_header(self.file(WEIGHTS))[0])}
        if not self.has(INDEX):
            pickles = [entry.name for entry in self.path.iterdir() if entry.suffix in PICKLES]
            found = f"{', '.join(sorted(pickles)[:3])} may hold code (a pickle) and is never loaded" if pickles else ""
            raise RunError(
                f"it has no {WEIGHTS}{'; ' + found if found else ''}. Save the model as safetensors: "
                "from_pretrained(...).save_pretrained(FOLDER)"
            )
        places = self.json(INDEX).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise RunError(f"{INDEX} has no weight_map")
        shards: dict[str, list[str]] = {}
        for tensor, file in places.items():
            if not isinstance(file, str) or not SHARD.fullmatch(file):
                raise RunError(f"{INDEX} puts {short(tensor)} into {short(file)}, which is no file of this folder")
            shards.setdefault(file, []).append(tensor)
        for file, named in shards.items():
            held = set(read_header(self.file(file))[0])
            if held != set(named):
                raise RunError(f"{file} and {INDEX} differ about the tensor {sorted(held ^ set(named))[0]!r:.80}")
        return shards


class Checkpoint:
    """The tensors of a folder's safetensors files: their shapes and types at once, each tensor when it is asked for."""

    def __init__(self, folder: ForeignFolder):
        self.folder = folder
        self.file_of = {tensor: file for file, tensors in folder.shards().items() for tensor in tensors}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.dtypes: dict[str, str] = {}
        for file in set(self.file_of.values()):
            with self._open(file) as opened:
                for name in opened.keys():  # noqa: SIM118  it is no dict
                    part = opened.get_slice(name)
                    self.shapes[name], self.dtypes[name] = tuple(part.get_shape()), part.get_dtype()

    def read(self, name: str) -> "torch.Tensor":
        with self._open(self.file_of[name]) as opened:
            return opened.get_tensor(name)

    def _open(self, file: str):
        from safetensors import safe_open

        return safe_open(self.folder.file(file), framework="pt")
