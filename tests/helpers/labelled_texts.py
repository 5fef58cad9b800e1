"""Labelled texts that one word tells apart."""

from lab.adapting.labelled import LabelledTask, LabelledText, make_task

ANIMALS, COLOURS = ("cat", "dog", "cow"), ("red", "blue", "green", "black", "white", "grey")


def animal_task(count: int = 240) -> LabelledTask:
    """Which animal it is. Texts have different lengths; the animal is the last word, so that a head can read it."""
    texts = []
    for i in range(count):
        colours = " ".join(COLOURS[(i * k) % 5 % len(COLOURS)] for k in range(1, 2 + i % 3))
        texts.append(LabelledText(f"{i} {colours} {ANIMALS[i % 3]}", ANIMALS[i % 3], f"document {i}"))
    return make_task("animals", "which animal it is", texts)
