import random

import pytest

from llama_core.stories.corruptions import CORRUPTIONS, corrupt
from llama_core.stories.rules import violations
from llama_core.stories.text import story

# Written by hand, not by the generator: thing, count, refrain, bag, search, question.
GOOD = (
    "One day a shy fox named Mira sat by the pond. She had a red kite. There she met an old owl named Ben. "
    '"May I have the red kite, Mira?" asked Ben. "Yes, of course," said Mira. Mira gave the red kite to Ben. '
    '"Thank you, Mira!" said Ben. Now Ben had the red kite.\n'
    "Mira found two shells by the pond. Then she found three more. Now she had five shells. She gave Ben one shell. "
    '"How many shells do you have, Mira?" asked Ben. "I have four shells," said Mira. '
    'Ben sang a song: "moon tin la honey." They sang it together: "moon tin la honey!" '
    "But then Ben could not find the red kite. Mira looked under the bench. It was not there. "
    "Ben looked in the mud. And there was the red kite! This made Ben happy. Then they went to the barn. "
    "Mira had a bag and put in a blue cup. Ben put in an old hat. Now the bag held a blue cup and an old hat.\n"
    "At sunset Ben went home with the red kite. And Mira and Ben were friends from that day on."
)


def test_a_good_story_that_was_written_by_hand_is_accepted():
    assert violations(GOOD) == []


@pytest.mark.parametrize(
    ("right", "wrong", "objection"),
    [
        ("Mira gave the red kite to Ben", "Ben gave the red kite to Mira", "the red kite is with Mira, not with Ben"),
        ("Now Ben had the red kite", "Now Mira had the red kite", "the red kite is with Ben, not with Mira"),
        ("Now she had five shells", "Now she had six shells", "Mira has 5 shells, not 6"),
        ("I have four shells", "I have five shells", "Mira has 4 shells, not 5"),
        ("gave Ben one shell.", "gave Ben seven shells.", "Mira has no 7 shells to give"),
        ("one shell.", "one shells.", "'one shells' is no amount"),
        ("la honey!", "la salt!", "the refrain went 'moon tin la honey', not 'moon tin la salt'"),
        ("She had a red", "He had a red", "'he' stands for nobody"),
        ("This made Ben happy", "She smiled", "'she' stands for nobody"),
        ("This made Ben happy", "This made Mira happy", "Mira has no reason to be glad"),
        ("Then they went to the barn", "Then they went to the pond", "they are at the pond already"),
        ("in an old hat", "in a blue cup", "a second blue cup"),
        ("Now the bag held", "Ben had a red kite. Now the bag held", "a second red kite"),
        ("There she met an old owl named Ben. ", "", "Ben has not been introduced"),
        ('"Yes, of course," said Mira. ', "", "an answer does not come"),
        ('"Yes, of course," said Mira.', '"No, Ben, not today," said Mira.', "what came of the refusal does not come"),
        ("Mira gave the red kite to Ben. ", "", "the promised thing does not come"),
        ("Mira gave the red kite to Ben", "Mira gave the blue kite to Ben", "there is no blue kite"),
        ("And there was the red kite! ", "", "what was found does not come"),
        ("Ben looked in the mud", "Ben looked under the bench", "Ben looks under the bench again"),
        ("a blue cup and an old hat", "an old hat and a blue cup", "the bag holds other things"),
        ("shells by the pond", "shells by the lake", "they are not at the lake"),
        ("shells by the pond", "shells on the pond", "'on the pond' is not said of this place"),
        ("an old owl", "a old owl", "wrong article: 'a old owl'"),
        (
            "At sunset Ben went home with the red kite",
            "At sunset Mira went home with the red kite",
            "with Ben, not with",
        ),
        ("And Mira and Ben were", "And Ben and Mira were", "the story was about Mira, not about Ben"),
        (" And Mira and Ben were friends from that day on.", "", "the story does not come to an end"),
        ("that day on.", "that day on. The end.", "the story goes on after its end"),
        ("Ben sang a song", "Ben hummed a song", "not a sentence of these stories"),
        ("pond. She", "pond.She", "no space"),
    ],
)
def test_one_change_to_it_is_noticed(right: str, wrong: str, objection: str):
    assert GOOD.count(right) == 1
    assert any(objection in found for found in violations(GOOD.replace(right, wrong)))


def test_a_hundred_of_a_hundred_corrupted_stories_are_rejected():
    passed = [seed for seed in range(100) if not violations(corrupt(story(random.Random(seed)), random.Random(seed)))]
    assert passed == []


@pytest.fixture(scope="module")
def stories() -> list[str]:
    return [story(random.Random(seed)) for seed in range(5000, 5500)]


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_kind_of_corruption_is_rejected(kind: str, stories: list[str]):
    tried = 0
    for seed, good in enumerate(stories):
        try:
            spoiled = corrupt(good, random.Random(seed), kind)
        except ValueError:
            continue
        assert spoiled != good and violations(spoiled), spoiled
        tried += 1
        if tried == 30:
            return
    assert tried > 20


def test_any_text_is_judged_without_an_error():
    rng = random.Random(0)
    for seed in range(100):
        parts = [part for i in (seed, seed + 1) for part in story(random.Random(i)).replace("\n", " ").split(". ")]
        rng.shuffle(parts)
        assert violations(". ".join(parts))
    assert violations("") == ["the story does not come to an end"]
