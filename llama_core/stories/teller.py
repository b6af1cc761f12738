"""Who tells a story: the small world so far, the text so far, and how an event becomes a sentence.

A pronoun stands only for the one who acted in the sentence before: small models learn this well. All chance comes from
the generator that is passed in, through ``random()`` only, whose values Python guarantees for a seed on every machine.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .forms import FORMS, slots
from .words import ANIMALS, CARRIED, CAST, GIRLS, LOOKS, MOODS, PLACES, TRAITS, WEATHERS, with_article

T = TypeVar("T")


@dataclass(frozen=True)
class Person:
    """Somebody in the story: a name, and a kind such as "fox" or "girl"."""

    name: str
    kind: str

    @property
    def he(self) -> str:
        return "she" if self.name in GIRLS else "he"


@dataclass
class Teller:
    """The writer at work. Scenes read and change the world; what they have told stands in ``paragraphs``."""

    rng: random.Random
    cast: list[Person] = field(default_factory=list)
    place: str | None = None
    holder: dict[str, Person] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    described: set[str] = field(default_factory=set)
    song: str | None = None
    bag: list[str] = field(default_factory=list)
    #: What somebody may take home: the outcome of the scene before.
    outcome: Callable[[], str] | None = None
    #: Who the sentence before was about, if it named nobody else.
    alone: Person | None = None
    length: int = 0
    paragraphs: list[list[str]] = field(default_factory=lambda: [[]])

    # chance

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.random() * len(options))]

    def others(self, *but: Person) -> list[Person]:
        return [person for person in self.cast if person not in but]

    # sentences

    def say(self, event: str, a: Person | None = None, b: Person | None = None, **values: str) -> str:
        """Tell an event in one of its forms that the values can fill; returns the form."""
        if a:
            name = a.he if a == self.alone and self.chance(0.7) else a.name
            values |= {"A": a.name, "S": name.capitalize(), "s": name, "kind": a.kind}
        if b:
            values["B"] = b.name
        if self.place and "P" not in values:
            values["P"] = self.place
        if "P" in values:
            in_place = f"{PLACES[values['P']]} the {values['P']}"
            values |= {"inP": in_place, "InP": in_place.capitalize()}
        values |= {"mood": self.pick(MOODS), "weather": self.pick(WEATHERS)}
        form = self.pick([form for form in FORMS[event] if all(slot in values for slot in slots(form))])
        self.paragraphs[-1].append(form.format(**values))
        self.length += 1
        self.alone = a if "{B}" not in form else None
        return form

    def person(self) -> tuple[Person, str]:
        """Somebody new and the words that introduce them: "a shy fox"."""
        name = self.pick(CAST[len(self.cast)])
        child = "girl" if name in GIRLS else "boy"
        person = Person(name, self.pick(ANIMALS) if self.chance(0.75) else child)
        self.cast.append(person)
        traits = TRAITS if person.kind in ANIMALS else [trait for trait in TRAITS if trait not in ("old", "young")]
        return person, with_article(f"{self.pick(traits)} {person.kind}")

    def new_thing(self, nouns: Sequence[str]) -> str:
        noun = self.pick([noun for noun in nouns if noun not in self.used])
        self.used.add(noun)
        return f"{self.pick(LOOKS)} {noun}"

    def thing_of(self, person: Person) -> str:
        """A thing that the person holds; a new one is told of where there is none."""
        own = [thing for thing, holder in self.holder.items() if holder == person]
        if own:
            return self.pick(own)
        thing = self.new_thing(CARRIED)
        self.holder[thing] = person
        self.say("have", person, aX=with_article(thing))
        if self.chance(0.2):
            self.say("like", person, X=thing)
        return thing
