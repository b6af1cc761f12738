import hashlib
import random

from llama_core.stories.forms import CLOSINGS, FORMS, OPENINGS, readings
from llama_core.stories.rules import violations
from llama_core.stories.text import story
from llama_core.stories.words import CAST, COUNTED, NAMES

STORIES = [story(random.Random(seed)) for seed in range(1000)]

TOM = """\
Once upon a time there was a small fox who was called Tom. One day Tom went to the market. He met a sleepy duck named \
Omar. Tom had a heavy lamp. So he gave Omar the heavy lamp. "How kind you are, Tom," said Omar. Then a friendly bear \
named Noël came along. "Hello, Noël," said Omar. "Hello, Omar," said Noël.
At last they said good night. And so the day ended."""


def sentences(text: str) -> list[list[tuple[str, dict[str, str], int]]]:
    found, start = [], 0
    while start < len(text):
        found.append(readings(text, start))
        start = found[-1][0][2] + 1
    return found


def test_a_seed_gives_this_text_on_every_machine():
    assert story(random.Random(3)) == TOM
    digest = hashlib.sha256("\n\n".join(STORIES[:200]).encode()).hexdigest()
    assert digest == "1360645764c2a38caa33c896c75e15d130535db9c910b076c330aa401b2c343c"


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


def test_nobody_meets_a_namesake_whoever_is_drawn():
    for role, names in enumerate(CAST):
        assert not set(names) & {name for other in CAST[:role] for name in other}
    assert sorted(name for names in CAST for name in names) == sorted(NAMES)


def test_what_is_taken_home_was_told_of_shortly_before():
    """In one of the five sentences before: no long look back is needed."""
    taken = 0
    for text in STORIES:
        events = [found[0] for found in sentences(text)]
        for i, (event, values, _) in enumerate(events):
            if event in ("home_thing", "home_amount"):
                before = text[events[i - 6][2] if i > 5 else 0 : events[i - 1][2]]
                assert values.get("X", values.get("nT")) in before, text
                taken += 1
    assert taken > 100


def test_nobody_is_left_with_nothing_to_count():
    assert not any(" no " + kind in text for text in STORIES for kind in COUNTED)
