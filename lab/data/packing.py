"""From documents to packed token files: they are tokenised once, split (splitting.py), and stored in the cache."""

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from config import DataConfig, TrainConfig
from lab.data.cache import Damaged, in_cache, load_or_build
from lab.data.hub_sets import at_commit, is_hub_source
from lab.data.leases import Lease
from lab.data.mixture import TokenMixture, interleave
from lab.data.paths import printable
from lab.data.shards import Shards
from lab.data.sources import Documents, HubDocuments, check_config, load_documents, parts_of_mixture
from lab.data.splitting import SIDES, held_out_place, split
from lab.data.token_file import TokenFile
from lab.data.token_stream import TokenStream
from lab.data.token_writing import Side, chunks, open_tokens
from lab.data.tokenizers import Tokenizer, check_storable, load_tokenizer
from settings.errors import DataError

FORMAT = 3  # part of each key: raise it when the same documents give different tokens
MAPPED = 1 << 28  # bytes: a side of this size or more is mapped from disk, a smaller one is read into memory
TOKENS_PER_EPOCH = 100_000_000  # of a streamed set
CHUNK = 1 << 20  # characters tokenised together: enough for all cores in little memory


@dataclass(frozen=True, eq=False, repr=False)
class TokenData:
    """The data of a training: the tokenizer and the two sides."""

    config: DataConfig
    tokenizer: Tokenizer
    train: TokenFile | TokenStream | TokenMixture
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
    def is_there(self) -> bool:
        """Whether all training tokens are there, so that no batch has to wait until text is read from a stream."""
        parts = self.train.parts.values() if isinstance(self.train, TokenMixture) else [self.train]
        return not any(isinstance(part, TokenStream) for part in parts)

    @property
    def floor(self) -> float | None:
        """The least mean loss of any model, in nats per validation token; None unless the source is tales."""
        return self.validation.floor

    def __repr__(self) -> str:
        floor = "" if self.floor is None else f", floor {self.floor:.4f} nats per token"
        title = f"TokenData({self.config.label!r}, {self.tokenizer.name}{floor})"
        return "\n  ".join([title, repr(self.train), repr(self.validation)])


def prepare(
    config: DataConfig, tokenizer: Tokenizer | None = None, progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> TokenData:
    """The tokens of `config`, from the cache; if they are not there, they are made and stored.

    tokenizer: a run's own tokenizer, for example; None: the one named in `config`. While the tokens are made,
    `progress(documents done, documents in all)` is called repeatedly, and `tell` hears of a streamed set how far it is,
    in words. The `config` of the result names the commits of the hub's sets that were read. Raises DataError for
    documents that can't be read, for a side without documents, and if the cache folder can't be written;
    TokenizerError for a tokenizer that a run can't store, and for texts that it can't encode.
    """
    check_config(config, "prepare")
    if tokenizer is None:
        tokenizer = load_tokenizer(config.tokenizer)
    else:
        check_storable(tokenizer)
    if config.mixture.sources:
        return _prepare_mixture(config, tokenizer, progress, tell)
    documents = load_documents(config)
    if isinstance(documents, HubDocuments):
        name = config.source.partition("@")[0]
        config = config.replace(source=name, hub=config.hub.replace(revision=documents.set.commit))
        if config.hub.streamed:
            n_tokens = config.tokens_per_epoch or TOKENS_PER_EPOCH
            shards = Shards(documents.set, tokenizer, config.validation_fraction, n_tokens, tell)
            return TokenData(config, tokenizer, TokenStream(shards), shards.validation())
    split_by = (config.split, config.validation_fraction)
    identity = (FORMAT, documents.fingerprint, tokenizer.fingerprint, tokenizer.end_of_text, split_by)
    key = hashlib.blake2b(repr(identity).encode("utf-8"), digest_size=10).hexdigest()
    lease = Lease(key)
    opened = load_or_build(
        key=key,
        description=f"{printable(documents.name)} ({documents.about}) by {tokenizer.name}",
        build=lambda folder: _pack(folder, documents, tokenizer, config, progress),
        load=_open,
    )
    return TokenData(config, tokenizer, *(replace(side, lease=lease) for side in opened))


def _prepare_mixture(
    config: DataConfig, tokenizer: Tokenizer, progress: Callable[[int, int], None] | None,
    tell: Callable[[str], None] | None,
) -> TokenData:
    """The tokens of all sources of a mixture."""
    prepared = [prepare(part, tokenizer, progress, tell) for part in parts_of_mixture(config)]
    parts = dict(zip(config.sources, prepared))
    sizes = np.array([len(tokenizer.token_bytes(id)) for id in range(tokenizer.vocab_size)])
    sizes[tokenizer.end_of_text] = 0
    validation = interleave(
        {name: part.validation for name, part in parts.items()}, config.mixture, sizes, tokenizer.end_of_text
    )
    train = TokenMixture({name: part.train for name, part in parts.items()}, config.mixture)
    commits = {name: part.config.hub.revision for name, part in parts.items()}
    sources = tuple(at_commit(name, commits[name]) if is_hub_source(name) else name for name in config.sources)
    return TokenData(
        config.replace(mixture=config.mixture.replace(sources=sources)), tokenizer, train, validation
    )


def _pack(
    folder: Path, documents: Documents, tokenizer: Tokenizer, config: DataConfig,
    progress: Callable[[int, int], None] | None,
) -> None:
    total = len(documents) if progress else 0
    done = 0
    with ExitStack() as stack:
        whole = config.split == "hash"
        sides = {name: stack.enter_context(Side(folder / f"{name}.bin", tokenizer, whole)) for name in SIDES}
        for chunk in chunks(split(documents, config), CHUNK):
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


def _open(folder: Path) -> list[TokenFile]:
    """Opens the two sides of an entry. Raises Damaged if they differ from its meta.json."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return [open_tokens(folder / f"{name}.bin", meta[name], MAPPED) for name in SIDES]
    except FileNotFoundError as error:
        raise Damaged(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"meta.json is not as it was written: {error}") from error
