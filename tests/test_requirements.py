"""The lowest versions that are said to work are those that tests/lowest.txt installs."""

import re

from settings.paths import ROOT


def lines(name: str) -> list[str]:
    return [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if line and line[0].isalpha()]


def test_lowest_are_the_lower_bounds():
    bounds = dict(
        re.fullmatch(r"([\w-]+)>=([\d.]+)", line).groups()
        for line in lines("requirements.txt") + lines("tests/requirements.txt")
        if not line.startswith("torch==")
    )
    assert dict(line.split("==") for line in lines("tests/lowest.txt")) == bounds
