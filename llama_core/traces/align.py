"""Values by (sequence, absolute position), whatever calls, batches and padding they came in.

A tensor becomes rows: one for each real token (for caches: for each written slot), with its heads, or a single group,
as the second axis. Keys are put at their own positions, so that the scores of a decode step lie under those of prefill.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np

from llama_core.traces.format import Call
from llama_core.traces.read import Trace

#: Bytes of a small tensor.
_SMALL = 700_000
#: What a key that a query may not see has in it.
_UNSEEN = {"scores": 0.0, "masked_scores": -np.inf, "attention_weights": 0.0}


@dataclass(frozen=True)
class Rows:
    """A tensor as rows.

    Attributes:
        sequence, position: [N] each.
        values: [N, G, W]: G heads (1 where there are none), W entries each; for scores, W counts key positions.
        present: [N, W] which keys there are, for tensors over keys; else None.
        heads: ``H``, ``K`` or "".
    """

    sequence: np.ndarray
    position: np.ndarray
    values: np.ndarray
    present: np.ndarray | None
    heads: str

    def only(self, kept: np.ndarray | slice) -> Rows:
        """Some of the rows."""
        if isinstance(kept, np.ndarray) and kept.dtype == bool and kept.all():
            return self
        present = None if self.present is None else self.present[kept]
        return Rows(self.sequence[kept], self.position[kept], self.values[kept], present, self.heads)


def short(name: str) -> str:
    """``layers.3.q`` as ``q``."""
    return name.split(".", 2)[-1] if name.startswith("layers.") else name


def tokens_of(trace: Trace) -> dict[int, dict[int, int]]:
    """Sequence -> position -> id."""
    found: dict[int, dict[int, int]] = {}
    for call in trace.calls:
        for row, sequence in enumerate(call.sequences):
            for position, token in zip(call.positions[row].tolist(), call.input_ids[row].tolist(), strict=True):
                if position >= 0:
                    found.setdefault(sequence, {})[position] = token
    return found


def is_cache(axes: str) -> bool:
    return "T" in axes.split() and "S" not in axes.split()


def pairs_of(axes: str, call: Call, rows: tuple[int, ...] | None) -> list[tuple[int, int]]:
    """(sequence, position) of every row that ``to_rows`` gives."""
    positions = call.key_positions if is_cache(axes) else call.positions
    if rows is not None and not is_cache(axes):
        positions = positions[:, list(rows)]
    return [(call.sequences[b], int(p)) for b, row in enumerate(positions) for p in row if p >= 0]


def to_rows(
    axes: str,
    values: np.ndarray,
    call: Call,
    rows: tuple[int, ...] | None = None,
    by_slot: bool = False,
    width: int | None = None,
) -> Rows:
    """A tensor of one call as rows; padding is left out. ``by_slot`` leaves keys where they are, padding included.
    Keys at position ``width`` and above are left out: a candidate may state any, and each takes room up to it."""
    letters = axes.split()
    along = "T" if is_cache(axes) else "S"
    positions = call.key_positions if along == "T" else call.positions
    if rows is not None and along == "S":
        positions = positions[:, list(rows)]
    heads = next((letter for letter in letters if letter in "HK"), "")
    order = [letters.index("B"), letters.index(along)] + ([letters.index(heads)] if heads else [])
    order += [n for n in range(len(letters)) if n not in order]
    moved = values.transpose(order)
    if not heads:
        moved = moved[:, :, None]
    batch, length, groups = moved.shape[:3]
    moved = moved.reshape(batch, length, groups, -1)
    real = positions >= 0
    batches = np.broadcast_to(np.arange(batch)[:, None], positions.shape)[real]
    sequence = np.array(call.sequences)[batches]
    # Without padding nothing is copied: logits are the largest tensor there is.
    found = moved.reshape(-1, *moved.shape[2:]) if real.all() else moved[real]
    present = None
    if "T" in letters and along == "S" and not by_slot:
        found, present = _by_key(found, call.key_positions, batches, width)
    return Rows(sequence, positions[real], found, present, heads)


def _by_key(
    values: np.ndarray, key_positions: np.ndarray, batches: np.ndarray, most: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """[N, H, T slots] -> [N, H, P positions], and which of them are there."""
    width = int(key_positions.max()) + 1
    if most is not None and width > most:
        width, key_positions = most, np.where(key_positions < most, key_positions, -1)
    out = np.zeros((*values.shape[:2], width), values.dtype)
    present = np.zeros((len(values), width), bool)
    for batch in np.unique(batches):
        slots = np.flatnonzero(key_positions[batch] >= 0)
        mine = np.flatnonzero(batches == batch)
        at = key_positions[batch][slots]
        out[np.ix_(mine, np.arange(out.shape[1]), at)] = values[np.ix_(mine, np.arange(out.shape[1]), slots)]
        present[np.ix_(mine, at)] = True
    return out, present


class Golden:
    """Rows of a trace by name, sequence and position; keeps the tensors of about one layer: ``keep`` of them, or as
    many bytes as so many small ones have."""

    def __init__(self, trace: Trace, keep: int = 48):
        self.trace = trace
        #: Positions that it has: 0 to the last.
        self.width = 1 + max(int(call.key_positions.max()) for call in trace.calls)
        self.calls_of: dict[str, list[int]] = {}
        for name, call in trace.records:
            self.calls_of.setdefault(name, []).append(call)
        self._keep, self._bytes = keep, 0
        self._rows: OrderedDict[tuple[str, int], Rows | None] = OrderedDict()
        self._places: dict[str, dict[tuple[int, int], tuple[int, int]]] = {}
        self._index: dict[str, dict[tuple[int, int], int]] = {}

    def rows(self, name: str, call: int) -> Rows | None:
        """None where there are statistics only."""
        key = (name, call)
        if key not in self._rows:
            record = self.trace.records[key]
            values = self.trace.values(name, call)
            made = None if values is None else to_rows(record.axes, values, self.trace.calls[call], record.rows)
            self._rows[key] = made
            self._bytes += made.values.nbytes if made else 0
            while len(self._rows) > 1 and (len(self._rows) > self._keep or self._bytes > self._keep * _SMALL):
                _, old = self._rows.popitem(last=False)
                self._bytes -= old.values.nbytes if old else 0
        self._rows.move_to_end(key)
        return self._rows[key]

    def places(self, name: str) -> dict[tuple[int, int], tuple[int, int]]:
        """(sequence, position) -> (call, row), the last call that has its values."""
        if name not in self._places:
            found: dict[tuple[int, int], tuple[int, int]] = {}
            for call in self.calls_of.get(name, ()):
                record = self.trace.records[name, call]
                if record.file:
                    pairs = pairs_of(record.axes, self.trace.calls[call], record.rows)
                    found.update({pair: (call, n) for n, pair in enumerate(pairs)})
            self._places[name] = found
        return self._places[name]

    def index(self, name: str) -> dict[tuple[int, int], int]:
        """(sequence, position) -> its number among the sorted ones, as tables of noise have them."""
        if name not in self._index:
            self._index[name] = {pair: n for n, pair in enumerate(sorted(self.places(name)))}
        return self._index[name]

    def matching(self, name: str, wanted: Rows) -> tuple[np.ndarray, Rows] | None:
        """Which of the wanted rows there are, and those rows, in that order; None where there is none."""
        places = self.places(name)
        pairs = list(zip(wanted.sequence.tolist(), wanted.position.tolist(), strict=True))
        have = np.array([pair in places for pair in pairs], bool)
        if not have.any():
            return None
        chosen = [places[pair] for pair, there in zip(pairs, have, strict=True) if there]
        whole = self.rows(name, chosen[0][0])
        if chosen == [(chosen[0][0], n) for n in range(len(whole.values))]:  # one call's, in order: nothing is copied
            return have, whole
        parts = [self.rows(name, call) for call, _ in chosen]
        width = max(part.values.shape[2] for part in parts)
        groups = parts[0].values.shape[1]
        values = np.zeros((len(chosen), groups, width), parts[0].values.dtype)
        with_keys = parts[0].present is not None
        present = np.zeros((len(chosen), width), bool) if with_keys else None
        for n, ((_, row), part) in enumerate(zip(chosen, parts, strict=True)):
            values[n, :, : part.values.shape[2]] = part.values[row]
            if with_keys:
                present[n, : part.values.shape[2]] = part.present[row]
        sequence, position = wanted.sequence[have], wanted.position[have]
        return have, Rows(sequence, position, values, present, wanted.heads)


def level(name: str, candidate: Rows, right: Rows) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """The values [N, G, W] of both over the same keys, and which keys [N, 1, W] the queries see (None: all).

    What a query may not see and one side has not is filled in as it has to be; a key that the query sees and the
    candidate has not is NaN there. Scores count where they are seen.
    """
    if candidate.present is None:
        return candidate.values, right.values, None
    width = max(candidate.values.shape[2], right.values.shape[2])
    a, a_there = _widen(candidate, width)
    b, b_there = _widen(right, width)
    seen = (np.arange(width)[None] <= candidate.position[:, None])[:, None]
    kind = short(name)
    unseen = _UNSEEN[kind]
    b = np.where(b_there[:, None], b, unseen)
    a = np.where(a_there[:, None], a, np.where(seen, np.nan, unseen))
    if kind == "scores":
        a, b = np.where(seen, a, 0.0), np.where(seen, b, 0.0)
    return a, b, seen


def _widen(rows: Rows, width: int) -> tuple[np.ndarray, np.ndarray]:
    missing = width - rows.values.shape[2]
    return np.pad(rows.values, ((0, 0), (0, 0), (0, missing))), np.pad(rows.present, ((0, 0), (0, missing)))
