"""What can happen in a story: its opening, its scenes, its ending.

Each is a function that has a teller tell it. It changes the teller's small world (who is there, who holds what, how
many shells there are, how the song goes), and a change is told again soon after ("Now she had five shells").
"""

from collections.abc import Callable

from .teller import Person, Teller
from .words import COUNTED, NUMBERS, PACKED, PLACES, SONG_WORDS, SPOTS, amount, enumerate_words, with_article


def opening(teller: Teller) -> None:
    event = "open_one_day" if teller.chance(0.45) else "open_once" if teller.chance(0.7) else "open"
    hero, introduction = teller.person()
    place = teller.pick(tuple(PLACES))
    form = teller.say(event, hero, akind=introduction, P=place)
    if "P}" not in form:
        if teller.chance(0.3):
            teller.thing_of(hero)
        teller.say("go", hero, P=place)
    teller.place = place
    look_around(teller)
    if teller.chance(0.35):
        teller.thing_of(hero)
    if teller.chance(0.75):
        company(teller)


def look_around(teller: Teller) -> None:
    if teller.place in teller.described or teller.chance(0.7):
        return
    teller.described.add(teller.place)
    teller.say(teller.pick(("place", "sky")))


def company(teller: Teller) -> None:
    if len(teller.cast) > 2:
        return
    host = teller.pick(teller.cast)
    guest, introduction = teller.person()
    if teller.chance(0.6):
        teller.say("meet", host, guest, akind=introduction)
    else:
        teller.say("come", guest, akind=introduction)
    if teller.chance(0.5):
        teller.say("greet", host, guest)
        if teller.chance(0.5):
            teller.say("greet", guest, host)
    if teller.chance(0.3):
        teller.say("how", guest, host)
        teller.say("well", host, guest)


def hand_over(teller: Teller) -> None:
    giver = teller.pick(teller.cast)
    taker = teller.pick(teller.others(giver))
    thing = teller.thing_of(giver)
    way = teller.pick(("ask", "ask", "offer", "give"))
    if way == "ask":
        teller.say("ask", taker, giver, X=thing)
        if teller.chance(0.25):
            teller.say("no", giver, taker)
            teller.say("sad", taker) if teller.chance(0.5) else keep(teller, thing, giver)
            return
        teller.say("yes", giver, taker)
    if way == "offer":
        teller.say("offer", giver, taker, X=thing)
        if teller.chance(0.25):
            teller.say("decline", taker, giver)
            keep(teller, thing, giver)
            return
        teller.say("accept", taker, giver)
    pass_on(teller, thing, giver, taker)
    if teller.chance(0.6):
        teller.say("thank", taker, giver)
    after = teller.rng.random()
    if after < 0.25:
        teller.say("has", taker, X=thing)
    elif after < 0.5:
        teller.say("glad", taker)
    elif after < 0.7:
        ask_who(teller, thing)


def pass_on(teller: Teller, thing: str, giver: Person, taker: Person) -> None:
    teller.say("give", giver, taker, X=thing)
    teller.holder[thing] = taker
    teller.outcome = lambda: teller.say("home_thing", taker, X=thing)


def keep(teller: Teller, thing: str, giver: Person) -> None:
    teller.say("keep", giver, X=thing)
    teller.outcome = lambda: teller.say("home_thing", giver, X=thing)


def ask_who(teller: Teller, thing: str) -> None:
    holder = teller.holder[thing]
    asker = teller.pick(teller.others(holder))
    teller.say("who", asker, X=thing)
    witnesses = teller.others(holder, asker)
    if witnesses and teller.chance(0.5):
        teller.say("other_has", teller.pick(witnesses), holder)
    else:
        teller.say("i_have", holder)


def travel(teller: Teller) -> None:
    teller.place = teller.pick([place for place in PLACES if place != teller.place])
    if len(teller.cast) > 1:
        teller.say("walk")
    else:
        teller.say("go", teller.cast[0])
    look_around(teller)


def search(teller: Teller) -> None:
    owner = teller.pick(teller.cast)
    thing = teller.thing_of(owner)
    teller.say("lose", owner, X=thing)
    if teller.chance(0.3):
        teller.say("sad", owner)
    spot = teller.pick(SPOTS)
    seeker = teller.pick(teller.cast)
    teller.say("look", seeker, spot=spot)
    if teller.chance(0.4):
        teller.say("not_there")
        seeker = teller.pick(teller.cast)
        teller.say("look", seeker, spot=teller.pick([other for other in SPOTS if other != spot]))
    teller.say("there", X=thing)
    teller.holder[thing] = seeker
    teller.outcome = lambda: teller.say("home_thing", owner, X=thing)
    if seeker != owner:
        pass_on(teller, thing, seeker, owner)
        if teller.chance(0.6):
            teller.say("thank", owner, seeker)
    elif teller.chance(0.4):
        teller.say("glad", owner)


def count(teller: Teller) -> None:
    who = teller.pick(teller.cast)
    kind = teller.pick([kind for kind in COUNTED if not any(kind == other for _, other in teller.counts)])
    number = 1 + int(4 * teller.rng.random())
    teller.say("find", who, nT=amount(number, kind))
    while teller.chance(0.55) and number < 7:
        new = 1 + int(3 * teller.rng.random())
        teller.say("more", who, n=NUMBERS[new - 1])
        number += new
        teller.say("total", who, nT=amount(number, kind))
    if number > 2 and teller.chance(0.4):
        teller.say("aloud", who, seq=", ".join(NUMBERS[:number]).capitalize())
    if number > 1 and teller.chance(0.25):
        lost = 1 + int(min(3, number - 1) * teller.rng.random())
        teller.say("drop", who, n=NUMBERS[lost - 1], T=kind)
        number -= lost
        teller.say("left", who, nT=amount(number, kind))
    teller.counts[who.name, kind] = number
    if number > 1 and len(teller.cast) > 1 and teller.chance(0.5):
        share(teller, who, kind)
    teller.outcome = lambda: teller.say("home_amount", who, nT=amount(teller.counts[who.name, kind], kind))


def share(teller: Teller, who: Person, kind: str) -> None:
    """Give some of the counted things away, but not all, tell how many are left, and ask how many there are."""
    friend = teller.pick(teller.others(who))
    has = teller.counts[who.name, kind]
    given = 1 + int(min(3, has - 1) * teller.rng.random())
    teller.say("give_some", who, friend, nT=amount(given, kind))
    teller.counts[who.name, kind] = has - given
    teller.counts[friend.name, kind] = given
    if teller.chance(0.4):
        teller.say("thank", friend, who)
    teller.say("left", who, nT=amount(has - given, kind))
    if teller.chance(0.4):
        asked = teller.pick((who, friend))
        teller.say("how_many", teller.pick(teller.others(asked)), asked, T=kind)
        teller.say("i_count", asked, nT=amount(teller.counts[asked.name, kind], kind))


def new_song(teller: Teller) -> None:
    if teller.song is None:
        words: list[str] = []
        for _ in range(3 + int(4 * teller.rng.random())):
            words.append(teller.pick([word for word in SONG_WORDS if word not in words]))
        teller.song = " ".join(words)
        teller.say("song", teller.pick(teller.cast), R=teller.song)
    sing(teller)
    if teller.chance(0.3):
        sing(teller)


def sing(teller: Teller) -> None:
    ways: list[Callable[[], str]] = [
        lambda: teller.say("again", teller.pick(teller.cast), R=teller.song),
        lambda: teller.say("echo", R=teller.song),
    ]
    if len(teller.cast) > 1:
        ways.append(lambda: teller.say("choir", R=teller.song))
    teller.pick(ways)()


def pack(teller: Teller) -> None:
    if teller.bag:
        return
    for step in range(2 + int(2 * teller.rng.random())):
        thing = with_article(teller.new_thing(PACKED))
        teller.bag.append(thing)
        teller.say("put" if step else "bag", teller.pick(teller.cast), aX=thing)
    teller.say("bag_holds", list=enumerate_words(teller.bag))


def ending(teller: Teller) -> None:
    if len(teller.paragraphs[-1]) > 2:
        teller.paragraphs.append([])
    homes = [lambda: teller.say("home_alone", teller.pick(teller.cast))]
    if len(teller.cast) > 1:
        homes += [lambda: teller.say("home")] * 2
    if teller.outcome:
        homes += [teller.outcome] * 4
    if teller.song:
        homes += [lambda: teller.say("home_song", teller.pick(teller.cast), R=teller.song)] * 3
    teller.pick(homes)()
    hero = teller.cast[0]
    closings = [lambda: teller.say("close")] * 2
    if teller.holder:
        closings += [lambda: teller.say("close_story", hero, X=teller.pick(list(teller.holder)))]
    else:
        closings += [lambda: teller.say("close_story", hero)]
    if len(teller.cast) > 1:
        friend = teller.pick(teller.others(hero))
        closings += [lambda: teller.say("close_friends", hero, friend)] * 2
    teller.pick(closings)()
