"""Token ids in, text out, until a stop string comes."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from llama_core.errors import GenerationError
from llama_core.tokenizer import Tokenizer


class StopStrings:
    """Passes text on, up to the first stop string, which is cut off with all that follows.

    The first is the one that is complete first; of those that end at the same character, the longest. The end of a text
    that may become a stop string is held back until it is known, so however the text is cut into pieces, the same text
    comes out.

    Args:
        strings: one or several; none stops nothing.

    Attributes:
        found: the stop string that came, or None so far.

    Raises:
        GenerationError: one of them is no string, or empty.
    """

    def __init__(self, strings: str | Collection[str] = ()):
        self._strings = check_stop(strings)
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """What can be shown now; nothing once a stop string was found."""
        if self.found is not None:
            return ""
        self._held += text
        starts = [(self._held.find(s), s) for s in self._strings]
        ends = [(start + len(s), start, s) for start, s in starts if start >= 0]
        if ends:
            _, start, self.found = min(ends)
            shown, self._held = self._held[:start], ""
            return shown
        keep = max((self._overlap(s) for s in self._strings), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown

    def flush(self) -> str:
        """What was held back, when no more text comes."""
        shown, self._held = self._held, ""
        return shown

    def _overlap(self, string: str) -> int:
        """How many characters at the end of what is held could begin the stop string."""
        longest = min(len(string) - 1, len(self._held))
        return next((n for n in range(longest, 0, -1) if self._held.endswith(string[:n])), 0)


class TextStream:
    """The text of ids as they come, up to a stop string.

    Args:
        tokenizer: turns ids into text.
        after: the ids before, whose text is known already and is not searched.
        stop: stop strings.
    """

    def __init__(self, tokenizer: Tokenizer, after: Iterable[int] = (), stop: str | Collection[str] = ()):
        self._stop = StopStrings(stop)
        self._decoder = tokenizer.decode_stream(after)

    @property
    def stopped(self) -> str | None:
        """The stop string that came, or None so far."""
        return self._stop.found

    def push(self, token: int) -> str:
        """The text that this id lets be shown."""
        return self._stop.push(self._decoder.push(token))

    def flush(self) -> str:
        """The rest, when no more ids come."""
        return self._stop.push(self._decoder.flush()) + self._stop.flush()


def check_stop(strings: Any) -> tuple[str, ...]:
    """Stop strings as a tuple. Raises GenerationError for anything but non-empty strings."""
    if isinstance(strings, str):
        strings = (strings,)
    if not isinstance(strings, list | tuple | set | frozenset):
        raise GenerationError(
            f"stop is {strings!r}, but must be strings", key="stop", expected="one or several strings", actual=strings
        )
    for string in strings:
        if not isinstance(string, str) or not string:
            raise GenerationError(
                f"stop holds {string!r}, which cannot be found in a text",
                key="stop",
                expected="strings that are not empty",
                actual=string,
            )
    return tuple(strings)
