import hashlib
import random

from llama_core.stories.forms import CLOSINGS, FORMS, OPENINGS, readings
from llama_core.stories.rules import violations
from llama_core.stories.text import story

STORIES = [story(random.Random(seed)) for seed in range(1000)]

OMAR = """\
Once upon a time there was a small fox who was called Omar. One day Omar went to the market. He met a sleepy duck \
named Hugo. Omar had a heavy boat. So he gave Hugo the heavy boat. "How kind you are, Omar," said Hugo. Then a \
friendly bear named Noël came along. "Hello, Noël," said Hugo. "Hello, Hugo," said Noël.
When the stars came out, Hugo went home. And Omar and Hugo were friends from that day on."""


def sentences(text: str) -> list[list[tuple[str, dict[str, str], int]]]:
    found, start = [], 0
    while start < len(text):
        found.append(readings(text, start))
        start = found[-1][0][2] + 1
    return found


def test_a_seed_gives_this_text_on_every_machine():
    assert story(random.Random(3)) == OMAR
    digest = hashlib.sha256("\n\n".join(STORIES[:200]).encode()).hexdigest()
    assert digest == "f280c30f6e63e619cd1fc41efc32753cf79c0c21579c27d0fd3031f74fdb09bd"


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
