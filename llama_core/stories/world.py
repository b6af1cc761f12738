"""The world that a story tells of, kept while the story is read: each event is checked against the facts so far."""

from dataclasses import dataclass, field

from .words import COUNTED, GIRLS, KINDS, NUMBERS, SONG_WORDS, TRAITS, amount, enumerate_words, with_article


@dataclass
class Turn:
    """What the next sentence has to be: one of these events, told by this person."""

    why: str
    events: tuple[str, ...]
    who: str | None = None
    to: str | None = None
    thing: str | None = None


@dataclass
class World:
    """What a story has told so far. One method for each kind of event checks it against the facts and adds to them."""

    found: list[str] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    place: str | None = None
    described: set[str] = field(default_factory=set)
    holder: dict[str, str | None] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    last_count: tuple[str, str] | None = None
    song: str | None = None
    sung: int = 0
    bag: list[str] = field(default_factory=list)
    bag_told: bool = True
    lost: tuple[str, str] | None = None
    seeker: str | None = None
    spots: list[str] = field(default_factory=list)
    gift: tuple[str, str] | None = None
    refused: str | None = None
    happy: set[str] = field(default_factory=set)
    due: Turn | None = None
    asked: Turn | None = None
    went_home: bool = False
    closed: bool = False

    def wrong(self, what: str) -> None:
        self.found.append(what)

    def hold(self, fact: bool, otherwise: str) -> None:
        if not fact:
            self.wrong(otherwise)

    # beginnings, coming and going

    def _introduce(self, name: str, values: dict[str, str]) -> None:
        kind = values.get("kind") or values["akind"].split()[-1]
        self.hold(kind in KINDS, f"{kind!r} is no kind of character")
        self.hold(kind not in ("girl", "boy") or (kind == "girl") == (name in GIRLS), f"{name} is no {kind}")
        if "akind" in values:
            trait = values["akind"].split()[1]
            self.hold(trait in TRAITS, f"{trait!r} is no trait")
            self.hold(with_article(f"{trait} {kind}") == values["akind"], f"wrong article: {values['akind']!r}")
        self.kinds.setdefault(name, kind)

    def _at(self, values: dict[str, str]) -> None:
        where = values.get("P") or (values.get("inP") or values.get("InP") or "").split(" ")[-1]
        self.hold(not where or where == self.place, f"they are not at the {where}")

    def _open(self, a: str, b: None, values: dict[str, str]) -> None:
        self._introduce(a, values)
        self.place = values.get("P") or values.get("inP", "").split(" ")[-1] or None

    def _go(self, a: str, b: None, values: dict[str, str]) -> None:
        self.hold(list(self.kinds) == [a], f"{a} walks away from the others")
        self._walk(a, b, values)

    def _walk(self, a: str | None, b: None, values: dict[str, str]) -> None:
        self.hold(a is not None or len(self.kinds) > 1, "there are no two to walk together")
        self.hold(values["P"] != self.place, f"they are at the {values['P']} already")
        self.place = values["P"]

    def _meet(self, a: str, b: str, values: dict[str, str]) -> None:
        self.hold(self.place is not None, "a meeting needs a place")
        self._at(values)
        self._introduce(b, values)

    def _come(self, a: str, b: None, values: dict[str, str]) -> None:
        self._introduce(a, values)

    def _place(self, a: None, b: None, values: dict[str, str]) -> None:
        self._at(values)
        self.hold(self.place not in self.described, f"the {self.place} is described twice")
        self.described.add(self.place or "")

    # talk

    def _how(self, a: str, b: str, values: dict[str, str]) -> None:
        self.due = Turn("an answer", ("well",), b, a)

    def _thank(self, a: str, b: str | None, values: dict[str, str]) -> None:
        self.hold(self.gift is not None and self.gift[1] == a, f"{a} was given nothing just now")
        self.hold(b is None or self.gift is None or self.gift[0] == b, f"{b} gave nothing just now")
        self.gift = None

    def _glad(self, a: str, b: None, values: dict[str, str]) -> None:
        self.hold(a in self.happy, f"{a} has no reason to be glad")

    def _sad(self, a: str, b: None, values: dict[str, str]) -> None:
        reason = self.refused == a or (self.lost is not None and self.lost[0] == a)
        self.hold(reason, f"{a} has no reason to be sad")

    # things that change hands

    def _holds(self, who: str, thing: str | None) -> None:
        if thing not in self.holder:
            self.wrong(f"there is no {thing}")
        else:
            self.hold(self.holder[thing] == who, f"the {thing} is with {self.holder[thing]}, not with {who}")

    def _have(self, a: str, b: None, values: dict[str, str]) -> None:
        thing = values["aX"].split(" ", 1)[1]
        self.hold(thing not in self.holder and values["aX"] not in self.bag, f"a second {thing}")
        self.holder[thing] = a

    def _like(self, a: str, b: None, values: dict[str, str]) -> None:
        self._holds(a, values["X"])

    _has = _keep = _like

    def _ask(self, a: str, b: str, values: dict[str, str]) -> None:
        self._holds(b, values["X"])
        self.due = Turn("an answer", ("yes", "no"), b, a, values["X"])

    def _offer(self, a: str, b: str, values: dict[str, str]) -> None:
        self._holds(a, values["X"])
        self.due = Turn("an answer", ("accept", "decline"), b, a, values["X"])

    def _yes(self, a: str, b: str | None, values: dict[str, str]) -> None:
        if self.asked:
            self.due = Turn("the promised thing", ("give",), a, self.asked.to, self.asked.thing)

    def _accept(self, a: str, b: str | None, values: dict[str, str]) -> None:
        if self.asked:
            self.due = Turn("the promised thing", ("give",), self.asked.to, a, self.asked.thing)

    def _no(self, a: str, b: str | None, values: dict[str, str]) -> None:
        if self.asked:
            self.refused = self.asked.to
            self.due = Turn("what came of the refusal", ("sad", "keep"), thing=self.asked.thing)

    def _decline(self, a: str, b: str | None, values: dict[str, str]) -> None:
        if self.asked:
            self.due = Turn("what came of the refusal", ("keep",), self.asked.to, thing=self.asked.thing)

    def _give(self, a: str, b: str, values: dict[str, str]) -> None:
        self._holds(a, values["X"])
        self.holder[values["X"]] = b
        self.gift = (a, b)
        self.happy.add(b)

    def _who(self, a: str, b: None, values: dict[str, str]) -> None:
        self.hold(values["X"] in self.holder, f"there is no {values['X']}")
        self.hold(self.holder.get(values["X"]) != a, f"{a} asks for what {a} holds")
        self.due = Turn("an answer", ("i_have", "other_has"), thing=values["X"])

    def _i_have(self, a: str, b: None, values: dict[str, str]) -> None:
        if self.asked:
            self._holds(a, self.asked.thing)

    def _other_has(self, a: str, b: str, values: dict[str, str]) -> None:
        if self.asked:
            self._holds(b, self.asked.thing)

    # things that are lost

    def _lose(self, a: str, b: None, values: dict[str, str]) -> None:
        self._holds(a, values["X"])
        self.lost, self.spots = (a, values["X"]), []
        self.holder[values["X"]] = None

    def _look(self, a: str, b: None, values: dict[str, str]) -> None:
        self.hold(self.lost is not None, "nothing is lost")
        self.hold(values["spot"] not in self.spots, f"{a} looks {values['spot']} again")
        self.spots.append(values["spot"])
        self.seeker = a
        self.due = Turn("what was found", ("not_there", "there"))

    def _not_there(self, a: None, b: None, values: dict[str, str]) -> None:
        self.due = Turn("another look", ("look",))

    def _there(self, a: None, b: None, values: dict[str, str]) -> None:
        if not (self.lost and self.seeker):
            return
        owner, thing = self.lost
        self.hold(values["X"] == thing, f"the {values['X']} was not lost")
        self.holder[thing], self.lost = self.seeker, None
        self.happy.add(owner)
        if self.seeker != owner:
            self.due = Turn("the found thing", ("give",), self.seeker, owner, thing)

    # counting

    def _amount(self, words: str) -> tuple[int, str]:
        """Number and plural of "two shells"; singular and plural must agree with the number."""
        number, noun = words.split()
        plural = next((many for many, one in COUNTED.items() if noun in (many, one)), noun)
        count = NUMBERS.index(number) + 1 if number in NUMBERS else 0
        known = plural in COUNTED and count > 0
        self.hold(known and amount(count, plural) == words, f"{words!r} is no amount")
        return count, plural

    def _count_of(self, who: str, kind: str) -> int:
        return self.counts.get((who, kind), 0)

    def _find(self, a: str, b: None, values: dict[str, str]) -> None:
        self._at(values)
        number, kind = self._amount(values["nT"])
        self.counts[a, kind] = self._count_of(a, kind) + number
        self.last_count = (a, kind)

    def _more(self, a: str, b: None, values: dict[str, str]) -> None:
        self.hold(self.last_count is not None and self.last_count[0] == a, f"{a} was not counting")
        if self.last_count and values["n"] in NUMBERS:
            self.counts[a, self.last_count[1]] = self._count_of(a, self.last_count[1]) + NUMBERS.index(values["n"]) + 1

    def _total(self, a: str, b: None, values: dict[str, str]) -> None:
        number, kind = self._amount(values["nT"])
        has = self._count_of(a, kind)
        self.hold((a, kind) in self.counts and has == number, f"{a} has {has} {kind}, not {number}")

    _left = _total

    def _aloud(self, a: str, b: None, values: dict[str, str]) -> None:
        has = self._count_of(a, self.last_count[1]) if self.last_count else 0
        counted = ", ".join(NUMBERS[:has]).capitalize()
        self.hold(values["seq"] == counted, f"{a} has {has} to count")

    def _give_some(self, a: str, b: str, values: dict[str, str]) -> None:
        number, kind = self._amount(values["nT"])
        self.hold(0 < number <= self._count_of(a, kind), f"{a} has no {number} {kind} to give")
        self.counts[a, kind] = self._count_of(a, kind) - number
        self.counts[b, kind] = self._count_of(b, kind) + number
        self.gift = (a, b)
        self.happy.add(b)

    def _drop(self, a: str, b: None, values: dict[str, str]) -> None:
        number = NUMBERS.index(values["n"]) + 1 if values["n"] in NUMBERS else 0
        has = self._count_of(a, values["T"])
        self.hold(number <= has, f"{a} has {has} {values['T']}, and cannot lose {number}")
        self.counts[a, values["T"]] = has - number

    def _how_many(self, a: str, b: str, values: dict[str, str]) -> None:
        self.due = Turn("an answer", ("i_count",), b, thing=values["T"])

    def _i_count(self, a: str, b: None, values: dict[str, str]) -> None:
        number, kind = self._amount(values["nT"])
        self.hold(number == self._count_of(a, kind), f"{a} has {self._count_of(a, kind)} {kind}, not {number}")
        self.hold(not self.asked or self.asked.thing == kind, f"nobody asked for {kind}")

    # refrain and bag

    def _song(self, a: str, b: None, values: dict[str, str]) -> None:
        words = values["R"].split(" ")
        self.hold(self.song is None, "a second song")
        known = 3 <= len(words) <= 6 and all(word in SONG_WORDS for word in words)
        self.hold(known, f"{values['R']!r} is no refrain")
        self.song, self.sung = values["R"], 1

    def _again(self, a: str | None, b: None, values: dict[str, str]) -> None:
        self.hold(self.song is not None, "nobody has sung yet")
        self.hold(values["R"] == self.song, f"the refrain went {self.song!r}, not {values['R']!r}")
        self.sung += 1

    _echo = _again

    def _choir(self, a: None, b: None, values: dict[str, str]) -> None:
        self.hold(len(self.kinds) > 1, "there are no two to sing together")
        self._again(a, b, values)

    def _bag(self, a: str, b: None, values: dict[str, str]) -> None:
        self.hold(not self.bag, "a second bag")
        self._put(a, b, values, first=True)

    def _put(self, a: str, b: None, values: dict[str, str], first: bool = False) -> None:
        self.hold(first or bool(self.bag), "there is no bag")
        thing = values["aX"].split(" ", 1)[1]
        self.hold(thing not in self.holder and values["aX"] not in self.bag, f"a second {thing}")
        self.bag.append(values["aX"])
        self.bag_told = False

    def _bag_holds(self, a: None, b: None, values: dict[str, str]) -> None:
        self.hold(
            bool(self.bag) and values["list"] == enumerate_words(self.bag or ["nothing"]), "the bag holds other things"
        )
        self.bag_told = True

    # endings

    def _going_home(self, event: str, a: str | None, values: dict[str, str]) -> None:
        self.hold(event != "home" or len(self.kinds) > 1, "there are no two to go home")
        if event == "home_thing":
            self._holds(a, values["X"])
        if event == "home_amount":
            self._total(a, None, values)
        if event == "home_song":
            self._again(a, None, values)
        self.went_home = True

    def _closing(self, a: str | None, b: str | None, values: dict[str, str]) -> None:
        hero = next(iter(self.kinds), None)
        self.hold(a is None or a == hero, f"the story was about {hero}, not about {a}")
        self.hold(values.get("kind") in (None, self.kinds.get(a or "")), f"{a} is a {self.kinds.get(a or '')}")
        self.hold(values.get("X") is None or values["X"] in self.holder, f"there is no {values.get('X')}")
        self.closed = True
