"""JSON from people we do not know: one object, no key twice, no NaN, nothing nested without end, nothing huge."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llama_core.errors import LlamaCoreError

#: Values in a document. Each may take 300 bytes once it is read, so a file of brackets would grow thirtyfold. The
#: largest Llama's header and index have some ten thousand.
MAX_VALUES = 200_000


@dataclass(frozen=True)
class _Constant:
    """NaN or an infinity, until it is known under which key it stands."""

    name: str


def parse_object(text: bytes, file: Any, error: type[LlamaCoreError], max_values: int = MAX_VALUES) -> dict[str, Any]:
    """The JSON object that ``text`` holds.

    Args:
        text: the bytes of the document, UTF-8.
        file: named in errors.
        error: the class of the errors to raise.
        max_values: refuse, before it is read, a document with more commas and brackets than this.

    Raises:
        error: for anything but one JSON object whose keys are all different. Python's parser would keep the last of
            two equal keys, and reads NaN and Infinity, which are no JSON.
    """
    values = sum(text.count(mark) for mark in (b",", b"[", b"{"))
    if values > max_values:
        raise error(
            f"the file holds about {values:,} values",
            file=file,
            expected=f"at most {max_values:,} values",
            actual=f"{values:,} commas and brackets",
            hint="no Llama needs so many; this file is something else",
        )
    constants: list[_Constant] = []

    def constant(name: str) -> _Constant:
        constants.append(_Constant(name))
        return constants[-1]

    try:
        value = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=lambda pairs: _checked(pairs, file, error),
            parse_constant=constant,
        )
        if constants:  # somewhere in a list
            raise _no_number(constants[0], None, file, error)
    except LlamaCoreError:
        raise
    except UnicodeDecodeError as e:
        raise error(
            f"byte {e.start} is not UTF-8", file=file, expected="JSON in UTF-8", actual=f"byte 0x{text[e.start]:02x}"
        ) from e
    except json.JSONDecodeError as e:
        raise error(
            f"not JSON: {e.msg} in line {e.lineno}, column {e.colno}",
            file=file,
            expected="a JSON object",
            actual=excerpt(text, e.pos),
            hint="the file may be cut off or may have been replaced; fetch it again",
        ) from e
    except RecursionError as e:
        raise error(
            "brackets are nested too deep", file=file, expected="a few levels", actual="hundreds or more"
        ) from e
    except ValueError as e:  # a whole number of more than 4,300 digits
        actual = f"{len(text):,} bytes with a number of thousands of digits in it"
        raise error(
            f"a number cannot be read: {e}", file=file, expected="numbers of ordinary size", actual=actual
        ) from e
    if not isinstance(value, dict):
        raise error(
            f"the file holds {describe_value(value)}, not an object",
            file=file,
            expected="a JSON object, { … }",
            actual=describe_value(value),
        )
    return value


def describe_value(value: Any, limit: int = 80) -> str:
    """A JSON value with its type, short enough for an error: ``the string "32"``, ``a list of 3``."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return f"an object with {len(value)} keys"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, str):
        return f"the string {_shorten(json.dumps(value), limit)}"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"a whole number of {value.bit_length()} bits"
    return f"the number {value}"


def excerpt(text: bytes, position: int = 0, length: int = 40) -> str:
    """A few characters of a document around a position, as a Python literal."""
    start = max(0, position - length // 2)
    return repr(text[start : start + length].decode("utf-8", "replace"))


def _checked(pairs: list[tuple[str, Any]], file: Any, error: Callable[..., LlamaCoreError]) -> dict[str, Any]:
    """An object of which each key is there once and no value is a constant that JSON does not know."""
    found = dict(pairs)
    for key, value in pairs:
        if type(value) is _Constant:
            raise _no_number(value, _shorten(key), file, error)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        values = " and ".join(describe_value(value) for key, value in pairs if key == twice)
        raise error(
            f"the key {_shorten(repr(twice))} is given more than once",
            file=file,
            key=_shorten(twice),
            expected="each key once",
            actual=_shorten(values),
            hint="delete all but the right one",
        )
    return found


def _no_number(value: _Constant, key: str | None, file: Any, error: Callable[..., LlamaCoreError]) -> LlamaCoreError:
    message = f"{key or 'the file'} holds {value.name}, which is no JSON number"
    return error(message, file=file, key=key, expected="finite numbers", actual=value.name)


def _shorten(text: str, limit: int = 80) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
