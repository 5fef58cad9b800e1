"""Laws of the tales: the same everywhere, exact probabilities, true probes, good form."""

import hashlib
import math
import os
import re
import subprocess
import sys
from collections import Counter
from functools import cache
from itertools import accumulate
from random import Random

import pytest

from lab.data.tales import VERSION, Story, entropy, stories, story
from lab.data.tales.choices import Replay, Sampler, Weighted, walk
from lab.data.tales.lexicon import an, people, places, things, words
from lab.data.tales.plots import PLOTS
from lab.data.tales.telling import fingerprint, tell_story
from settings.errors import DataError
from settings.paths import ROOT

# SHA-256 of the first 100 stories: any change of the grammar changes it
GOLDEN = "9c7bf2196f1059b947c6fd18b7fd8782d21119542f34e268e9a91574a7e0af0b"
SAMPLE = list(stories(6000, seed=1))


# A reduced grammar: at each choice only a few options remain, chosen by a seed from the position alone

@cache
def kept(seed: int, position: int, size: int, rate: float) -> list[int]:
    """The numbers of two or three options at some positions, of one at the others."""
    random = Random(seed * 100_003 + position)
    keep = 1 if random.random() > rate else 2 + (random.random() < 0.3)
    return sorted(random.sample(range(size), min(keep, size)))


def reduce(seed: int, position: int, options, rate: float):
    """The options that a reduction keeps at a position; of weighted ones often several, with their weights."""
    if type(options) is not Weighted:
        return [options[number] for number in kept(seed, position, len(options), rate)]
    weights = [after - before for before, after in zip((0, *options.cumulative), options.cumulative)]
    numbers = kept(seed, position, len(weights), 6 * rate)
    return Weighted({options.options[number]: weights[number] for number in numbers})


class ReducedReplay(Replay):
    def __init__(self, script, seed, rate):
        super().__init__(script)
        self.seed, self.rate = seed, rate

    def choose(self, options):
        return super().choose(reduce(self.seed, len(self.taken), options, self.rate))


class ReducedSampler(Sampler):
    def __init__(self, seed, reduction, rate):
        super().__init__(seed)
        self.reduction, self.rate, self.position = reduction, rate, 0

    def choose(self, options):
        self.position += 1
        return super().choose(reduce(self.reduction, self.position - 1, options, self.rate))


def enumerate_reduced(plots, seed, rate) -> dict[str, float]:
    """Every text of a reduced grammar with its probability; fails if two derivations give one text."""
    found: dict[str, float] = {}
    for replay in walk(lambda tell: tell_story(tell, plots), lambda script: ReducedReplay(script, seed, rate)):
        assert replay.text not in found, f"two derivations of\n{replay.text}"
        found[replay.text] = math.exp(replay.log_probability)
    return found


@pytest.mark.parametrize("plot", PLOTS, ids=lambda plot: plot.__name__)
def test_reduced_probabilities_sum_to_one_and_texts_are_distinct(plot):
    sizes = []
    for seed in range(24):
        texts = enumerate_reduced((plot,), seed, 0.06)
        assert math.fsum(texts.values()) == pytest.approx(1, abs=1e-9)
        sizes.append(len(texts))
    assert sum(sizes) > 300 and max(sizes) > 30  # the reductions leave something to confuse


def test_the_composition_of_all_plots_is_unambiguous():
    texts = {}
    for plot in PLOTS:  # the same reduction of the opening in every plot, so that plots could be confused
        for text, probability in enumerate_reduced((plot,), 3, 0.05).items():
            assert text not in texts
            texts[text] = probability / len(PLOTS)
    assert math.fsum(texts.values()) == pytest.approx(1, abs=1e-9)


@pytest.fixture(scope="module")
def reduced():
    """A reduced grammar of several hundred texts, and 5,000 samples of it."""
    seed = 21
    texts = enumerate_reduced(PLOTS, seed, 0.08)
    samples = []
    for number in range(5000):
        tell = ReducedSampler(number, seed, 0.08)
        tell_story(tell)
        samples.append(tell)
    return texts, samples


def test_sampled_frequencies_match_the_probabilities(reduced):
    texts, samples = reduced
    counts = Counter(tell.text for tell in samples)
    assert set(counts) <= set(texts)
    cells, rest = [], [0, 0.0]  # texts with a small expectation share one cell
    for text, probability in texts.items():
        expected = probability * len(samples)
        if expected >= 5:
            cells.append((counts[text], expected))
        else:
            rest = [rest[0] + counts[text], rest[1] + expected]
    if rest[1] >= 5:
        cells.append(tuple(rest))
    assert len(cells) > 20
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    freedom = len(cells) - 1
    # Wilson-Hilferty: (chi2 / k)^(1/3) is nearly normal; 3.72 is the point that p = 1e-4 leaves above it
    score = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    assert score < 3.72


def test_log_probability_is_that_of_the_text_and_its_mean_is_the_entropy(reduced):
    texts, samples = reduced
    for tell in samples[:500]:
        assert tell.log_probability == pytest.approx(math.log(texts[tell.text]), abs=1e-9)
    exact = -math.fsum(p * math.log(p) for p in texts.values())
    values = [-tell.log_probability for tell in samples]
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    assert spread > 0.1
    assert abs(mean - exact) < 4 * spread / math.sqrt(len(values))


# The full grammar

class Checked(Sampler):
    """Notes every option picked, and what had been said before; refuses a choice between equals."""

    def __init__(self, seed):
        super().__init__(seed)
        self.picked = []

    def choose(self, options):
        listed = options.options if type(options) is Weighted else options
        assert len(set(listed)) == len(listed), f"equal options among {listed}"
        option = super().choose(options)
        self.picked.append((option, self.length))
        return option


def bare(text: str) -> str:
    return f" {' '.join(re.findall('[a-z0-9]+', text.lower()))} "


def test_every_choice_can_be_read_in_the_text():
    for number in range(800):
        tell = Checked(number)
        tell_story(tell)
        for option, length in tell.picked:
            if isinstance(option, str):
                assert bare(option) in bare(tell.text[length:]), f"{option!r} was picked but not said\n{tell.text}"


class Skeleton(Sampler):
    """Fixes roles, branches and forms by one seed, varies the words by another, and notes how many there were."""

    def __init__(self, skeleton, seed):
        super().__init__(seed)
        self.fixed = Sampler(skeleton)
        self.counts = []

    def form(self, *sentences):
        return self.fixed.form(*sentences)

    def choose(self, options):
        if type(options) is Weighted or not isinstance(options[0], str):
            return self.fixed.choose(options)
        self.counts.append(len(options))
        return super().choose(options)


def test_more_than_a_trillion_stories():
    counts, texts = set(), set()
    for seed in range(300):
        tell = Skeleton(7, seed)
        tell_story(tell)
        counts.add(tuple(tell.counts))
        texts.add(tell.text)
    assert len(counts) == 1  # the number of options does not depend on the words picked before, so they multiply
    assert len(texts) == 300
    assert math.prod(counts.pop()) > 10**12


def test_golden():
    text = "\n".join(tale.text for tale in stories(100))
    assert hashlib.sha256(text.encode("utf-8")).hexdigest() == GOLDEN


def test_a_story_is_the_same_in_another_process():
    code = ("import sys; from lab.data.tales import story; tale = story(7, 3); "
            "assert not {'torch', 'datasets', 'matplotlib'} & set(sys.modules); "
            "print(repr((tale.text, tale.log_probability)))")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8",
                         cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "12"})
    assert run.stdout.strip() == repr((story(7, 3).text, story(7, 3).log_probability))


def test_the_version_follows_the_source_and_not_its_line_ends(tmp_path):
    folders = [tmp_path / name for name in ("unix", "windows", "changed")]
    for folder, source in zip(folders, (b"A = 1\n", b"A = 1\r\n", b"A = 2\n")):
        folder.mkdir()
        (folder / "words.py").write_bytes(source)
    unix, windows, changed = map(fingerprint, folders)
    assert unix == windows != changed
    assert re.fullmatch("[0-9a-f]{16}", VERSION)


def test_numbers_and_seeds_give_different_stories():
    assert [tale.text for tale in stories(3, seed=2, start=5)] == [story(i, 2).text for i in (5, 6, 7)]
    assert len({tale.text for tale in SAMPLE}) == len(SAMPLE)
    assert story(5, 0).text != story(0, 5).text


@pytest.mark.parametrize(("index", "seed"), [(-1, 0), (0, -1), (2**64, 0)])
def test_numbers_out_of_range(index, seed):
    with pytest.raises(DataError, match=r"2\*\*64"):
        story(index, seed)


def test_entropy():
    two = [Story("ab", -2 * math.log(2), ()), Story("cdé", -5 * math.log(2), ())]
    assert entropy(two) == pytest.approx(7 / 6)  # é is two bytes
    assert 0.2 < entropy(SAMPLE) < 0.7
    with pytest.raises(DataError, match="at least one"):
        entropy([])


def test_length_and_vocabulary():
    lengths = [len(tale.text.split()) for tale in SAMPLE]
    assert min(lengths) >= 80 and max(lengths) <= 250
    assert len(set(re.findall(r"[a-z]+", " ".join(tale.text for tale in SAMPLE).lower()))) >= 1200


def test_form():
    faults = re.compile(r"[ ]{2}|[ ][,.!?;:]|[,.;:]{2}"
                        r"|\b[Aa] (?!one|eu)[aeio]|\b[Aa]n [^aeiouh]|[.!?] [a-z]|\b(\w+) \1\b|^[a-z]"
                        r"|[^.!?\"\n]$|\n{3}|[{}]", re.M)
    for tale in SAMPLE:
        fault = faults.search(tale.text)
        assert fault is None, f"{fault.group()!r} in\n{tale.text}"
        assert tale.text.count('"') % 2 == 0


def lists_of(module):
    return [(name, value) for name, value in vars(module).items() if name.isupper() and isinstance(value, tuple)]


@pytest.mark.parametrize("module", [people, places, things, words])
def test_no_word_stands_twice_in_a_list(module):
    for name, entries in lists_of(module):
        assert len(set(entries)) == len(entries), f"{name}: {[e for e, n in Counter(entries).items() if n > 1]}"
        assert all(entry and entry == entry.strip() for entry in entries), name


def test_places_have_six_corners():
    assert all(len(set(place.corners)) == 6 for place in places.PLACES)


def test_articles():
    assert [an(word) for word in ("kite", "owl", "honest boy", "unicorn", "umbrella", "useful hat", "old hat")] == [
        "a kite", "an owl", "an honest boy", "a unicorn", "an umbrella", "a useful hat", "an old hat"]


# Probes

PROBES = [probe for tale in SAMPLE for probe in tale.probes]


def test_probes_continue_their_story():
    for tale in SAMPLE:
        assert tale.probes
        for probe in tale.probes:
            assert tale.text.startswith(probe.prompt + probe.right)
            assert probe.right != probe.wrong
            assert probe.right[0] == probe.wrong[0] == " "


def test_every_skill_is_asked_often():
    counts = Counter(probe.skill for probe in PROBES)
    assert set(counts) == {"holder", "place", "pronoun", "name"}
    assert min(counts.values()) > 0.4 * len(SAMPLE)


@pytest.mark.parametrize("skill", ["holder", "name"])
def test_the_first_named_is_right_half_of_the_time(skill):
    asked = [probe for probe in PROBES if probe.skill == skill][:5000]
    assert len(asked) == 5000
    first = sum(re.search(rf"{probe.right}\b|{probe.wrong}\b", " " + probe.prompt).group() == probe.right
                for probe in asked)
    assert 0.45 < first / len(asked) < 0.55


def test_pronouns_are_balanced():
    counts = Counter(probe.right.strip().lower() for probe in PROBES if probe.skill == "pronoun")
    assert set(counts) == {"he", "she", "him", "her", "his", "they", "it"}
    female, male = counts["she"] + counts["her"], counts["he"] + counts["him"] + counts["his"]
    assert 0.45 < female / (female + male) < 0.55


def test_wrong_answers_are_words_of_the_tales():
    known = {word for tale in SAMPLE for word in tale.text.split()} | {"she", "he"}
    bare_words = {re.sub(r"\W", "", word) for word in known}
    for probe in PROBES[:5000]:
        assert {re.sub(r"\W", "", word) for word in probe.wrong.split()} <= bare_words


def test_the_answer_stands_once_in_its_sentence():
    for number in range(1500):
        tell = Sampler(number)
        tell_story(tell)
        starts = dict(zip(accumulate(map(len, tell.sentences), initial=0), tell.sentences))
        for offset, _, right, _ in tell.marks:
            assert len(re.findall(rf" {re.escape(right)}\b", starts[offset])) == 1
