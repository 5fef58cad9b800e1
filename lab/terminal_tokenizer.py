"""The command `tokenizer`: lists the tokenizers, shows what one makes of a text, or learns one from texts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from config import SAMPLE_PROMPT, DataConfig
from settings.errors import ConfigError

if TYPE_CHECKING:
    from lab.data.tokenizers import Tokenizer

Positional = tyro.conf.Positional
DEFAULTS = DataConfig()
VOCABULARY = 1024  # of a learned byte-pair encoding
# Settings of data that no tokenizer is learned by
OF_TRAININGS = ("source", "tokenizer", "validation_fraction", "split", "mixture", "tokens_per_epoch")


@dataclass(frozen=True, kw_only=True)
class Learning:
    """Learn a tokenizer from texts and store it under tokenizers/, so that --train.data.tokenizer NAME finds it."""

    learn: str | None = None  # The texts: a built-in set, or a file, folder or glob of your own.
    name: str | None = None  # What to call the tokenizer.
    kind: Literal["bpe", "character"] = "bpe"  # Byte-pair encoding, or one id for each character of the texts.
    vocab_size: int | None = None  # Of a byte-pair encoding; by default 1024.
    data: DataConfig = DEFAULTS  # What else there is to say about the texts.


def tokenizer(
    name: Positional[str | None] = None, text: str = f"{SAMPLE_PROMPT} a girl. She said: “Hello!”",
    learning: Annotated[Learning, tyro.conf.arg(name="")] = Learning(),
) -> None:
    """List the tokenizers, show what one makes of a text, or learn one from texts (--learn).

    Args:
        name: byte, character, bpe-2048, ..., or the path of a tokenizer.json.
        text: What to cut into tokens.
        learning: Learn one.
    """
    from lab.data.tokenizers import list_tokenizers, load_tokenizer, save_tokenizer
    from lab.display.token_display import show_tokens

    check_asked(name, learning)
    if learning.learn is not None:
        learned = learn_tokenizer(learning)
        print(f"stored {save_tokenizer(learned)}: --train.data.tokenizer {learned.name} finds it")
        print(repr(learned))
        print(show_tokens(text, learned))
        return
    print("\n".join(list_tokenizers()) if name is None else show_tokens(text, load_tokenizer(name)))


def check_asked(name: str | None, learning: Learning) -> None:
    """Raises ConfigError for flags that say nothing together, TokenizerError for a name that can't be stored."""
    from lab.data.tokenizers import check_free

    if learning.learn is None:
        if learning != Learning():
            raise ConfigError("--name, --kind, --vocab-size and --data say how to learn a tokenizer: add --learn TEXTS")
        return
    if name is not None or learning.name is None:
        raise ConfigError("--learn stores a new tokenizer: name it by --name, and leave out the one to be shown")
    check_free(learning.name)
    unused = [field for field in OF_TRAININGS if getattr(learning.data, field) != getattr(DEFAULTS, field)]
    if unused:
        flag = unused[0].replace("_", "-")
        raise ConfigError(f"--data.{flag} is of no use here: --learn names the texts, and all of them are read")
    if learning.kind == "character" and learning.vocab_size is not None:
        raise ConfigError("the vocabulary of characters follows from the texts: leave --vocab-size out")


def learn_tokenizer(learning: Learning) -> "Tokenizer":
    """The tokenizer that these settings describe. Raises DataError for the texts, TokenizerError for the size."""
    from lab.data.bpe_training import learn_characters, train_bpe
    from lab.data.sources import load_documents

    texts = load_documents(learning.data.replace(source=learning.learn))
    if learning.kind == "character":
        return learn_characters(texts, learning.name)
    return train_bpe(texts, learning.vocab_size or VOCABULARY, name=learning.name)
