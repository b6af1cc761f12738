"""A map for a candidate whose names and axes are not ours, from the shapes and values of both traces.

Each of their tensors is laid out in every way that its shape allows as one of ours, and held to the golden values. A
candidate may be wrong somewhere, so not equality decides but the cosine; and of names that differ in the layer's number
only, the layers that agree best speak, as those before the first mistake do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from os import PathLike

import numpy as np

from llama_core.checkpoints.compare import HIDDEN
from llama_core.config import ROPE_LAYOUTS
from llama_core.names import ACTIVATIONS
from llama_core.traces.align import Golden, level, short, to_rows
from llama_core.traces.candidate import ROTARY, in_layout, open_unmapped
from llama_core.traces.format import TensorRecord, known_axes
from llama_core.traces.maps import Rule, convert, to_toml
from llama_core.traces.read import Trace
from llama_core.traces.suggest_axes import arrangements, unlike

#: A match is sure where 1 - cosine is at most this, and at least ten times as much for any other of our names.
_SURE, _CLEARLY = 1e-3, 10.0
#: Less like than this is not worth telling.
_NEAR = 0.2
#: A factor within this of 1 is 1.
_ONE = 1e-2
#: In place of a distance: one call that shows it is enough, as decode steps hide nothing from anybody.
_IMPOSSIBLE = (np.inf, 1.0)
#: Layers and calls that are looked at, from either end.
_LAYERS, _CALLS = 4, 2


@dataclass(frozen=True)
class Match:
    """One of their names as one of ours: the rule that makes it so, and 1 - cosine."""

    rule: Rule
    distance: float

    @property
    def rank(self) -> tuple:
        """The nearest first; of equals, what changes least."""
        return round(self.distance, 9), self.plainness

    @property
    def plainness(self) -> tuple:
        return unlike(self.rule.axes, known_axes(self.rule.ours.format(n=0))), bool(self.rule.layout)


@dataclass(frozen=True)
class Suggestion:
    """What is proposed.

    Attributes:
        rules: those that are sure.
        unsure: rules that a mistake of the candidate would need as well: told, not proposed.
        notes: their name -> why there is no rule for it, or what to know of the one that there is.
    """

    rules: list[Rule]
    unsure: list[Rule] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def to_toml(self) -> str:
        """The text of a map, for ``read_map``; what is not sure stands in comments."""
        return to_toml(self.rules, self.unsure, self.notes)


def suggest_map(golden: str | PathLike[str] | Trace, candidate: str | PathLike[str] | Trace) -> Suggestion:
    """Propose a map from a candidate's names and axes to ours.

    Raises:
        TraceError: when a trace cannot be read, or the golden one does not state its model's configuration.
    """
    right = golden if isinstance(golden, Trace) else Trace.open(golden)
    found = [_Table(right, theirs).suggest() for theirs in open_unmapped(candidate, right)]
    return max(found, key=lambda one: (len(one.rules), len(one.unsure)))


@dataclass
class _Name:
    """One of their names: ``{n}`` for the layer; ``first`` is the number of their first layer."""

    pattern: str
    records: list[tuple[int | None, TensorRecord]] = field(default_factory=list)
    first: int = 0


class _Table:
    """All of their names against all of ours."""

    def __init__(self, right: Trace, theirs: Trace):
        self.right, self.theirs, self.golden = right, theirs, Golden(right, keep=4096)
        config = right.config
        self.sizes = {
            "H": config.num_attention_heads,
            "K": config.num_key_value_heads,
            "D": config.head_dim,
            "E": config.hidden_size,
            "F": config.intermediate_size,
            "V": config.vocab_size,
        }
        self.layers = config.num_hidden_layers
        self.values: dict[tuple[str, int], np.ndarray | None] = {}
        self.wanted: dict[tuple[str, int], tuple | None] = {}

    def suggest(self) -> Suggestion:
        names = self._names()
        matches = {name.pattern: self._matches(name) for name in names}
        # The surest first: of two of theirs that fit one of ours, the better has it.
        names.sort(key=lambda name: matches[name.pattern][0].rank if matches[name.pattern] else (9.0,))
        found, taken = Suggestion([]), set()
        for name in names:
            fitting = [match for match in matches[name.pattern] if match.rule.ours not in taken]
            rule = self._decide(name, fitting, matches[name.pattern], found)
            if rule is not None:
                taken.add(rule.ours)
        order = list(ACTIVATIONS)
        for rules in (found.rules, found.unsure):
            rules.sort(key=lambda rule: (order.index(re.sub(r"(?<=layers\.)(\{n\}|\d+)", "N", rule.ours)), rule.theirs))
        return found

    def _decide(self, name: _Name, fitting: list[Match], every: list[Match], found: Suggestion) -> Rule | None:
        """Put the best match where it belongs; its rule if it is sure."""
        if not fitting or fitting[0].distance > _SURE:
            found.notes[name.pattern] = _why(fitting, every)
            return None
        best, *others = fitting
        rivals = [match for match in others if match.distance < max(best.distance, 1e-9) * _CLEARLY]
        equal = [match for match in rivals if abs(match.distance - best.distance) <= 1e-9 + 1e-3 * best.distance]
        if len(equal) < len(rivals) or any(match.plainness == best.plainness for match in equal):
            found.notes[name.pattern] = f"not sure: {' or '.join(m.rule.ours for m in (best, *rivals))}"
            return None
        if equal:
            also = " and ".join(match.rule.ours for match in equal)
            found.notes[name.pattern] = f"{best.rule.ours}; the same values would fit {also}"
        rules = _of_layers(best.rule, name, self.layers)
        if best.rule.times != 1:
            text = f"{best.rule.ours} times {1 / best.rule.times:.6g}; take the rule below only if that is meant"
            found.notes[name.pattern] = f"not sure: {text}"
            found.unsure.extend(rules)
            return None
        found.rules.extend(rules)
        return best.rule

    def _names(self) -> list[_Name]:
        """Their names, with the layers and calls that are looked at."""
        every = sorted({record.name for record in self.theirs.records.values()})
        found: dict[str, _Name] = {}
        for record in self.theirs.records.values():
            pattern, number, first = _pattern(record.name, every, self.layers)
            found.setdefault(pattern, _Name(pattern, first=first)).records.append((number, record))
        for name in found.values():
            layers = _ends(sorted({number for number, _ in name.records if number is not None}), _LAYERS)
            calls = _ends(sorted({record.call for _, record in name.records}), _CALLS)
            name.records = [
                (number, record)
                for number, record in name.records
                if record.call in calls and (number is None or number in layers)
            ]
        return list(found.values())

    def _matches(self, name: _Name) -> list[Match]:
        """What one of their names may be, the best first: each of ours once."""
        found = []
        for ours in ACTIVATIONS:
            in_layers = ours.startswith("layers.")
            if in_layers == (name.records[0][0] is not None):
                match = self._best(name, ours.replace("N", "{n}", 1) if in_layers else ours)
                if match is not None and match.distance < _NEAR:
                    found.append(match)
        return sorted(found, key=lambda match: match.rank)

    def _best(self, name: _Name, ours: str) -> Match | None:
        """The axes and layout under which they fit one of ours best."""
        ways: dict[tuple[str, str], list[tuple[float, float] | None]] = {}
        for number, record in name.records:
            full = ours if number is None else ours.format(n=number)
            for axes, layout in self._ways(record, full):
                one = self._score(record, Rule(record.name, full, axes, layout))
                ways.setdefault((axes, layout), []).append(one)
        found = []
        for (axes, layout), scored in ways.items():
            known = sorted(pair for pair in scored if pair is not None)
            if len(scored) < len(name.records) or not known or known[-1] == _IMPOSSIBLE:
                continue  # in one of the calls or layers it cannot be
            best = known[: max(1, len(known) // 4)]
            distance, times = (float(figure) for figure in np.mean(best, axis=0))
            if times > 0:
                times = 1.0 if abs(times - 1) < _ONE else float(f"{times:.9g}")
                found.append(Match(Rule(name.pattern, ours, axes, layout, times), distance))
        return min(found, key=lambda match: match.rank, default=None)

    def _ways(self, record: TensorRecord, ours: str) -> list[tuple[str, str]]:
        call = self.theirs.calls[record.call]
        own = {
            "B": call.positions.shape[0],
            "S": call.positions.shape[1] if record.rows is None else len(record.rows),
            "T": call.key_positions.shape[1],
        }
        layouts = [""]
        if short(ours) in ROTARY:
            layouts += [layout for layout in ROPE_LAYOUTS if layout != self.right.manifest.rope_layout]
        return [(a, x) for a in arrangements(known_axes(ours), record.shape, self.sizes | own) for x in layouts]

    def _score(self, record: TensorRecord, rule: Rule) -> tuple[float, float] | None:
        """1 - cosine, and the factor that makes theirs ours; None where there is nothing to hold it to."""
        key = record.name, record.call
        if key not in self.values:
            self.values[key] = self.theirs.values(*key)
        values = self.values[key]
        if values is None:
            return None
        if (values.dtype.kind != "f") != (rule.ours in ("input_ids", "position_ids")):
            return 1.0, 1.0
        mine = convert(rule, rule.ours, values, self.right)
        mine = in_layout(rule.ours, mine, self.theirs.manifest.rope_layout, self.right.manifest.rope_layout)
        facts = self.theirs.calls[record.call]
        found = to_rows(known_axes(rule.ours), mine, facts, record.rows, width=self.golden.width)
        if short(rule.ours) == "scores" and (found.values <= HIDDEN).any():
            return _IMPOSSIBLE  # after the mask
        wanted = rule.ours, record.call
        if wanted not in self.wanted:
            self.wanted[wanted] = self.golden.matching(rule.ours, found)
        if self.wanted[wanted] is None:
            return None
        have, right_rows = self.wanted[wanted]
        a, b, _ = level(rule.ours, found.only(have), right_rows)
        return _distance(a, b) if values.dtype.kind == "f" else (float((a != b).mean()), 1.0)


def _distance(a: np.ndarray, b: np.ndarray) -> tuple[float, float] | None:
    a, b = a.astype(np.float64), b.astype(np.float64)
    hidden = np.isneginf(b)
    if (hidden & ~(a <= HIDDEN)).any() or (np.isneginf(a) & ~hidden).any():
        return _IMPOSSIBLE  # one side is masked, the other is not
    seen = np.isfinite(a) & np.isfinite(b)
    x, y = a[seen], b[seen]
    size = float(np.sqrt((x @ x) * (y @ y)))
    return (max(1 - float(x @ y) / size, 0.0), float(x @ y) / float(x @ x)) if size else None


def _why(fitting: list[Match], every: list[Match]) -> str:
    if not every:
        return "fits none of our activations"
    best = fitting[0] if fitting else every[0]
    if best.distance <= _SURE:
        return f"fits {best.rule.ours}, which another of the candidate's tensors fits as well or better"
    return f'not sure: most like {best.rule.ours} as "{best.rule.axes}", cosine {1 - best.distance:.4f}'


def _of_layers(rule: Rule, name: _Name, layers: int) -> list[Rule]:
    """One rule; or one for each layer where theirs do not count from 0."""
    if not name.first or "{n}" not in rule.ours:
        return [rule]
    return [
        replace(rule, theirs=name.pattern.replace("{n}", str(n + name.first)), ours=rule.ours.format(n=n))
        for n in range(layers)
    ]


def _ends(numbers: list[int], most: int) -> set[int]:
    """Some of the first and the last."""
    return set(numbers[: most - 1] + numbers[-1:])


def _pattern(name: str, names: list[str], layers: int) -> tuple[str, int | None, int]:
    """``blk.3.q`` -> (``blk.{n}.q``, layer 3, first layer 0): by the number in which most names differ."""
    best: tuple[int, str, int | None, int] = (0, name, None, 0)
    for found in re.finditer(r"(?<!\d)(0|[1-9]\d{0,3})(?!\d)", name):
        before, after = name[: found.start()], name[found.end() :]
        form = re.compile(re.escape(before) + r"(0|[1-9]\d{0,3})" + re.escape(after))
        numbers = {int(other[1]) for one in names if (other := form.fullmatch(one))}
        first = 1 if numbers == set(range(1, layers + 1)) else 0
        if len(numbers) > best[0] and max(numbers) - first < layers:
            best = len(numbers), f"{before}{{n}}{after}", int(found[0]) - first, first
    return best[1:]
