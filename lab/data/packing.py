"""From documents to packed token files: they are tokenised once, split by a hash, and stored in the cache.

A document is held out if the BLAKE2b hash of its text, as a fraction, is below `validation_fraction`. So a document
stays on its side when others are added, and equal texts are always on the same side.
"""

import hashlib
import json
import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from config import DataConfig
from lab.data.cache import Damaged, in_cache, load_or_build
from lab.data.leases import Lease
from lab.data.paths import printable
from lab.data.shards import Shards
from lab.data.sources import Documents, HubDocuments, check_config, load_documents
from lab.data.token_file import TokenFile
from lab.data.token_stream import TokenStream
from lab.data.token_writing import Side, chunks, held_out_place, open_tokens
from lab.data.tokenizers import Tokenizer, check_storable, load_tokenizer
from settings.errors import DataError

FORMAT = 2  # part of each key: raise it when the same documents give different tokens
SIDES = ("train", "validation")
MAPPED = 1 << 28  # bytes: a side of this size or more is mapped from disk, a smaller one is read into memory
CHUNK = 1 << 20  # characters tokenised together: enough for all cores in little memory
TOKENS_PER_EPOCH = 100_000_000


@dataclass(frozen=True, eq=False, repr=False)
class TokenData:
    """The data of a training: the tokenizer and the two sides."""

    config: DataConfig
    tokenizer: Tokenizer
    train: TokenFile | TokenStream
    validation: TokenFile

    @property
    def floor(self) -> float | None:
        """The least mean loss of any model, in nats per validation token; None unless the source is tales."""
        return self.validation.floor

    def __repr__(self) -> str:
        floor = "" if self.floor is None else f", floor {self.floor:.4f} nats per token"
        title = f"TokenData({self.config.source!r}, {self.tokenizer.name}{floor})"
        return "\n  ".join([title, repr(self.train), repr(self.validation)])


def prepare(
    config: DataConfig, tokenizer: Tokenizer | None = None, progress: Callable[[int, int], None] | None = None,
    tell: Callable[[str], None] | None = None,
) -> TokenData:
    """The tokens of `config`, from the cache; if they are not there, they are made and stored.

    tokenizer: a run's own tokenizer, for example; None: the one named in `config`. While the tokens are made,
    `progress(documents done, documents in all)` is called repeatedly, and `tell` hears of a set of the hub how far it
    is, in words. The data's `config` names the commit that was read. Raises DataError for documents that can't be
    read, for a side without documents, and if the cache folder can't be written; TokenizerError for a tokenizer that a
    run can't store, and for texts that it can't encode.
    """
    check_config(config, "prepare")
    if tokenizer is None:
        tokenizer = load_tokenizer(config.tokenizer)
    else:
        check_storable(tokenizer)
    documents = load_documents(config)
    if isinstance(documents, HubDocuments):
        config = config.replace(hub=config.hub.replace(revision=documents.set.commit))
        if config.hub.streamed:
            n_tokens = config.tokens_per_epoch or TOKENS_PER_EPOCH
            shards = Shards(documents.set, tokenizer, config.validation_fraction, n_tokens, tell)
            return TokenData(config, tokenizer, TokenStream(shards), shards.validation())
    identity = (FORMAT, documents.fingerprint, tokenizer.fingerprint, tokenizer.end_of_text, config.validation_fraction)
    key = hashlib.blake2b(repr(identity).encode("utf-8"), digest_size=10).hexdigest()
    lease = Lease(key)
    opened = load_or_build(
        key=key,
        description=f"{printable(documents.name)} ({documents.about}) by {tokenizer.name}",
        build=lambda folder: _pack(folder, documents, tokenizer, config.validation_fraction, progress),
        load=_open,
    )
    return TokenData(config, tokenizer, *(replace(side, lease=lease) for side in opened))


def _pack(
    folder: Path, documents: Documents, tokenizer: Tokenizer, validation_fraction: float,
    progress: Callable[[int, int], None] | None,
) -> None:
    total = len(documents) if progress else 0
    done, lowest, highest = 0, 1.0, 0.0
    with ExitStack() as stack:
        sides = {name: stack.enter_context(Side(folder / f"{name}.bin", tokenizer)) for name in SIDES}
        for chunk in chunks(documents.scored(), CHUNK):
            for (text, log_probability), ids in zip(chunk, tokenizer.encode_batch([text for text, _ in chunk])):
                place = held_out_place(text)
                lowest, highest = min(lowest, place), max(highest, place)
                sides["validation" if place < validation_fraction else "train"].add(text, log_probability, ids)
            for side in sides.values():
                side.write()
            done += len(chunk)
            if progress:
                progress(done, total)
    if not all(side.n_documents for side in sides.values()):
        counts = " and ".join(f"{side.n_documents} for {name}" for name, side in sides.items())
        up, down = math.ceil(lowest * 1e4) / 1e4, math.floor(highest * 1e4) / 1e4
        enough = f"{up} or more" if lowest >= validation_fraction else f"{down} or less"
        raise DataError(
            f"{documents.name}: validation_fraction={validation_fraction} leaves {counts} of {done} documents. "
            + (f"Give more documents, or a fraction of {enough}" if done > 1 else "Give two documents or more")
        )
    with in_cache():
        meta = {name: side.meta() for name, side in sides.items()}
        (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")


def _open(folder: Path) -> list[TokenFile]:
    """Opens the two sides of an entry. Raises Damaged if they differ from its meta.json."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        return [open_tokens(folder / f"{name}.bin", meta[name], MAPPED) for name in SIDES]
    except FileNotFoundError as error:
        raise Damaged(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"meta.json is not as it was written: {error}") from error
