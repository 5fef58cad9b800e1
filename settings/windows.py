"""The windows of the future that a future-sighted network predicts."""

import math


class Windows:
    """What follows from `levels`, `factor`, `vectors` and `schedule` of FutureBlockConfig."""

    @property
    def windows(self) -> tuple[tuple[int, int], ...]:
        """The first and last offset of each level's window, nearest first."""
        last, found = 1, []
        for level in range(1, self.levels + 1):
            found.append((last + 1, last + self.factor**level))
            last = found[-1][1]
        return tuple(found)

    @property
    def look_ahead(self) -> int:
        """The furthest offset that any level is about."""
        return self.windows[-1][1]

    @property
    def counts(self) -> tuple[int, ...]:
        """Vectors of each level's window, nearest first."""
        times = {
            "constant": lambda p: 1,
            "linear": lambda p: p,
            "root": lambda p: round(math.sqrt(p)),
            "log": lambda p: p.bit_length(),
            "poly": lambda p: p**2,
        }[self.schedule]
        return tuple(min(self.vectors * times(p), self.factor**p) for p in range(1, self.levels + 1))

    @property
    def layers_needed(self) -> int:
        """A body of one layer, one for each level, and the last."""
        return self.levels + 2

    @property
    def of_vocabulary(self) -> bool:
        """Whether the levels predict tokens, and not vectors."""
        return self.predicts in ("bag", "multi_hot")
