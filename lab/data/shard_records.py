"""What is written down about the shards of a stream: where each begins, what is in it, how far one is that is made."""

import hashlib
from dataclasses import asdict, dataclass, field

import numpy as np
from tqdm import tqdm

from lab.data.hub_sets import BEGINNING, Place
from lab.data.token_writing import token_type
from lab.data.tokenizers import Tokenizer


@dataclass
class Count:
    """Tokens and documents written to one file so far. fingerprint: of the documents, in their order."""

    n_tokens: int = 0
    n_documents: int = 0
    n_bytes: int = 0
    fingerprint: str = ""

    def add(self, text: str, n_tokens: int, begins: bool = True) -> None:
        encoded = text.encode("utf-8")
        self.n_tokens += n_tokens
        self.n_documents += begins
        self.n_bytes += len(encoded) * begins
        self.fingerprint = hashlib.blake2b(bytes.fromhex(self.fingerprint) + encoded, digest_size=12).hexdigest()

    def meta(self, tokenizer: Tokenizer) -> dict:
        return asdict(self) | {"dtype": np.dtype(token_type(tokenizer)).name, "log_probability": None}


@dataclass
class Making:
    """How far a shard is. place: the next document to read. drop: its tokens that the shard before holds.
    keeps_held_out: whether the documents that are held out are written, too."""

    number: int
    place: Place = BEGINNING
    drop: int = 0
    keeps_held_out: bool = False
    train: Count = field(default_factory=Count)
    validation: Count = field(default_factory=Count)

    @classmethod
    def from_dict(cls, record: dict) -> "Making":
        counts = {side: Count(**record[side]) for side in ("train", "validation")}
        return cls(record["number"], Place(*record["place"]), record["drop"], record["keeps_held_out"], **counts)


@dataclass
class Index:
    """What is known of a stream. starts: place and tokens to drop, of each shard that can be made. counts: of each
    shard that was made. whole: the set has fewer tokens than a shard, and shard 0 is all there is."""

    starts: list[tuple[Place, int]] = field(default_factory=lambda: [(BEGINNING, 0)])
    counts: list[Count] = field(default_factory=list)
    validation: Count | None = None
    whole: bool = False

    @classmethod
    def from_dict(cls, record: dict) -> "Index":
        starts = [(Place(*place), drop) for place, drop in record["starts"]]
        held = record["validation"] and Count(**record["validation"])
        return cls(starts, [Count(**count) for count in record["counts"]], held, record["whole"])


def progress(work: Making, n_tokens: int, pace: float) -> str:
    """How far a shard is, in words. pace: tokens per second."""
    done = work.train
    left = tqdm.format_interval((n_tokens - done.n_tokens) / pace) if pace > 0 else "?"
    return (
        f"shard {work.number}: {done.n_tokens / 1e6:,.1f} of {n_tokens / 1e6:,.1f} million tokens, "
        f"{done.n_documents:,} documents, {done.n_bytes / 1e6:,.0f} MB of text, {left} left"
    )
