import hashlib
import random

from llama_core.stories.forms import CLOSINGS, FORMS, OPENINGS, readings
from llama_core.stories.rules import violations
from llama_core.stories.text import story

STORIES = [story(random.Random(seed)) for seed in range(1000)]

FINN = """\
Once upon a time there was a small fox who was called Finn. One day Finn went to the market. He met a sleepy duck \
named Otto. Otto had a striped clock. "Otto, will you give me the striped clock?" asked Finn. "Yes, you may, Finn," \
said Otto. Otto let Finn have the striped clock. Otto had an orange umbrella. Suddenly the orange umbrella of Otto \
was gone. Finn looked on the roof. Nothing was there. Then he looked under the stairs. Nothing was there. He looked \
behind the tree. The orange umbrella was there! So he gave Otto the orange umbrella. "Thank you," said Otto.
In the evening they went home. That was the day of Finn and the orange umbrella."""


def sentences(text: str) -> list[list[tuple[str, dict[str, str], int]]]:
    found, start = [], 0
    while start < len(text):
        found.append(readings(text, start))
        start = found[-1][0][2] + 1
    return found


def test_a_seed_gives_this_text_on_every_machine():
    assert story(random.Random(3)) == FINN
    digest = hashlib.sha256("\n\n".join(STORIES[:200]).encode()).hexdigest()
    assert digest == "3247ef80d1ba2dd7215f0fa01fc92aa1ad0d3be21198273187325050da1c2dac"


def test_the_rules_accept_every_generated_story():
    assert [(seed, found) for seed, text in enumerate(STORIES) if (found := violations(text))] == []


def test_every_form_is_told_and_every_sentence_reads_one_way():
    told = set()
    for text in STORIES[:400]:
        for found in sentences(text):
            longest = [(event, end) for event, _, end in found if end == found[0][2]]
            assert len(longest) == 1, (text[:80], longest)
            told.add(longest[0][0])
    assert told == set(FORMS)


def test_each_story_has_its_opening_first_and_its_closing_last():
    for text in STORIES[:400]:
        events = [found[0][0] for found in sentences(text)]
        assert [event in OPENINGS for event in events] == [True] + [False] * (len(events) - 1)
        assert [event in CLOSINGS for event in events] == [False] * (len(events) - 1) + [True]


def test_stories_differ_and_some_spell_names_beyond_ascii():
    assert len(set(STORIES)) == len(STORIES)
    assert 100 < sum(not text.isascii() for text in STORIES) < 900
