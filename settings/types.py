"""The types of settings, each with the values it may have: `Whole[1, 512]`, `Real[0, 1]`, `Positive`, `Text`."""

from typing import Annotated

from annotated_types import Interval, MaxLen
from pydantic import PlainValidator
from pydantic_core import PydanticCustomError

from settings.errors import ConfigError
from settings.registry import kind, kinds_of

LARGEST = 1e30  # of a number, up or down: no run needs more, and its square is still finite
MOST_ITEMS, MOST_CHARACTERS = 1024, 100_000  # of a list, of a text


class Whole:
    """`Whole[1, 512]`: an integer from 1 to 512."""

    def __class_getitem__(cls, ends: tuple[int, int]):
        return Annotated[int, Interval(ge=ends[0], le=ends[1])]


class Real:
    """`Real[0, 1]`: a number from 0 to 1."""

    def __class_getitem__(cls, ends: tuple[float, float]):
        return Annotated[float, Interval(ge=ends[0], le=ends[1])]


class Above:
    """`Above[0, 1]`: a number above 0 and at most 1."""

    def __class_getitem__(cls, ends: tuple[float, float]):
        return Annotated[float, Interval(gt=ends[0], le=ends[1])]


Count = Whole[1, 2**20]
Number = Real[-LARGEST, LARGEST]
Positive = Above[0, LARGEST]
Text = Annotated[str, MaxLen(MOST_CHARACTERS)]
Texts = Annotated[tuple[Text, ...], MaxLen(MOST_ITEMS)]
Numbers = Annotated[tuple[Number, ...], MaxLen(MOST_ITEMS)]


class KindOf(PlainValidator):
    """`Annotated[str, KindOf("pool")]`: the name of a kind that is registered."""

    def __init__(self, family: str):
        def check(name: object) -> str:
            try:
                kind(family, name)
            except ConfigError as error:
                raise PydanticCustomError("kind", "{problem}", {"problem": str(error)}) from error
            return name

        super().__init__(check)
        object.__setattr__(self, "family", family)

    @property
    def names(self) -> list[str]:
        return kinds_of(self.family)
