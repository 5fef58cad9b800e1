"""How many tokens a tokenizer needs for a text: tokens per word, called fertility, and bytes per token."""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from lab.data.tokenizer import Tokenizer
from settings.errors import TokenizerError

if TYPE_CHECKING:
    import pandas as pd

TOKENS_PER_WORD, BYTES_PER_TOKEN = "tokens per word", "bytes per token"


def fertility(tokenizers: Iterable[Tokenizer], texts: Mapping[str, Iterable[str]]) -> "pd.DataFrame":
    """A row for each tokenizer; columns (measure, name of the texts) with tokens per word and bytes per token.

    texts: lists of texts by name. A word is what stands between blanks, with its punctuation. The end of text does not
    count. Raises TokenizerError for texts without a word.
    """
    import pandas as pd

    lists = {name: list(several) for name, several in texts.items()}
    words = {name: sum(len(text.split()) for text in several) for name, several in lists.items()}
    sizes = {name: sum(len(text.encode("utf-8")) for text in several) for name, several in lists.items()}
    empty = [name for name, count in words.items() if not count]
    if empty or not lists:
        raise TokenizerError(f"there is no word in {', '.join(map(repr, empty)) or 'no texts'}; give texts with words")
    rows = {}
    for tokenizer in tokenizers:
        counts = {name: sum(map(len, tokenizer.encode_batch(several))) for name, several in lists.items()}
        per_word = {(TOKENS_PER_WORD, name): count / words[name] for name, count in counts.items()}
        rows[tokenizer.name] = per_word | {(BYTES_PER_TOKEN, name): sizes[name] / n for name, n in counts.items()}
    return pd.DataFrame.from_dict(rows, orient="index")
