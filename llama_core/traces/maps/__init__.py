"""From another engine's names and axes to ours: TOML files.

``theirs`` is a name with ``{n}`` for the layer, ``ours`` the activation it is, ``axes`` their axes as an einops pattern
in our letters: ``"B H S D"`` where heads come first, ``"B S (H D)"`` where they lie side by side, ``1`` for an axis of
length one. Besides, ``layout`` says that a head's coordinates are in that rotary layout, ``times`` is a number that
makes theirs ours, and ``order = {H = [0, 2, 1, 3]}`` says that our head 1 is their head 2.
"""

from __future__ import annotations

import re
import stat
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from llama_core.config import ROPE_LAYOUTS
from llama_core.errors import TraceError
from llama_core.traces.format import TensorRecord, known_axes
from llama_core.weights.folder import file_kind, named_path

_KEYS = {"theirs", "ours", "axes", "layout", "times", "order"}
_AXES = re.compile(r"[A-Z0-9() ]+")
MAX_MAP_BYTES = 1_000_000
SHIPPED = {path.stem: path for path in Path(__file__).parent.glob("*.toml")}


@dataclass(frozen=True)
class Rule:
    """One line of a map; see the module."""

    theirs: str
    ours: str
    axes: str
    layout: str = ""
    times: float = 1.0
    order: dict[str, list[int]] = field(default_factory=dict)

    def match(self, name: str) -> str | None:
        """Our name for one of theirs; None where the rule is about another."""
        pattern = re.escape(self.theirs).replace(re.escape("{n}"), r"(?P<n>\d+)")
        found = re.fullmatch(pattern, name)
        if not found:
            return None
        return self.ours.format(n=int(found["n"])) if "n" in found.groupdict() else self.ours


class NameMap:
    """Rules from another engine's names to ours; the first that fits counts. Where two of their tensors are the same of
    ours by different rules, the one of the earlier rule counts, and the other keeps its name."""

    def __init__(self, rules: list[Rule]):
        self.rules = rules

    def find(self, name: str) -> tuple[Rule, str] | None:
        for rule in self.rules:
            if ours := rule.match(name):
                return rule, ours
        return None

    def _is_behind(self, found: tuple[Rule, str], name: str, names: set[str]) -> bool:
        """Whether an earlier rule has another of these names for the same tensor of ours."""
        others = (self.find(other) for other in names if other != name)
        before = self.rules[: self.rules.index(found[0])]
        return any(other[1] == found[1] and other[0] in before for other in others if other)

    def axes_of(self, name: str) -> str:
        found = self.find(name)
        return known_axes(found[1]) if found else ""

    def length_of(self, name: str, shape: tuple[int, ...]) -> int | None:
        """How many query positions a tensor of theirs holds, where an axis of its own says so."""
        found = self.find(name)
        dims = re.findall(r"\([^)]*\)|\S+", found[0].axes) if found else []
        return shape[dims.index("S")] if "S" in dims and len(dims) == len(shape) else None

    def apply(self, trace, golden):
        """The trace under our names, with our axes. Names without a rule stay as they are."""
        from llama_core.traces.candidate import changed

        records: list[TensorRecord] = []
        origin: dict[tuple[str, int], tuple[TensorRecord, Rule | None]] = {}
        load = trace._load
        names = {record.name for record in trace.manifest.tensors}
        for record in trace.manifest.tensors:
            found = self.find(record.name)
            if found and self._is_behind(found, record.name, names):
                found = None
            ours = found[1] if found else record.name
            if (ours, record.call) in origin:
                raise TraceError(
                    f"{record.name} and {origin[ours, record.call][0].name} are both {ours}",
                    key=ours,
                    expected="one tensor for each of our names",
                )
            shape, axes = record.shape, record.axes
            if found:
                sizes = _sizes(golden.config)
                shape, axes = _shape(found[0], record, sizes), known_axes(ours)
            made = replace(record, name=ours, shape=shape, axes=axes if len(axes.split()) == len(shape) else "")
            origin[ours, record.call] = (record, found[0] if found else None)
            records.append(made)

        def in_ours(made: TensorRecord) -> np.ndarray:
            record, rule = origin[made.name, made.call]
            values = load(record)
            return values if rule is None else convert(rule, made.name, values, golden)

        return changed(trace, trace.calls, records, in_ours)


def convert(rule: Rule, name: str, values: np.ndarray, golden) -> np.ndarray:
    """Their values as ours."""
    from llama_core.layers.rope import layout_permutation

    letters = known_axes(name).split()
    values = _rearrange(values, rule, letters, _sizes(golden.config))
    if rule.layout and rule.layout != golden.manifest.rope_layout:
        values = values[..., layout_permutation(values.shape[-1], rule.layout, golden.manifest.rope_layout)]
    for letter, order in rule.order.items():
        axis = letters.index(letter)
        if len(order) != values.shape[axis]:
            raise TraceError(
                f"the order of {letter} for {rule.theirs} has {len(order)} numbers",
                key=rule.ours,
                expected=f"{values.shape[axis]}, as many as {name} has of {letter}",
                actual=order if len(order) <= 16 else f"{len(order)} numbers",
            )
        values = np.take(values, order, axis=axis)
    return values if rule.times == 1 else values * rule.times


def _sizes(config) -> dict[str, int]:
    return {"H": config.num_attention_heads, "K": config.num_key_value_heads, "D": config.head_dim}


def _rearrange(values: np.ndarray, rule: Rule, letters: list[str], sizes: dict[str, int]) -> np.ndarray:
    from einops import EinopsError, rearrange

    left, right = _pattern(rule, letters)
    known = {letter: size for letter, size in sizes.items() if letter in left}
    try:
        return np.ascontiguousarray(rearrange(values, f"{left} -> {right}", **known))
    except (EinopsError, ValueError) as e:
        raise TraceError(
            f"{rule.theirs} does not have the axes {rule.axes!r}",
            key=rule.ours,
            expected=f"axes {rule.axes}, with {', '.join(f'{a}={n}' for a, n in known.items())}",
            actual=list(values.shape),
        ) from e


def _pattern(rule: Rule, letters: list[str]) -> tuple[str, str]:
    """Both sides for einops; what their side lacks (a batch of one) becomes 1."""
    have = set(re.findall(r"[A-Z]", rule.axes))
    return rule.axes, " ".join(letter if letter in have else "1" for letter in letters)


def _shape(rule: Rule, record: TensorRecord, sizes: dict[str, int]) -> tuple[int, ...]:
    """The shape after the rule; theirs where the rule does not fit (then it is mis-shaped)."""
    letters = known_axes(rule.ours.format(n=0)).split()
    try:
        return _rearrange(np.broadcast_to(np.float32(0), record.shape), rule, letters, sizes).shape
    except TraceError:
        return record.shape


def read_map(source: str | PathLike[str]) -> NameMap:
    """A map that ships (``transformers``), or a TOML file.

    Raises:
        TraceError: naming the file and the rule.
    """
    shipped = SHIPPED.get(source) if isinstance(source, str) else None
    path = shipped or named_path(source, "map", TraceError)
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode) or facts.st_size > MAX_MAP_BYTES:
            kind = file_kind(facts.st_mode)
            raise TraceError(
                f"{path.name} is no map of names",
                file=path,
                key="map",
                expected=f"a regular file of at most {MAX_MAP_BYTES:,} bytes",
                actual=f"{kind}, {facts.st_size:,} bytes",
            )
        document = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError as e:
        raise TraceError(
            f"there is no map {str(source)!r}",
            file=path,
            key="map",
            expected=f"a TOML file, or one of: {', '.join(sorted(SHIPPED))}",
            actual="a broken symbolic link" if path.is_symlink() else "nothing",
        ) from e
    except (OSError, ValueError, RecursionError) as e:  # also text that is no UTF-8, and what is no TOML
        if isinstance(e, TraceError):
            raise
        reason = str(e)[:200]
        raise TraceError(
            f"{path.name} is no TOML: {reason}", file=path, key="map", expected="TOML in UTF-8", actual=reason
        ) from e
    rules = document.get("tensor")
    if document.get("version") != 1 or not isinstance(rules, list) or document.keys() - {"version", "tensor"}:
        raise TraceError(
            f"{path.name} is no map of names",
            file=path,
            key="map",
            expected="version = 1 and [[tensor]] tables",
            actual=", ".join(list(document)[:6]) or "nothing",
        )
    return NameMap([_rule(path, number, values) for number, values in enumerate(rules)])


def to_toml(rules: Sequence[Rule], unsure: Sequence[Rule], notes: Mapping[str, str]) -> str:
    """Rules as the text of a map; unsure ones and notes (their name -> text) as comments."""
    parts = ["# Proposed by llama-core compare --suggest-map. What is not sure stands in comments.\nversion = 1\n"]
    known = {rule.theirs: notes.get(rule.theirs) for rule in rules}
    for rule in rules:
        note = known[rule.theirs]
        parts.append((f"# {note}\n" if note else "") + _rule_toml(rule))
    parts += [f"# {_quoted(theirs)}: {text}\n" for theirs, text in notes.items() if theirs not in known]
    parts += [re.sub("^", "# ", _rule_toml(rule).rstrip(), flags=re.MULTILINE) + "\n" for rule in unsure]
    return "\n".join(parts)


def _rule_toml(rule: Rule) -> str:
    lines = ["[[tensor]]", f"theirs = {_quoted(rule.theirs)}", f"ours = {_quoted(rule.ours)}"]
    if rule.axes != known_axes(rule.ours.format(n=0)):
        lines.append(f"axes = {_quoted(rule.axes)}")
    if rule.layout:
        lines.append(f"layout = {_quoted(rule.layout)}")
    if rule.times != 1:
        lines.append(f"times = {rule.times!r}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML."""
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in text)
    return f'"{"".join(plain)}"'


def _rule(path: Path, number: int, values: Any) -> Rule:
    def wrong(key: str, expected: str) -> TraceError:
        actual = values.get(key, f"a table with {', '.join(values)}") if isinstance(values, dict) else values
        return TraceError(
            f"[[tensor]] number {number + 1} is not right", file=path, key=key, expected=expected, actual=actual
        )

    if not isinstance(values, dict) or values.keys() - _KEYS or not {"theirs", "ours"} <= values.keys():
        raise wrong("tensor", f"a table with theirs, ours and any of {', '.join(sorted(_KEYS))}")
    theirs, ours = values["theirs"], values["ours"]
    if not isinstance(theirs, str) or not theirs or theirs.count("{n}") != str(ours).count("{n}"):
        raise wrong("theirs", "their name, with {n} where ours has it")
    axes = known_axes(str(ours).replace("{n}", "0"))
    if not axes or "{" in str(ours).replace("{n}", ""):
        raise wrong("ours", "one of our activations, such as layers.{n}.q")
    pattern = values.get("axes", axes)
    letters = re.findall(r"[A-Z]", pattern) if isinstance(pattern, str) and _AXES.fullmatch(pattern) else []
    if len(letters) != len(set(letters)) or not set(letters) <= set(axes.split()) or not letters:
        raise wrong("axes", f"an einops pattern of {axes}")
    if set(axes.split()) - set(letters) - {"B"}:
        raise wrong("axes", f"a pattern with all of {axes} (B may be left out for a batch of one)")
    layout, times, order = values.get("layout", ""), values.get("times", 1.0), values.get("order", {})
    if layout and (layout not in ROPE_LAYOUTS or not axes.endswith("D")):
        raise wrong("layout", " | ".join(ROPE_LAYOUTS) + ", for a tensor whose last axis is D")
    number = isinstance(times, int | float) and not isinstance(times, bool) and abs(times) <= sys.float_info.max
    if not number or not times:
        raise wrong("times", "a finite number other than 0")
    ok = isinstance(order, dict) and all(
        letter in axes.split()
        and isinstance(o, list)
        and all(type(n) is int for n in o)
        and sorted(o) == list(range(len(o)))
        for letter, o in order.items()
    )
    if not ok:
        raise wrong("order", "a table from axes to permutations of 0, 1, 2 …")
    return Rule(theirs, ours, pattern, layout, float(times), order)
