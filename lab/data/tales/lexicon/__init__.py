"""The words of the tales, as plain Python lists; every list is a set of equally likely choices.

A word that carries facts of its own (a child and the pronouns that go with it, a place and its
corners) is a `Word`: a string with attributes, so that it reads naturally inside an f-string.
"""


class Word(str):
    """A string that knows more about itself: Word("orchard", at="in the orchard").at."""

    def __new__(cls, text: str, **facts):
        word = super().__new__(cls, text)
        word.__dict__.update(facts)
        return word


def listed(text: str) -> tuple[str, ...]:
    """The comma-separated entries of a text, in order."""
    return tuple(" ".join(entry.split()) for entry in text.split(","))


VOWEL_SOUNDS = ("a", "e", "i", "o", "u", "honest")
CONSONANT_SOUNDS = ("one", "uni", "use", "euro")  # spelled with a vowel, spoken with a consonant


def an(phrase: str) -> str:
    """The phrase with the indefinite article that its sound asks for: "a kite", "an owl"."""
    if phrase.startswith(VOWEL_SOUNDS) and not phrase.startswith(CONSONANT_SOUNDS):
        return f"an {phrase}"
    return f"a {phrase}"
