"""One error family. Whoever sees one of these should be able to mend their input without a stack trace."""

from __future__ import annotations

from typing import Any


class LlamaCoreError(ValueError):
    """What was found, what was expected, where, and what to do.

    Args:
        message: one sentence for the person who must act.
        file: the file that the problem is in.
        key: the tensor, JSON key, argument or activation that it concerns.
        expected: what would have been right.
        actual: what was found.
        hint: what to do about it.
    """

    def __init__(
        self,
        message: str,
        *,
        file: Any = None,
        key: Any = None,
        expected: Any = None,
        actual: Any = None,
        hint: str | None = None,
    ):
        self.message = message
        self.file = None if file is None else str(file)
        self.key = key
        self.expected = expected
        self.actual = actual
        self.hint = hint
        super().__init__(message)

    def __str__(self) -> str:
        facts = {
            "file": self.file,
            "key": self.key,
            "expected": self.expected,
            "actual": self.actual,
            "hint": self.hint,
        }
        return "\n".join([self.message, *(f"  {name}: {fact}" for name, fact in facts.items() if fact is not None)])


def check_kind(value: Any, kind: type, key: str, error: type[LlamaCoreError], hint: str) -> None:
    """Raises ``error`` for anything but a ``kind`` or None."""
    if not isinstance(value, kind | None):
        raise error(
            f"{key} is no {kind.__name__}",
            key=key,
            expected=f"{kind.__name__}, or None",
            actual=type(value).__name__,
            hint=hint,
        )


class ConfigError(LlamaCoreError):
    """A hyper-parameter is missing, mistyped, impossible or not supported."""


class WeightsError(LlamaCoreError):
    """A model folder, one of its files or one of its tensors is not what it must be."""


class TokenizerError(LlamaCoreError):
    """A vocabulary cannot be read, or a text or id cannot be converted."""


class InputError(LlamaCoreError):
    """Ids, positions, masks or tensors handed to the model do not fit it."""


class CacheError(LlamaCoreError):
    """A KV cache does not fit the model, the batch or the number of new tokens."""


class GenerationError(LlamaCoreError):
    """A sampling or generation parameter is out of range."""


class CaptureError(LlamaCoreError):
    """A pattern names no activation, or a replacement does not fit the tensor it replaces."""


class CheckpointError(LlamaCoreError):
    """A gate is asked for something that does not exist, or an implementation cannot be loaded or run."""


class TraceError(LlamaCoreError):
    """A trace, a map of names or a comparison of traces is not what it must be."""
