"""The default prompt: tales begin with it in fact, and a trained model goes on from there with a story."""

import re
from inspect import signature

from config import SAMPLE_PROMPT, TrainConfig
from lab.analysis.interventions import amplify
from lab.comparison.side_by_side import generate_side_by_side
from lab.data.tales import stories
from lab.data.tokenizers import load_tokenizer
from lab.generation.generate import generate_text
from lab.runs.run import Run
from lab.terminal import Generation
from lab.widgets import sampling_panel


def test_a_quarter_of_all_tales_begin_with_the_default_prompt_and_a_whole_word_follows():
    texts = [story.text for story in stories(1000)]
    begun = [text for text in texts if text.startswith(TrainConfig().sample_prompt + " ")]
    assert 0.2 < len(begun) / len(texts) < 0.3  # 4,974 of 20,000
    tokenizer = load_tokenizer("bpe-2048")
    length = len(tokenizer.encode(SAMPLE_PROMPT))
    following = {tokenizer.decode([tokenizer.encode(text)[length]]) for text in begun}
    assert following == {" a", " an"}


def test_the_best_model_goes_on_with_a_story():
    run = Run.open("llama-tiny-tales")
    story = generate_text(run.load_model(), run.tokenizer, SAMPLE_PROMPT, max_tokens=40)
    assert re.match(r"Once there was an? [-\w]+ (boy|girl) named [A-Z][a-z]+, who always wore an? [-\w]+ ", story)


def test_all_defaults_are_one_prompt():
    functions = [signature(function).parameters for function in (generate_side_by_side, amplify, sampling_panel)]
    prompts = {TrainConfig().sample_prompt, Generation.prompt, *(names["prompt"].default for names in functions)}
    assert prompts == {SAMPLE_PROMPT}
