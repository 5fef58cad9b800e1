"""From documents to packed token files: they are tokenised once, split (splitting.py), and stored in the cache."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from config import DataConfig, MixtureConfig, TrainConfig
from lab.data.cache import Damaged, in_cache, load_or_build
from lab.data.mixture import TokenMixture, interleave
from lab.data.paths import printable
from lab.data.sources import Documents, check_config, load_documents
from lab.data.splitting import SIDES, Part, held_out_place, split
from lab.data.token_file import TokenFile
from lab.data.tokenizers import Tokenizer, check_storable, load_tokenizer
from settings.errors import DataError, TokenizerError

FORMAT = 3  # part of each key: raise it when the same documents give different tokens
MAPPED = 1 << 28  # bytes: a side of this size or more is mapped from disk, a smaller one is read into memory
CHUNK = 1 << 20  # characters tokenised together: enough for all cores in little memory


@dataclass(frozen=True, eq=False, repr=False)
class TokenData:
    """The data of a training: the tokenizer and the two sides."""

    config: DataConfig
    tokenizer: Tokenizer
    train: TokenFile | TokenMixture
    validation: TokenFile

    def batch(self, config: TrainConfig, step: int, length: int) -> np.ndarray:
        """The windows of a step of the training `config`, counted from 0, (batch_size, length + 1) int64."""
        if isinstance(self.train, TokenMixture):
            return self.train.batch(config.seed, step, config.batch_size, length, config.steps)
        return self.train.batch(config.seed, step, config.batch_size, length)

    def steps(self, epochs: float, batch_size: int, length: int) -> int:
        """How many steps of batch_size windows of `length` targets take each training token `epochs` times as a target.

        Rounded up. Raises DataError for epochs of 0 or less, and for a text shorter than a window.
        """
        if not 0 < epochs < math.inf:
            raise DataError(f"epochs={epochs} must be a number above 0")
        return math.ceil(epochs * self.train.n_windows(length) / batch_size)

    def shares(self, config: TrainConfig, step: int) -> dict[str, float]:
        """The share of each source of a mixture in the rows of a step, counted from 0, by "share of ..."; {} without a
        mixture."""
        if not isinstance(self.train, TokenMixture):
            return {}
        taken = self.train.rows_taken(step, config.batch_size, config.steps)
        named = zip(config.data.sources, taken.values())  # as the run names them, wherever they are found now
        return {f"share of {name}": count / config.batch_size for name, (_, count) in named}

    @property
    def floor(self) -> float | None:
        """The least mean loss of any model, in nats per validation token; None unless the source is tales."""
        return self.validation.floor

    def __repr__(self) -> str:
        floor = "" if self.floor is None else f", floor {self.floor:.4f} nats per token"
        title = f"TokenData({self.config.label!r}, {self.tokenizer.name}{floor})"
        return "\n  ".join([title, repr(self.train), repr(self.validation)])


def prepare(
    config: DataConfig, tokenizer: Tokenizer | None = None, progress: Callable[[int, int], None] | None = None
) -> TokenData:
    """The tokens of `config`, from the cache; if they are not there, they are made and stored.

    tokenizer: a run's own tokenizer, for example; None: the one named in `config`. While the tokens are made,
    `progress(documents done, documents in all)` is called repeatedly. Raises DataError for documents that can't be
    read, for a side without documents, and if the cache folder can't be written; TokenizerError for a tokenizer that a
    run can't store, and for texts that it can't encode.
    """
    check_config(config, "prepare")
    if tokenizer is None:
        tokenizer = load_tokenizer(config.tokenizer)
    else:
        check_storable(tokenizer)
    if config.mixture.sources:
        return _prepare_mixture(config, tokenizer, progress)
    documents = load_documents(config)
    split_by = (config.split, config.validation_fraction)
    identity = (FORMAT, documents.fingerprint, tokenizer.fingerprint, tokenizer.end_of_text, split_by)
    train, validation = load_or_build(
        key=hashlib.blake2b(repr(identity).encode("utf-8"), digest_size=10).hexdigest(),
        description=f"{printable(documents.name)} ({documents.about}) by {tokenizer.name}",
        build=lambda folder: _pack(folder, documents, tokenizer, config, progress),
        load=_open,
    )
    return TokenData(config, tokenizer, train, validation)


def _prepare_mixture(
    config: DataConfig, tokenizer: Tokenizer, progress: Callable[[int, int], None] | None
) -> TokenData:
    """The tokens of all sources of a mixture. Only tales have a seed; all else holds for each source."""
    has_tales = "tales" in config.sources
    parts = {}
    for source in config.sources:
        seed = config.seed if source == "tales" or not has_tales else 0
        parts[source] = prepare(
            config.replace(source=source, mixture=MixtureConfig(), seed=seed), tokenizer, progress
        )
    sizes = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)])
    sizes[tokenizer.end_of_text] = 0
    validation = interleave(
        {name: part.validation for name, part in parts.items()}, config.mixture, sizes, tokenizer.end_of_text
    )
    train = TokenMixture({name: part.train for name, part in parts.items()}, config.mixture)
    return TokenData(config, tokenizer, train, validation)


class _Side:
    """One side while it is written; as a context it closes its file."""

    def __init__(self, path: Path, tokenizer: Tokenizer, whole: bool):
        self.tokenizer, self.whole = tokenizer, whole  # whole: each part is a document
        self.dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        self.pending: list[int] = []
        self.n_tokens = self.n_documents = self.n_bytes = self.n_bytes_before = 0  # before: of the documents that ended
        self.log_probability: float | None = None
        self.digest = hashlib.blake2b(digest_size=12)
        with in_cache():
            self.file = open(path, "wb")  # noqa: SIM115 - closed by __exit__

    def __enter__(self) -> "_Side":
        return self

    def __exit__(self, *_) -> None:
        with in_cache():
            self.file.close()

    def add(self, part: Part, ids: list[int]) -> None:
        self.pending += ids
        encoded = part.text.encode("utf-8")
        self.n_bytes += len(encoded)
        self.digest.update(len(encoded).to_bytes(8) + encoded if self.whole else encoded)
        if part.log_probability is not None:
            self.log_probability = (self.log_probability or 0.0) + part.log_probability
        if part.ends:
            self.pending.append(self.tokenizer.end_of_text)
            self.n_documents += 1
            if not self.whole:  # the length comes last, because it is known last
                self.digest.update((self.n_bytes - self.n_bytes_before).to_bytes(8))
            self.n_bytes_before = self.n_bytes

    def write(self) -> None:
        ids = np.array(self.pending, dtype=np.int64)
        if ids.size and not 0 <= ids.min() <= ids.max() < self.tokenizer.vocab_size:
            raise TokenizerError(
                f"{self.tokenizer.name} gives ids from {ids.min()} to {ids.max()}, but its vocab_size is "
                f"{self.tokenizer.vocab_size}: ids must lie below it"
            )
        with in_cache():
            self.file.write(ids.astype(self.dtype).tobytes())
        self.n_tokens += ids.size
        self.pending.clear()

    def meta(self) -> dict:
        names = ("n_tokens", "n_documents", "n_bytes", "log_probability")
        counts = {name: getattr(self, name) for name in names}
        return {"dtype": np.dtype(self.dtype).name, "fingerprint": self.digest.hexdigest()} | counts


def _pack(
    folder: Path, documents: Documents, tokenizer: Tokenizer, config: DataConfig,
    progress: Callable[[int, int], None] | None,
) -> None:
    total = len(documents) if progress else 0
    done = 0
    with ExitStack() as stack:
        whole = config.split == "hash"
        sides = {name: stack.enter_context(_Side(folder / f"{name}.bin", tokenizer, whole)) for name in SIDES}
        for chunk in _chunks(split(documents, config)):
            for part, ids in zip(chunk, tokenizer.encode_batch([part.text for part in chunk])):
                sides[part.side].add(part, ids)
                done += part.ends
            for side in sides.values():
                side.write()
            if progress:
                progress(min(done, total), total)  # a document that the border cuts has two ends
    if not all(side.n_documents for side in sides.values()):
        raise _empty_side(documents, config.validation_fraction, [side.n_documents for side in sides.values()])
    with in_cache():
        meta = {name: side.meta() for name, side in sides.items()}
        (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _empty_side(documents: Documents, fraction: float, found: list[int]) -> DataError:
    counts = " and ".join(f"{number} for {name}" for name, number in zip(SIDES, found))
    places = [held_out_place(text) for text in documents]
    up, down = math.ceil(min(places, default=1.0) * 1e4) / 1e4, math.floor(max(places, default=0.0) * 1e4) / 1e4
    enough = f"{up} or more" if not found[1] else f"{down} or less"
    return DataError(
        f"{documents.name}: validation_fraction={fraction} leaves {counts} of {sum(found)} documents. "
        + (f"Give more documents, or a fraction of {enough}" if sum(found) > 1 else "Give two documents or more")
    )


def _chunks(parts: Iterable[Part]) -> Iterator[list[Part]]:
    chunk, size = [], 0
    for part in parts:
        chunk.append(part)
        size += len(part.text)
        if size >= CHUNK:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _open(folder: Path) -> list[TokenFile]:
    """Opens the two sides of an entry. Raises Damaged if they differ from its meta.json."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return [_open_side(folder / f"{name}.bin", meta[name]) for name in SIDES]
    except FileNotFoundError as error:
        raise Damaged(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"meta.json is not as it was written: {error}") from error


def _open_side(path: Path, meta: dict) -> TokenFile:
    """Opens one side. A small one is read into memory, because reading a mapped file that was cut kills the process."""
    side = dict(meta)
    dtype, n_tokens = side.pop("dtype"), side.pop("n_tokens")
    counts, floor = (n_tokens, side["n_documents"], side["n_bytes"]), side["log_probability"]
    if dtype not in ("uint16", "uint32") or not all(type(count) is int and count > 0 for count in counts):
        raise ValueError(f"{dtype!r} and {counts} can't be")
    if not isinstance(floor, float | None) or not isinstance(side["fingerprint"], str):
        raise TypeError("log_probability or fingerprint")
    size, wanted = path.stat().st_size, n_tokens * np.dtype(dtype).itemsize
    if size == wanted:
        tokens = np.fromfile(path, dtype) if size < MAPPED else np.memmap(path, dtype, mode="r")
        size = tokens.nbytes
    if size != wanted:
        raise Damaged(f"{path.name} has {size} bytes instead of {wanted}")
    return TokenFile(path.stem, tokens, **side)
