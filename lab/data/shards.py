"""Makes the shards of a set that is too large to hold: the tokens of its training documents, some millions at a time.

The documents that are not held out form a ring: behind the last comes the first again. Shard k holds its tokens from
k · n_tokens on, and is one entry of the cache. The documents that are held out while shard 0 is made are the validation
side. A small entry keeps it together with the index: where each shard begins, and what was in it. It also keeps the
shard that is being made. So a maker that was stopped goes on where it was, and a shard that was removed is made anew.
"""

import hashlib
import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic
from typing import Protocol

from filelock import FileLock, Timeout

from lab.data.cache import Damaged, in_cache, keep_newest, load_or_build, open_growing
from lab.data.hub_sets import BEGINNING, Document, Place
from lab.data.leases import Lease, lock_path
from lab.data.shard_records import Count, Index, Making, progress
from lab.data.splitting import held_out_place
from lab.data.token_file import TokenFile
from lab.data.token_writing import as_bytes, chunks, open_tokens, token_type
from lab.data.tokenizers import Tokenizer
from lab.files.atomic import atomic_write_text
from settings.errors import DataError

FORMAT = 1  # part of each key
CHUNK = 1 << 20  # characters tokenised together
SAVE_EVERY = 16  # chunks, between two records of how far a shard is
SHARDS = 5  # kept of one stream
MAPPED = 1 << 28  # bytes: as for other token files
SECONDS_BETWEEN = 1.0  # two lines about the progress
SECONDS_TO_LOOK = 0.2  # for a stop, while another process makes shards
FILES = (("train", "making.bin"), ("validation", "validation.bin"))

Encoded = tuple[str, Place, list[int], bool]  # text, its place, its tokens, whether it is held out


class Stopped(Exception):
    """The making of a shard was stopped from outside. What was made is kept."""


class Source(Protocol):
    """What shards are made of: documents that can be read from any place on."""

    where: str
    about: str
    fingerprint: str

    def documents(self, place: Place) -> Iterator[Document]: ...


class EncodedRing:
    """The documents with their tokens, chunk by chunk, from any place on, behind the last the first again."""

    def __init__(self, source: Source, tokenizer: Tokenizer, validation_fraction: float):
        self.source, self.tokenizer, self.fraction = source, tokenizer, validation_fraction
        self.place: Place | None = None  # of the next document; None: nothing is open

    def seek(self, place: Place) -> None:
        """Where the reader is there already, it goes on without opening the source again."""
        if place != self.place:
            self._chunks, self._waiting = chunks(self.source.documents(place), CHUNK), []
            self.place = place

    def read(self, held_out_too: bool) -> list[Encoded]:
        """The next documents; none at the end of the set, and then the first ones. held_out_too: those that are held
        out have tokens, too."""
        if self._waiting:
            taken, self._waiting = self._waiting, []
            self.place = after(taken[-1][1])
            return taken
        self.place = None  # so that after an error the source is opened again
        chunk = next(self._chunks, [])
        held = [held_out_place(text) < self.fraction for text, _ in chunk]
        texts = ["" if out and not held_out_too else text for (text, _), out in zip(chunk, held)]
        encoded = self.tokenizer.encode_batch(texts)
        self.place = after(chunk[-1][1]) if chunk else BEGINNING
        if not chunk:
            self._chunks = chunks(self.source.documents(BEGINNING), CHUNK)
        for ids in encoded:
            ids.append(self.tokenizer.end_of_text)
        return [(text, place, ids, out) for (text, place), ids, out in zip(chunk, encoded, held)]

    def put_back(self, documents: list[Encoded]) -> None:
        """The next `read` gives these again."""
        if documents:
            self._waiting, self.place = documents, documents[0][1]


def after(place: Place) -> Place:
    """The place behind a document."""
    return place._replace(row=place.row + 1, documents=place.documents + 1)


class Shards:
    """The shards of one stream: opened from the cache, or made. One process at a time makes one.

    n_tokens: of each. tell: hears how far a shard is. While `stopping` or `also_stopping` is set, a shard that is made
    raises Stopped.
    """

    def __init__(
        self, source: Source, tokenizer: Tokenizer, validation_fraction: float, n_tokens: int,
        tell: Callable[[str], None] | None = None,
    ):
        made_by = (tokenizer.fingerprint, tokenizer.end_of_text, validation_fraction, n_tokens)
        identity = (FORMAT, source.fingerprint, *made_by)
        self.key = hashlib.blake2b(repr(identity).encode("utf-8"), digest_size=10).hexdigest()
        self.source, self.tokenizer, self.fraction, self.n_tokens = source, tokenizer, validation_fraction, n_tokens
        self.tell, self.stopping, self.also_stopping = tell, threading.Event(), threading.Event()
        self.most = most_shards()
        self.lease = Lease(self.key)
        self.index = Index()
        self._ring = EncodedRing(source, tokenizer, validation_fraction)
        self._making = threading.Lock()

    def open(self, number: int) -> TokenFile:
        """Shard `number`. It is not removed from the cache before the returned object is. Raises DataError."""
        key = self._key_of(number)
        lease = Lease(key)
        shard = load_or_build(
            key, f"shard {number} of {self._description()}", lambda folder: self._build(number, folder), _open_shard
        )
        with in_cache():
            keep_newest(f"{self.key}-", self.most)
        return replace(shard, lease=lease)

    def count_first(self) -> Count:
        """What is in shard 0, which is made if nobody knows."""
        self._refresh()
        if not self.index.counts:
            self.open(0)
        if not self.index.counts:  # the shard was kept, and the index was removed
            with self._alone():
                self._make(0)
        return self.index.counts[0]

    def validation(self) -> TokenFile:
        """The held-out documents among those of shard 0."""
        try:
            return self._open_validation()
        except (OSError, Damaged):  # removed, or shard 0 was kept and this was not
            with self._alone():
                self.index.validation = None
                self._make(0)
        with in_cache():
            return self._open_validation()

    def _open_validation(self) -> TokenFile:
        if self.index.validation is None:
            raise Damaged("there is no index")
        file = open_tokens(self._folder() / "validation.bin", self.index.validation.meta(self.tokenizer), MAPPED)
        return replace(file, lease=self.lease)

    def _key_of(self, number: int) -> str:
        return f"{self.key}-{number:06d}"

    def _build(self, number: int, folder: Path) -> None:
        with self._alone():
            self._refresh()
            if folder.with_name(self._key_of(number)).exists():  # another process made it while this one waited
                return
            count = self._make(number)
            with in_cache():
                os.replace(self._folder() / "making.bin", folder / "train.bin")
                (folder / "meta.json").write_text(json.dumps(count.meta(self.tokenizer)), encoding="utf-8")
                (self._folder() / "making.json").unlink(missing_ok=True)

    def _make(self, number: int) -> Count:
        """Writes shard `number` to making.bin, and with shard 0 the validation side. Needs `_alone`."""
        for earlier in range(len(self.index.counts), number):  # they say where it begins
            self._make(earlier)
        work = self._begun(number)
        with in_cache():
            files = {
                side: _opened(self._folder() / name, getattr(work, side), self.tokenizer)
                for side, name in FILES if side == "train" or work.keeps_held_out
            }
        try:
            start, whole = self._fill(work, files), False
            if start is None:
                start, whole = (BEGINNING, 0), True
        finally:
            for file in files.values():
                with in_cache():
                    file.close()
        self._finish(work, start, whole)
        return work.train

    def _fill(self, work: Making, files: dict) -> tuple[Place, int] | None:
        """Reads and writes until the shard is full; returns where the next begins, None if the set ends before."""
        self._ring.seek(work.place)
        began, told, first = monotonic(), monotonic(), work.train.n_tokens
        for turn in range(1, 1 << 62):
            try:
                self._check_going_on()
                chunk = self._ring.read(work.keeps_held_out)
            except BaseException:
                self._save(work)
                raise
            if not chunk and work.number == 0:
                return None
            start = self._write(work, chunk, files)
            if start:
                return start
            if turn % SAVE_EVERY == 0:
                self._save(work)
            if self.tell and monotonic() - told > SECONDS_BETWEEN:
                told = monotonic()
                self.tell(progress(work, self.n_tokens, (work.train.n_tokens - first) / (told - began)))
        raise AssertionError("a shard is never so long")

    def _write(self, work: Making, chunk: list[Encoded], files: dict) -> tuple[Place, int] | None:
        """Adds the documents; returns where the next shard begins if this one is full."""
        ids: dict[str, list[int]] = {"train": [], "validation": []}
        start = None
        for position, (text, place, tokens, held_out) in enumerate(chunk):
            if held_out:
                if work.keeps_held_out:
                    ids["validation"] += tokens
                    work.validation.add(text, len(tokens))
            else:
                room = self.n_tokens - work.train.n_tokens
                taken = tokens[work.drop : work.drop + room]
                if taken:
                    ids["train"] += taken
                    work.train.add(text, len(taken), begins=not work.drop)
                if work.drop + len(taken) < len(tokens):
                    start = place, work.drop + len(taken)
                    self._ring.put_back(chunk[position:])
                    break
                work.drop = 0
            work.place = after(place)
        for side, file in files.items():
            with in_cache():
                file.write(as_bytes(ids[side], self.tokenizer))
                file.flush()
        if not chunk:
            work.place = BEGINNING
        return start

    def _finish(self, work: Making, start: tuple[Place, int], whole: bool) -> None:
        sides = work.train.n_documents, (self.index.validation or work.validation).n_documents
        if work.number == 0 and not all(sides):
            raise DataError(
                f"{self.source.where}: validation_fraction={self.fraction} leaves {sides[0]} documents for train and "
                f"{sides[1]} for validation. Give more tokens_per_epoch, more documents, or another validation_fraction"
            )
        if work.number < len(self.index.counts) and self.index.counts[work.number] != work.train:
            with in_cache():
                (self._folder() / "making.json").unlink(missing_ok=True)
            raise DataError(
                f"the text of {self.source.where} is another than it was: shard {work.number} was made again, and its "
                "documents differ from those of the first time. Restore them, or train a new run on the new ones"
            )
        if work.keeps_held_out:
            self.index.validation = work.validation
        if work.number == len(self.index.counts):
            self.index.counts.append(work.train)
            self.index.starts.append(start)
            self.index.whole = whole
        with in_cache():
            atomic_write_text(self._folder() / "index.json", json.dumps(asdict(self.index)))

    def _begun(self, number: int) -> Making:
        """How far the shard is already, from making.json; else its beginning."""
        place, drop = self.index.starts[number]
        new = Making(number, place, drop, keeps_held_out=number == 0 and self.index.validation is None)
        with suppress(OSError, ValueError, KeyError, TypeError):  # nothing there, or cut by a crash: begin anew
            work = Making.from_dict(json.loads((self._folder() / "making.json").read_text(encoding="utf-8")))
            sizes = [path.stat().st_size if (path := self._folder() / name).exists() else 0 for _, name in FILES]
            needed = [getattr(work, side).n_tokens * token_type(self.tokenizer)().itemsize for side, _ in FILES]
            same = (work.number, work.keeps_held_out) == (new.number, new.keeps_held_out)
            if same and sizes[0] >= needed[0] and (not work.keeps_held_out or sizes[1] >= needed[1]):
                return work
        with in_cache():  # before the file that it speaks of is written over
            (self._folder() / "making.json").unlink(missing_ok=True)
        return new

    def _save(self, work: Making) -> None:
        with suppress(DataError), in_cache():  # where the disk is full, the record before stays
            atomic_write_text(self._folder() / "making.json", json.dumps(asdict(work)))

    def _folder(self) -> Path:
        return open_growing(self.key, self._description())

    def _description(self) -> str:
        return f"{self.source.about} by {self.tokenizer.name}, {self.n_tokens:,} tokens a shard"

    def _refresh(self) -> None:
        """Reads what another process has added to the index."""
        with suppress(OSError, ValueError, KeyError, TypeError):  # nothing there yet, or damaged: made anew
            index = Index.from_dict(json.loads((self._folder() / "index.json").read_text(encoding="utf-8")))
            if len(index.counts) >= len(self.index.counts):
                self.index = index

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Inside the `with` no other thread and no other process makes shards of this stream. Raises Stopped."""
        with in_cache():
            lock = FileLock(lock_path(f"{self.key}.making"), timeout=SECONDS_TO_LOOK, thread_local=False)
        while not self._making.acquire(timeout=SECONDS_TO_LOOK):
            self._check_going_on()
        try:
            self._acquire(lock)
            try:
                yield
            finally:
                lock.release()
        finally:
            self._making.release()

    @in_cache()
    def _acquire(self, lock: FileLock) -> None:
        while not lock.is_locked:
            self._check_going_on()
            with suppress(Timeout):
                lock.acquire()

    def _check_going_on(self) -> None:
        if self.stopping.is_set() or self.also_stopping.is_set():
            raise Stopped


def _opened(path: Path, count: Count, tokenizer: Tokenizer):
    """The file, open behind the tokens that count."""
    path.touch()
    file = open(path, "r+b")  # noqa: SIM115 - closed by the caller
    file.seek(count.n_tokens * token_type(tokenizer)().itemsize)
    file.truncate()
    return file


def _open_shard(folder: Path) -> TokenFile:
    try:
        return open_tokens(folder / "train.bin", json.loads((folder / "meta.json").read_text(encoding="utf-8")), MAPPED)
    except FileNotFoundError as error:
        raise Damaged(f"{Path(error.filename).name} is missing") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Damaged(f"meta.json is not as it was written: {error}") from error


def most_shards() -> int:
    """How many shards of one stream the cache keeps ($GLASSBOX_CACHE_SHARDS), beside those in use."""
    text = os.environ.get("GLASSBOX_CACHE_SHARDS") or str(SHARDS)
    if not text.strip().isdecimal() or int(text) < 1:
        raise DataError(f"GLASSBOX_CACHE_SHARDS={text!r} is not a number of shards: give a whole number from 1 on")
    return int(text)
