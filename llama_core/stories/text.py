"""Writes the stories that the embedded model learns from.

A story is an opening, some scenes and an ending. Scenes change a small world (who is there, who holds what, how many
shells there are, how the song goes) and tell what they did with the sentences of `forms`. A change is told again soon
after ("Now she had five shells"), and a pronoun stands only for the one who acted in the sentence before: small models
learn this well. All chance comes from the generator that is passed in, through ``random()`` only, whose values Python
guarantees for a seed on every machine.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from .forms import FORMS, slots
from .words import (
    ANIMALS,
    CARRIED,
    CAST,
    COUNTED,
    GIRLS,
    LOOKS,
    MOODS,
    NUMBERS,
    PACKED,
    PLACES,
    SONG_WORDS,
    SPOTS,
    TRAITS,
    WEATHERS,
    amount,
    enumerate_words,
    with_article,
)

T = TypeVar("T")


def story(rng: random.Random) -> str:
    """One story of one to three paragraphs, 50 to 200 tokens of the stories tokenizer."""
    return _Teller(rng).tell()


@dataclass(frozen=True)
class _Person:
    name: str
    kind: str

    @property
    def he(self) -> str:
        return "she" if self.name in GIRLS else "he"


@dataclass
class _Teller:
    """The writer at work: the world so far and the text so far."""

    rng: random.Random
    cast: list[_Person] = field(default_factory=list)
    place: str | None = None
    holder: dict[str, _Person] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    described: set[str] = field(default_factory=set)
    song: str | None = None
    bag: list[str] = field(default_factory=list)
    #: What somebody may take home: the outcome of the scene before.
    outcome: Callable[[], str] | None = None
    #: Who the sentence before was about, if it named nobody else.
    alone: _Person | None = None
    length: int = 0
    paragraphs: list[list[str]] = field(default_factory=lambda: [[]])

    def tell(self) -> str:
        wanted = 6 + int(7 * self.rng.random())
        self.opening()
        solo = [self.count, self.count, self.search, self.new_song, self.new_song, self.pack, self.travel]
        social = [self.hand_over, self.hand_over, self.hand_over, self.company]
        scene = self.opening
        while self.length < wanted:
            if len(self.paragraphs[-1]) > 3 and self.chance(0.5):
                self.paragraphs.append([])
            scenes = solo + (social * 2 if len(self.cast) > 1 else [self.company] * 3)
            scene = self.pick([other for other in scenes if other != scene])
            self.outcome = None
            scene()
        self.ending()
        return "\n".join(" ".join(sentences) for sentences in self.paragraphs if sentences)

    # chance

    def chance(self, probability: float) -> bool:
        return self.rng.random() < probability

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self.rng.random() * len(options))]

    def others(self, *but: _Person) -> list[_Person]:
        return [person for person in self.cast if person not in but]

    # sentences

    def say(self, event: str, a: _Person | None = None, b: _Person | None = None, **values: str) -> str:
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

    def person(self) -> tuple[_Person, str]:
        """Somebody new and the words that introduce them: "a shy fox"."""
        name = self.pick(CAST[len(self.cast)])
        child = "girl" if name in GIRLS else "boy"
        person = _Person(name, self.pick(ANIMALS) if self.chance(0.75) else child)
        self.cast.append(person)
        traits = TRAITS if person.kind in ANIMALS else [trait for trait in TRAITS if trait not in ("old", "young")]
        return person, with_article(f"{self.pick(traits)} {person.kind}")

    def new_thing(self, nouns: Sequence[str]) -> str:
        noun = self.pick([noun for noun in nouns if noun not in self.used])
        self.used.add(noun)
        return f"{self.pick(LOOKS)} {noun}"

    def thing_of(self, person: _Person) -> str:
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

    # scenes

    def opening(self) -> None:
        event = "open_one_day" if self.chance(0.45) else "open_once" if self.chance(0.7) else "open"
        hero, introduction = self.person()
        place = self.pick(tuple(PLACES))
        form = self.say(event, hero, akind=introduction, P=place)
        if "P}" not in form:
            if self.chance(0.3):
                self.thing_of(hero)
            self.say("go", hero, P=place)
        self.place = place
        self.look_around()
        if self.chance(0.35):
            self.thing_of(hero)
        if self.chance(0.75):
            self.company()

    def look_around(self) -> None:
        if self.place in self.described or self.chance(0.7):
            return
        self.described.add(self.place)
        self.say(self.pick(("place", "sky")))

    def company(self) -> None:
        if len(self.cast) > 2:
            return
        host = self.pick(self.cast)
        guest, introduction = self.person()
        if self.chance(0.6):
            self.say("meet", host, guest, akind=introduction)
        else:
            self.say("come", guest, akind=introduction)
        if self.chance(0.5):
            self.say("greet", host, guest)
            if self.chance(0.5):
                self.say("greet", guest, host)
        if self.chance(0.3):
            self.say("how", guest, host)
            self.say("well", host, guest)

    def hand_over(self) -> None:
        giver = self.pick(self.cast)
        taker = self.pick(self.others(giver))
        thing = self.thing_of(giver)
        way = self.pick(("ask", "ask", "offer", "give"))
        if way == "ask":
            self.say("ask", taker, giver, X=thing)
            if self.chance(0.25):
                self.say("no", giver, taker)
                self.say("sad", taker) if self.chance(0.5) else self.keep(thing, giver)
                return
            self.say("yes", giver, taker)
        if way == "offer":
            self.say("offer", giver, taker, X=thing)
            if self.chance(0.25):
                self.say("decline", taker, giver)
                self.keep(thing, giver)
                return
            self.say("accept", taker, giver)
        self.pass_on(thing, giver, taker)
        if self.chance(0.6):
            self.say("thank", taker, giver)
        after = self.rng.random()
        if after < 0.25:
            self.say("has", taker, X=thing)
        elif after < 0.5:
            self.say("glad", taker)
        elif after < 0.7:
            self.ask_who(thing)

    def pass_on(self, thing: str, giver: _Person, taker: _Person) -> None:
        self.say("give", giver, taker, X=thing)
        self.holder[thing] = taker
        self.outcome = lambda: self.say("home_thing", taker, X=thing)

    def keep(self, thing: str, giver: _Person) -> None:
        self.say("keep", giver, X=thing)
        self.outcome = lambda: self.say("home_thing", giver, X=thing)

    def ask_who(self, thing: str) -> None:
        holder = self.holder[thing]
        asker = self.pick(self.others(holder))
        self.say("who", asker, X=thing)
        witnesses = self.others(holder, asker)
        if witnesses and self.chance(0.5):
            self.say("other_has", self.pick(witnesses), holder)
        else:
            self.say("i_have", holder)

    def travel(self) -> None:
        self.place = self.pick([place for place in PLACES if place != self.place])
        if len(self.cast) > 1:
            self.say("walk")
        else:
            self.say("go", self.cast[0])
        self.look_around()

    def search(self) -> None:
        owner = self.pick(self.cast)
        thing = self.thing_of(owner)
        self.say("lose", owner, X=thing)
        if self.chance(0.3):
            self.say("sad", owner)
        spot = self.pick(SPOTS)
        seeker = self.pick(self.cast)
        self.say("look", seeker, spot=spot)
        if self.chance(0.4):
            self.say("not_there")
            seeker = self.pick(self.cast)
            self.say("look", seeker, spot=self.pick([other for other in SPOTS if other != spot]))
        self.say("there", X=thing)
        self.holder[thing] = seeker
        self.outcome = lambda: self.say("home_thing", owner, X=thing)
        if seeker != owner:
            self.pass_on(thing, seeker, owner)
            if self.chance(0.6):
                self.say("thank", owner, seeker)
        elif self.chance(0.4):
            self.say("glad", owner)

    def count(self) -> None:
        who = self.pick(self.cast)
        kind = self.pick([kind for kind in COUNTED if not any(kind == other for _, other in self.counts)])
        number = 1 + int(4 * self.rng.random())
        self.say("find", who, nT=amount(number, kind))
        while self.chance(0.55) and number < 7:
            new = 1 + int(3 * self.rng.random())
            self.say("more", who, n=NUMBERS[new - 1])
            number += new
            self.say("total", who, nT=amount(number, kind))
        if number > 2 and self.chance(0.4):
            self.say("aloud", who, seq=", ".join(NUMBERS[:number]).capitalize())
        if number > 1 and self.chance(0.25):
            lost = 1 + int(min(3, number - 1) * self.rng.random())
            self.say("drop", who, n=NUMBERS[lost - 1], T=kind)
            number -= lost
            self.say("left", who, nT=amount(number, kind))
        self.counts[who.name, kind] = number
        if number > 1 and len(self.cast) > 1 and self.chance(0.5):
            self.share(who, kind)
        self.outcome = lambda: self.say("home_amount", who, nT=amount(self.counts[who.name, kind], kind))

    def share(self, who: _Person, kind: str) -> None:
        """Give some of the counted things away, but not all, tell how many are left, and ask how many there are."""
        friend = self.pick(self.others(who))
        has = self.counts[who.name, kind]
        given = 1 + int(min(3, has - 1) * self.rng.random())
        self.say("give_some", who, friend, nT=amount(given, kind))
        self.counts[who.name, kind] = has - given
        self.counts[friend.name, kind] = given
        if self.chance(0.4):
            self.say("thank", friend, who)
        self.say("left", who, nT=amount(has - given, kind))
        if self.chance(0.4):
            asked = self.pick((who, friend))
            self.say("how_many", self.pick(self.others(asked)), asked, T=kind)
            self.say("i_count", asked, nT=amount(self.counts[asked.name, kind], kind))

    def new_song(self) -> None:
        if self.song is None:
            words: list[str] = []
            for _ in range(3 + int(4 * self.rng.random())):
                words.append(self.pick([word for word in SONG_WORDS if word not in words]))
            self.song = " ".join(words)
            self.say("song", self.pick(self.cast), R=self.song)
        self.sing()
        if self.chance(0.3):
            self.sing()

    def sing(self) -> None:
        ways: list[Callable[[], str]] = [
            lambda: self.say("again", self.pick(self.cast), R=self.song),
            lambda: self.say("echo", R=self.song),
        ]
        if len(self.cast) > 1:
            ways.append(lambda: self.say("choir", R=self.song))
        self.pick(ways)()

    def pack(self) -> None:
        if self.bag:
            return
        for step in range(2 + int(2 * self.rng.random())):
            thing = with_article(self.new_thing(PACKED))
            self.bag.append(thing)
            self.say("put" if step else "bag", self.pick(self.cast), aX=thing)
        self.say("bag_holds", list=enumerate_words(self.bag))

    def ending(self) -> None:
        if len(self.paragraphs[-1]) > 2:
            self.paragraphs.append([])
        homes = [lambda: self.say("home_alone", self.pick(self.cast))]
        if len(self.cast) > 1:
            homes += [lambda: self.say("home")] * 2
        if self.outcome:
            homes += [self.outcome] * 4
        if self.song:
            homes += [lambda: self.say("home_song", self.pick(self.cast), R=self.song)] * 3
        self.pick(homes)()
        hero = self.cast[0]
        closings = [lambda: self.say("close")] * 2
        if self.holder:
            closings += [lambda: self.say("close_story", hero, X=self.pick(list(self.holder)))]
        else:
            closings += [lambda: self.say("close_story", hero)]
        if len(self.cast) > 1:
            friend = self.pick(self.others(hero))
            closings += [lambda: self.say("close_friends", hero, friend)] * 2
        self.pick(closings)()
