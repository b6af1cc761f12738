"""Typed access to the values of a JSON object: a wrong type is an error with file and key, never a conversion."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from llama_core.errors import ConfigError
from llama_core.weights.strict_json import describe_value

_REQUIRED = object()


class Values:
    """The values of one object of a configuration file.

    Args:
        values: the object.
        file: the file that it stands in.
        prefix: where it stands, such as ``"rope_scaling."``, for errors.
    """

    def __init__(self, values: dict[str, Any], file: Path, prefix: str = ""):
        self.values, self.file, self.prefix = values, file, prefix

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def error(self, key: str, message: str, expected: str, hint: str | None = None, **actual: Any) -> ConfigError:
        """A ConfigError about one key; ``actual`` is its value unless given."""
        found = actual.get("actual") or (describe_value(self.values[key]) if key in self.values else "nothing")
        return ConfigError(message, file=self.file, key=self.prefix + key, expected=expected, actual=found, hint=hint)

    def count(self, key: str, default: Any = _REQUIRED) -> Any:
        """A whole number from 1 to 2³¹ − 1. 32.0, "32" and true are none."""
        return self._get(key, default, lambda v: _is_whole(v) and 0 < v < 2**31, "a whole number from 1 to 2147483647")

    def token_id(self, key: str, default: Any = None) -> int | None:
        """A token id, or null; −1 means none, as some files write it."""
        value = self._get(key, default, lambda v: _is_whole(v) and -1 <= v < 2**31, "a token id (a whole number ≥ 0)")
        return None if value == -1 else value

    def token_ids(self, key: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Token ids: null, one, or a list of them; each once, in their order. ``default`` where the key is absent."""
        if key not in self.values:
            return default
        if not isinstance(self.values[key], list):
            one = self.token_id(key)
            return () if one is None else (one,)
        for value in self.values[key]:
            if not (_is_whole(value) and 0 <= value < 2**31):
                raise self.error(
                    key,
                    f"{self.prefix}{key} holds {describe_value(value)}",
                    "token ids (whole numbers ≥ 0)",
                    actual=f"a list with {describe_value(value)}",
                )
        return tuple(dict.fromkeys(self.values[key]))

    def positive(self, key: str, default: Any = _REQUIRED) -> Any:
        """A finite number above zero, as a float."""
        value = self._get(key, default, _is_positive, "a finite number > 0")
        return float(value) if _is_number(value) else value

    def flag(self, key: str, default: Any = _REQUIRED) -> Any:
        """true or false."""
        return self._get(key, default, lambda v: isinstance(v, bool), "true or false")

    def choice(self, key: str, allowed: tuple[str, ...], default: Any = _REQUIRED, hint: str | None = None) -> Any:
        """One of a few strings."""
        return self._get(key, default, lambda v: isinstance(v, str) and v in allowed, " | ".join(allowed), hint)

    def section(self, key: str) -> Values | None:
        """A nested object, or None where it is null or absent."""
        value = self._get(key, None, lambda v: isinstance(v, dict), "an object or null")
        return None if value is None else Values(value, self.file, f"{self.prefix}{key}.")

    def _get(self, key, default, accept, expected, hint=None):
        value = self.values.get(key)
        if value is None:
            if default is _REQUIRED:
                name = self.prefix + key
                how = "null" if key in self.values else "missing"
                raise self.error(key, f"{name} is {how}", expected, hint or "every Llama states it; nothing is assumed")
            return default
        if not accept(value):
            raise self.error(key, f"{self.prefix}{key} is {describe_value(value)}", expected, hint)
        return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    if not _is_number(value):
        return False
    try:
        return math.isfinite(float(value)) and value > 0
    except OverflowError:  # a whole number beyond the range of floats
        return False
