"""Judges a story: reads it sentence by sentence and lists what cannot be true.

`violations` knows the sentences (`forms`) and the words (`words`), and nothing of how `text` puts stories together. It
holds a story to its own facts (`world`): who has been introduced, who holds what after each hand-over, how many there
are, how the refrain went, whose turn it is to answer, and how a story ends.
"""

import re
from dataclasses import dataclass

from .forms import CLOSINGS, OPENINGS, readings
from .words import COUNTED, GIRLS, LOOKS, MOODS, NAMES, NUMBERS, OBJECTS, PLACES, SPOTS, WEATHERS, with_article
from .world import World


def violations(text: str) -> list[str]:
    """What is wrong with a story, one line each; an empty list for a good story.

    Sentences are separated by one space or one line break. A sentence that the stories do not know is a violation, and
    reading goes on after it.
    """
    world, start = _Judge(), 0
    text = text.strip()
    while start < len(text):
        found = readings(text, start)
        if found:
            event, values, end = found[0]
            world.tell(event, values)
        else:
            end = next((m.end() for m in re.finditer(r'[.!?]"?', text[start:])), len(text) - start) + start
            world.wrong(f"not a sentence of these stories: {text[start:end]!r}")
        if end < len(text) and text[end] not in " \n":
            world.wrong(f"no space before {text[end : end + 20]!r}")
            end -= 1
        start = end + 1
    world.finish()
    return world.found


@dataclass
class _Judge(World):
    """A world that is told of in sentences: checks what holds for every sentence, then hands its event to the world."""

    subject: tuple[str | None, str | None] = (None, None)
    began: bool = False

    def tell(self, event: str, values: dict[str, str]) -> None:
        self.hold(self.began == (event not in OPENINGS), "a story has one opening, at its beginning")
        self.hold(not self.closed, "the story goes on after its end")
        self.hold(
            self.went_home == (event in CLOSINGS), "a story ends by going home and a closing sentence, in this order"
        )
        a, b = self._people(event, values)
        self._words(values)
        self._turn(event, a, b, values)
        method = getattr(self, "_" + event.removesuffix("_one_day").removesuffix("_once"), None)
        if event in CLOSINGS:
            self._closing(a, b, values)
        elif event.startswith("home"):
            self._going_home(event, a, values)
        elif method:
            method(a, b, values)
        self.began = True
        if a:
            self.subject = (a, b)
        elif event in ("walk", "choir"):
            self.subject = (None, None)

    def finish(self) -> None:
        self.hold(self.closed, "the story does not come to an end")
        self.hold(self.due is None, f"{self.due.why} does not come" if self.due else "")
        self.hold(self.lost is None, "something stays lost")
        self.hold(self.song is None or self.sung > 1, "the refrain never returns")
        self.hold(self.bag_told, "nobody tells what is in the bag")

    def _people(self, event: str, values: dict[str, str]) -> tuple[str | None, str | None]:
        """The actor and the other person of a sentence, pronouns resolved; both must be known."""
        a = values.get("A") or values.get("S") or values.get("s")
        b = values.get("B")
        if a and a.lower() in ("he", "she"):
            pronoun, (a, other) = a.lower(), self.subject
            if a is None or _he(a) != pronoun:
                self.wrong(f"{pronoun!r} stands for nobody")
                a = a or pronoun
            elif other and _he(other) == pronoun:
                self.wrong(f"{pronoun!r} may be {a} or {other}")
        new = b if event == "meet" else a if event in (*OPENINGS, "come") else None
        for name in {name for name in (a, b) if name}:
            if name == new:
                self.hold(name in NAMES, f"{name} is not a name of these stories")
                self.hold(name not in self.kinds, f"{name} is introduced twice")
            else:
                self.hold(name in self.kinds, f"{name} has not been introduced")
        self.hold(a is None or a != b, f"{a} deals with {a}")
        return a, b

    def _words(self, values: dict[str, str]) -> None:
        """Single words must exist and agree: places with prepositions, things with articles, weather with itself."""
        lists = {"P": PLACES, "mood": MOODS, "weather": WEATHERS, "spot": SPOTS, "T": COUNTED, "n": NUMBERS}
        for slot, known in lists.items():
            if slot in values:
                self.hold(values[slot] in known, f"{values[slot]!r} is no {slot}")
        for slot in ("inP", "InP"):
            if slot in values:
                preposition, _, place = values[slot].lower().split()
                self.hold(PLACES.get(place) == preposition, f"{values[slot]!r} is not said of this place")
        if "aX" in values:
            article, look, noun = values["aX"].split()
            self.hold(look in LOOKS and noun in OBJECTS, f"{values['aX']!r} is no thing of these stories")
            self.hold(with_article(f"{look} {noun}") == values["aX"], f"wrong article: {values['aX']!r}")

    def _turn(self, event: str, a: str | None, b: str | None, values: dict[str, str]) -> None:
        """After a question comes the answer of who was asked, after a promise the deed, after a loss the search."""
        due, self.due = self.due, None
        if due:
            self.hold(event in due.events, f"{due.why} does not come")
            self.hold(due.who in (None, a), f"{due.why} is due from {due.who}, not from {a}")
            self.hold(None in (due.to, b) or due.to == b, f"{due.why} is due to {due.to}, not to {b}")
            self.hold(
                None in (due.thing, values.get("X")) or due.thing == values["X"], f"{due.why}: {values.get('X')}?"
            )
        elif event in (
            "yes",
            "no",
            "accept",
            "decline",
            "well",
            "i_have",
            "other_has",
            "i_count",
            "not_there",
            "there",
        ):
            self.wrong(f"nobody asked for {event!r}")
        if self.lost:
            self.hold(event in ("look", "not_there", "there", "sad"), f"nobody looks for the {self.lost[1]}")
        self.asked = due


def _he(name: str) -> str:
    return "she" if name in GIRLS else "he"
