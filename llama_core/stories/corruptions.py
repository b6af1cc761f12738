"""Makes good stories wrong, in ways that change what they say: what `rules.violations` must notice.

Each corruption is wrong by construction and asks no judge; it returns None where a story has nothing for it to spoil.
"""

import random
import re
from collections.abc import Callable, Sequence
from typing import TypeVar

from .words import LOOKS, NAMES, NUMBERS, SONG_WORDS

T = TypeVar("T")
_NAME = "|".join(NAMES)


def corrupt(text: str, rng: random.Random, kind: str | None = None) -> str:
    """The story with one thing in it spoiled.

    Args:
        text: a good story.
        rng: chooses what to spoil.
        kind: one of `CORRUPTIONS`; by default any that applies to this story.

    Raises:
        KeyError: there is no such kind.
        ValueError: this kind finds nothing to spoil in this story.
    """
    if kind is not None:
        spoiled = CORRUPTIONS[kind](text, rng)
        if spoiled is None:
            raise ValueError(f"{kind}: this story has nothing to spoil")
        return spoiled
    kinds = list(CORRUPTIONS)
    while True:
        spoiled = CORRUPTIONS[kinds.pop(int(rng.random() * len(kinds)))](text, rng)
        if spoiled is not None:
            return spoiled


def _pick(options: Sequence[T], rng: random.Random) -> T:
    return options[int(rng.random() * len(options))]


def _replace_one(pattern: str, new: Callable[[str], str], text: str, rng: random.Random) -> str | None:
    """Replace what group 1 holds in one of the pattern's matches."""
    found = list(re.finditer(pattern, text))
    if not found:
        return None
    match = _pick(found, rng)
    return text[: match.start(1)] + new(match[1]) + text[match.end(1) :]


def _stranger(text: str, rng: random.Random) -> Callable[[str], str]:
    return lambda _: _pick([name for name in NAMES if name not in text], rng)


def stranger_speaks(text: str, rng: random.Random) -> str | None:
    """A line is said by somebody who is not in the story."""
    return _replace_one(rf"(?:said|asked) ({_NAME})\.", _stranger(text, rng), text, rng)


def stranger_acts(text: str, rng: random.Random) -> str | None:
    """Somebody who is not in the story does what a character did."""
    return _replace_one(rf"[.!\"] ({_NAME}) (?:\w+)", _stranger(text, rng), text, rng)


def pronoun_flipped(text: str, rng: random.Random) -> str | None:
    """ "He" instead of "she" or the other way round."""
    flipped = {"He": "She", "She": "He", "he": "she", "she": "he"}
    return _replace_one(r"\b(He|She|he|she)\b", flipped.__getitem__, text, rng)


def miscounted(text: str, rng: random.Random) -> str | None:
    """A total, a remainder or an answer is one too many."""
    results = r"(?:Now \w+ had|In all \w+ had|That made|left \w+ with|I have|ogether they had|ogether had) "
    numbers = "|".join(NUMBERS[1:-1])
    return _replace_one(rf"{results}({numbers})\b", lambda word: NUMBERS[NUMBERS.index(word) + 1], text, rng)


def counting_skips(text: str, rng: random.Random) -> str | None:
    """A number is left out of a counting-out."""
    return _replace_one(r'"One(, two), three', lambda _: "", text, rng)


def refrain_word_changed(text: str, rng: random.Random) -> str | None:
    """One word of the refrain is another when it comes back."""
    quotes = list(re.finditer(r'"([a-z ]+)[.!]"', text))
    if len(quotes) < 2:
        return None
    quote = _pick(quotes[1:], rng)
    words = quote[1].split(" ")
    at = int(rng.random() * len(words))
    words[at] = _pick([word for word in SONG_WORDS if word != words[at]], rng)
    return text[: quote.start(1)] + " ".join(words) + text[quote.end(1) :]


def given_by_another(text: str, rng: random.Random) -> str | None:
    """A thing is given by the one who gets it."""
    found = list(re.finditer(rf"({_NAME}) (gave|handed) the (\w+ \w+) to ({_NAME})\.", text))
    if not found:
        return None
    match = _pick(found, rng)
    return text[: match.start()] + f"{match[4]} {match[2]} the {match[3]} to {match[1]}." + text[match.end() :]


def thing_repainted(text: str, rng: random.Random) -> str | None:
    """A known thing turns into one of another look."""
    looks = "|".join(LOOKS)
    return _replace_one(rf"\bthe ({looks}) ", lambda old: _pick([new for new in LOOKS if new != old], rng), text, rng)


def _sentences(text: str) -> list[str]:
    return re.split(r"(?<=[.!?]) (?=[A-Z\"])|(?<=[.!?]\") (?=[A-Z\"])|\n", text)


def opening_moved(text: str, rng: random.Random) -> str | None:
    """The opening comes later."""
    first, *rest = _sentences(text)
    at = 1 + int(rng.random() * (len(rest) - 1))
    return " ".join([*rest[:at], first, *rest[at:]])


def answer_before_question(text: str, rng: random.Random) -> str | None:
    """An answer stands before its question."""
    sentences = _sentences(text)
    at = [i for i, sentence in enumerate(sentences) if re.search(rf'\?" asked (?:{_NAME})\.$', sentence)]
    if not at:
        return None
    question = _pick(at, rng)
    sentences[question : question + 2] = sentences[question + 1], sentences[question]
    return " ".join(sentences)


def sentence_said_twice(text: str, rng: random.Random) -> str | None:
    """The opening or the closing sentence stands there twice."""
    sentences = _sentences(text)
    at = _pick((0, len(sentences) - 1), rng)
    return " ".join([*sentences[:at], sentences[at], *sentences[at:]])


def truncated(text: str, rng: random.Random) -> str | None:
    """The story breaks off, in the middle of a sentence or between two."""
    if rng.random() < 0.5:
        return text[: int(len(text) * (0.2 + 0.75 * rng.random()))]
    sentences = _sentences(text)
    return " ".join(sentences[: 1 + int(rng.random() * (len(sentences) - 2))])


def goes_on(text: str, rng: random.Random) -> str | None:
    """The story does not stop at its end."""
    return text + _pick((" The sun was shining.", " They sang.", " Then"), rng)


CORRUPTIONS: dict[str, Callable[[str, random.Random], str | None]] = {
    corruption.__name__: corruption
    for corruption in (
        *(stranger_speaks, stranger_acts, pronoun_flipped, miscounted, counting_skips, refrain_word_changed),
        *(given_by_another, thing_repainted, opening_moved, answer_before_question, sentence_said_twice),
        *(truncated, goes_on),
    )
}
