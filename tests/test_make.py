"""The Makefile's targets: README or CONTRIBUTING.md names each, and what they say of `make test-quick` is so."""

import re

import pytest

from settings.paths import ROOT
from tests.helpers.quick import FILES, LAWS

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "CONTRIBUTING.md")}
TARGETS = re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)[1].split()


def test_every_target_is_declared():
    assert set(TARGETS) == set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


def test_the_pages_name_only_targets_that_exist():
    named = {target for page in PAGES.values() for target in re.findall(r"^make ([a-z-]+)|`make ([a-z-]+)", page, re.M)}
    assert {first or second for first, second in named} <= set(TARGETS)


@pytest.mark.parametrize("target", ["train", "test", "test-quick", "lab", "bench"])
def test_the_readme_names_the_target(target):
    assert re.search(rf"\bmake {target}(?![\w-])", PAGES["README.md"])


def test_the_quick_tests_are_there():
    assert "pytest -n auto -m quick\n" in MAKEFILE and "pytest -n auto -m quick\n" in PAGES["README.md"]
    for file in (*FILES, LAWS):
        assert (ROOT / "tests" / file).is_file(), file


@pytest.mark.parametrize("page", PAGES)
def test_links_to_files_lead_somewhere(page):
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", PAGES[page])
    assert links
    for link in links:
        assert (ROOT / link).exists(), link
