"""Cuts texts into the pieces that no merge of a byte-pair encoding crosses."""

from typing import TYPE_CHECKING

from lab.data.tokenizer_kinds import bpe_tokenizer
from settings.errors import TokenizerError

if TYPE_CHECKING:
    from tokenizers.pre_tokenizers import Split


def piece_splitter(pattern: str) -> "Split":
    """What cuts a text into pieces by a regular expression, for training; tiktoken does it in encoding.

    Raises TokenizerError for a pattern that one of the two can't read.
    """
    import tokenizers
    from tokenizers import pre_tokenizers

    bpe_tokenizer("pattern", [], pattern)  # tiktoken reads it, or a TokenizerError is raised
    try:
        regex = tokenizers.Regex(pattern)
    except Exception as error:  # the library has no class of its own for it
        raise TokenizerError(
            f"the split pattern is not a regular expression that the tokenizers library can read: {error}"
        ) from error
    return pre_tokenizers.Split(regex, behavior="isolated")
