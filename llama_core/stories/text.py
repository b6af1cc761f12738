"""Writes the stories that the embedded model learns from: an opening, some scenes and an ending."""

import random

from .scenes import company, count, ending, hand_over, new_song, opening, pack, search, travel
from .teller import Teller

ALONE = (count, count, search, new_song, new_song, pack, travel)
TOGETHER = (hand_over, hand_over, hand_over, company)


def story(rng: random.Random) -> str:
    """One story of one to three paragraphs, 50 to 200 tokens of the stories tokenizer.

    All chance comes from ``rng.random()``: a seed gives the same story on every machine.
    """
    teller = Teller(rng)
    wanted = 6 + int(7 * rng.random())
    opening(teller)
    scene = opening
    while teller.length < wanted:
        if len(teller.paragraphs[-1]) > 3 and teller.chance(0.5):
            teller.paragraphs.append([])
        scenes = ALONE + (TOGETHER * 2 if len(teller.cast) > 1 else (company,) * 3)
        scene = teller.pick([other for other in scenes if other != scene])
        teller.outcome = None
        scene(teller)
    ending(teller)
    return "\n".join(" ".join(sentences) for sentences in teller.paragraphs if sentences)
