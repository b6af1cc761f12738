"""One input and what must come of it, and what is wrong with what came."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# The tables of what is wrong with files lie beside the tests on those files.
for _folder in ("weights", "tokenizer", "traces", "generation"):
    sys.path.append(str(Path(__file__).resolve().parent.parent / _folder))

#: Some key, whichever.
ANY = "(some key)"
#: The file under the name that was given, which may be no path, or none at all.
AS_GIVEN = "(as given)"

#: What is promised beyond the reading of the bytes themselves.
SECONDS, MEGABYTES = 2.0, 64


@dataclass(frozen=True)
class Refusal:
    """The one error that a bad input must give.

    Attributes:
        error: the class, as its name.
        file: the file that it names, below the case's folder; None where no file is at fault.
        key: the key that it names; None where there is none, as in a file that is no JSON; ``ANY`` for some.
        words: a part of the whole text of the error.
        unsaid: those of ``expected`` and ``actual`` that cannot be said.
    """

    error: str
    file: str | None = None
    key: str | None = None
    words: str = ""
    unsaid: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        concern: which kind of input it is; a line of the summary.
        name: what is special about it.
        make: puts files into an empty folder.
        use: what a person does with them. For a good input it raises AssertionError if the result is not as meant.
        refusal: what must come of it; None for a good input, which must be accepted.
    """

    concern: str
    name: str
    make: Callable[[Path], Any] = field(repr=False)
    use: Callable[[Path], Any] = field(repr=False)
    refusal: Refusal | None = None

    @property
    def id(self) -> str:
        return f"{self.concern}: {self.name}"


@dataclass(frozen=True)
class Verdict:
    """What came of an input in a process of its own.

    Attributes:
        outcome: ``accepted``, ``refused`` (a LlamaCoreError), ``raised`` (any other exception), ``killed``, ``hung``.
        error: the class of the exception, or the signal. facts: file, key, expected, actual, hint of a refusal.
        text: the whole error, or the end of the traceback.
        seconds: of the processor. megabytes: the most memory that it had more than before.
        ran: something in the input was run as a program.
    """

    outcome: str
    error: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0
    ran: bool = False


def complaints(case: Case, verdict: Verdict, place: Path) -> list[str]:
    """What is not as promised, in sentences; ``place`` is the folder that the case was made in."""
    found = ["something in the input was run"] if verdict.ran else []
    if case.refusal is None:
        if verdict.outcome != "accepted":
            found.append(f"a good input was {verdict.outcome}: {verdict.error}: {verdict.text}")
        return found
    if verdict.outcome != "refused":
        return [*found, f"it was {verdict.outcome}: {verdict.error} {verdict.text}"]
    wanted, facts = case.refusal, verdict.facts
    file = None if wanted.file is None else str(place / wanted.file)
    if wanted.file == AS_GIVEN:
        file = facts.get("file")
    for what, expected, actual in (
        ("error", wanted.error, verdict.error),
        ("file", file, facts["file"]),
        ("key", wanted.key, facts["key"]),
    ):
        if expected != actual and not (expected == ANY and actual):
            found.append(f"{what} is {actual!r}, expected {expected!r}")
    for fact in ("expected", "actual"):
        if (facts[fact] in (None, "")) != (fact in wanted.unsaid):
            found.append(f"{fact} is {facts[fact]!r}")
    if wanted.words not in verdict.text:
        found.append(f"it does not say {wanted.words!r}")
    if len(verdict.text) > 4000:
        found.append(f"it has {len(verdict.text)} characters")
    if verdict.seconds > SECONDS:
        found.append(f"it took {verdict.seconds:.1f} s")
    if verdict.megabytes > MEGABYTES:
        found.append(f"it took {verdict.megabytes:.0f} MB")
    return found if not found else [*found, verdict.text]
