"""Hold a candidate's trace to a golden one: what differs, where it begins, what caused it."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import replace
from os import PathLike

import numpy as np

from llama_core.config import LlamaConfig
from llama_core.errors import TraceError
from llama_core.names import activation_names
from llama_core.traces.align import Golden, is_cache, pairs_of, to_rows
from llama_core.traces.format import FLOAT_DTYPES, expected_shape, known_axes
from llama_core.traces.judge import Judged, against_golden, by_statistics, hides_by_number, introduced
from llama_core.traces.measure import worth as in_tolerances
from llama_core.traces.memory import release_freed
from llama_core.traces.model_weights import Parameters, right_model
from llama_core.traces.noise import Floors, measure_noise, stored_noise
from llama_core.traces.quality import logits_quality
from llama_core.traces.read import Trace
from llama_core.traces.regions import Candidate, Place, Weights, full_name, names_of, places
from llama_core.traces.verdict import SWAMPED, Comparison, Finding, conclude

#: Parameters of a model from which freed memory counts; giving it back takes some milliseconds for each tensor.
_LARGE = 100_000_000


def compare(
    golden: str | PathLike[str] | Trace,
    candidate: str | PathLike[str] | Trace,
    model=None,
    map: str | PathLike[str] | None = None,
    impact: bool = False,
    progress: Callable[[str], object] | None = None,
) -> Comparison:
    """Where a candidate first differs from a golden trace, and why.

    Args:
        golden: a trace of the right model.
        candidate: a trace of another engine, or bare ``.npy`` or safetensors files with nothing but names.
        model: the right model, as a folder or a ``Llama``: its weights tell errors introduced from errors inherited.
        map: a TOML file from the candidate's names to ours (``maps``), or the name of one that ships.
        impact: put each wrong tensor into the right model and see what becomes of the logits (``impact``).

    Raises:
        TraceError: when a trace cannot be read, the ids differ, the model is not the golden's, or nothing is known of
            the noise in the candidate's dtype.
    """
    right = golden if isinstance(golden, Trace) else Trace.open(golden)
    config = right.config
    if config is None:
        raise TraceError(
            "the golden trace does not state its model's configuration",
            key="model.config",
            hint="write it with llama-core trace",
        )
    from llama_core.traces.candidate import open_candidate

    theirs, findings = open_candidate(candidate, right, map)
    parameters = right_model(model, right) if model is not None else None
    if impact and model is None:
        raise TraceError(
            "without the right model nothing can be put into it",
            key="--impact",
            expected="the model whose trace the golden one is",
            hint="give --model",
        )
    run = _Run(right, theirs, config, parameters, findings, progress)
    result = run.compare()
    if impact:
        from llama_core.traces.impact import measure_impacts

        result = replace(result, impacts=measure_impacts(run, result))
    return result


class _Run:
    """One comparison."""

    def __init__(self, right: Trace, theirs: Trace, config: LlamaConfig, parameters, findings, progress):
        self.right, self.theirs, self.config, self.findings = right, theirs, config, findings
        self.parameters: Parameters | None = parameters
        self.progress = progress
        self.golden = Golden(right)
        manifest = theirs.manifest
        self.dtype = max((manifest.compute_dtype, manifest.storage_dtype), key=FLOAT_DTYPES.index)
        self.known = activation_names(config.num_hidden_layers)
        self.judged: dict[str, Judged] = {}
        self.kept: dict[tuple[str, int], np.ndarray | None] = {}
        self.rows_of: dict[int, tuple[int, ...] | None] = {}
        self.candidate: Candidate | None = None
        self.usable = self._check_shapes()

    def compare(self) -> Comparison:
        floors = self._floors()
        self._check_names()
        if self.parameters is not None:
            stated = self.theirs.manifest
            weights = Weights(self.parameters, stated.compute_dtype)
            stored = stated.storage_dtype if self.dtype != stated.compute_dtype else ""
            self.candidate = Candidate(
                self.theirs.calls, self.config, weights, self.provided, self.rows, stated.product_inputs, stored
            )
        for place in places(self.config.num_hidden_layers):
            if self.progress:
                self.progress(f"{place}" if isinstance(place, str) else f"layer {place}")
            self._judge_place(place, floors)
        return replace(conclude(self, floors is not None), quality=logits_quality(self.golden, self.theirs))

    def _floors(self) -> Floors | None:
        """Noise of right runs in the candidate's dtype; float64 is held to that of float32 where it has none."""
        arithmetic = self.theirs.manifest.arithmetic
        for dtype in (arithmetic, "float32") if arithmetic == "float64" else (arithmetic,):
            if found := stored_noise(self.right, dtype):
                return found
        if self.parameters is None:
            raise TraceError(
                f"the golden trace does not say how far right runs in {arithmetic} may lie apart",
                file=self.right.folder,
                key="noise",
                expected=f"noise of {arithmetic} beside the golden trace, or the model",
                hint=f"give --model, or write the golden trace with --noise {arithmetic}",
            )
        names = [name for name in self.known if name in self.golden.calls_of]
        return measure_noise(self.right, self.parameters.model(), arithmetic, names)

    def _check_shapes(self) -> set[tuple[str, int]]:
        """The tensors that can be compared; findings about the others."""
        usable = set()
        for (name, call), record in self.theirs.records.items():
            axes = known_axes(name)
            if name not in self.known:
                continue
            facts = self.theirs.calls[call]
            shape = expected_shape(axes, facts, record.rows if "S" in axes.split() else None, self.config)
            if record.shape != shape or (record.axes and record.axes != axes):
                self.findings.append(
                    Finding(
                        "shape",
                        name,
                        call,
                        f"has the shape {list(record.shape)} ({record.axes or 'axes not stated'}), "
                        f"not {list(shape)} ({axes})",
                    )
                )
                continue
            usable.add((name, call))
        return usable

    def _check_names(self) -> None:
        theirs = {name for name, _ in self.theirs.records}
        for name in sorted(theirs - set(self.known)):
            self.findings.append(Finding("extra", name, None, "is no activation of this model: not compared", False))
        for name, call in self.right.records:
            statistics = self.right.records[name, call].statistics
            if statistics and statistics.nan:
                self.findings.append(Finding("not finite", name, call, "is NaN in the golden trace itself"))

    def twin(self):
        """The right model in the dtype that the candidate computes in."""
        assert self.parameters is not None
        return self.parameters.model(self.dtype)

    def values(self, name: str, call: int) -> np.ndarray | None:
        """What the candidate gives, as it is; None where its shape is wrong or it gives nothing."""
        return self.theirs.values(name, call) if (name, call) in self.usable else None

    def provided(self, name: str, call: int) -> np.ndarray | None:
        """The same in float64, at the rows that all tensors of the call have."""
        if (name, call) not in self.usable:
            return None
        if (name, call) not in self.kept:
            values = self.values(name, call)
            if values is not None:
                values = values.astype(np.float64) if values.dtype.kind == "f" else values
                values = self._cut(name, call, values)
            self.kept[name, call] = values
        return self.kept[name, call]

    def _cut(self, name: str, call: int, values: np.ndarray) -> np.ndarray:
        rows, own = self.rows(call), self.theirs.records[name, call].rows
        letters = known_axes(name).split()
        if rows is None or rows == own or "S" not in letters:
            return values
        have = list(range(values.shape[letters.index("S")])) if own is None else list(own)
        return np.take(values, [have.index(row) for row in rows], axis=letters.index("S"))

    def rows(self, call: int) -> tuple[int, ...] | None:
        """The rows that all tensors of a call have; None for all."""
        if call not in self.rows_of:
            found = [t.rows for (_, c), t in self.theirs.records.items() if c == call and t.rows is not None]
            common = set(found[0]).intersection(*found[1:]) if found else None
            self.rows_of[call] = tuple(sorted(common)) if common is not None else None
        return self.rows_of[call]

    def _judge_place(self, place: Place, floors: Floors | None) -> None:
        for call, _ in enumerate(self.theirs.calls):
            for name in (*(("input_ids",) if place == "input" else ()), *names_of(place)):
                full = full_name(place, name)
                if (full, call) in self.usable:
                    self._judge(place, name, full, call, floors)
                    if self.config.num_parameters >= _LARGE:
                        release_freed()
        # The next place reads the end of this one; what else it may want, where that is not given, is read again.
        end = "embedding" if place == "input" else f"layers.{place}.output"
        self.kept = {key: values for key, values in self.kept.items() if key[0] in (end, "position_ids")}

    def _judge(self, place: Place, name: str, full: str, call: int, floors: Floors | None) -> None:
        judged = self.judged.setdefault(full, Judged(full, of=len(self.golden.places(full))))
        record = self.theirs.records[full, call]
        if not record.file:
            self._judge_statistics(judged, full, call, floors)
            return
        values = self.theirs.values(full, call)
        if judged.nan_call is None and values.dtype.kind == "f" and np.isnan(values).any():
            judged.nan_call = call
        if full in self.golden.calls_of:
            axes, facts = known_axes(full), self.theirs.calls[call]
            found = to_rows(axes, values, facts, record.rows, width=self.golden.width)
            against_golden(judged, self.golden, floors, full, found, call, self.dtype)
        if self.candidate is None or full in ("input_ids", "position_ids"):
            return
        result = introduced(self.candidate, place, call, name, self.dtype)
        if result is None:
            return
        errors, allowed = result.errors, result.allowed
        worth = in_tolerances(errors, allowed)
        judged.from_inputs.add(result.rows, worth, errors, allowed)
        largest = float(worth.max()) if worth.size else 0.0
        judged.introduced = max(judged.introduced or 0.0, largest)
        if largest > 1:
            judged.wrong_call = call if judged.wrong_call is None else judged.wrong_call

    def _judge_statistics(self, judged: Judged, full: str, call: int, floors: Floors | None) -> None:
        """Statistics say something only of the same tokens in the same call."""
        stated = self.theirs.records[full, call]
        facts = self.theirs.calls[call]
        for number in self.golden.calls_of.get(full, ()):
            record, other = self.right.records[full, number], self.right.calls[number]
            same = record.shape == stated.shape and record.rows == stated.rows and record.statistics is not None
            if same and np.array_equal(facts.positions, other.positions) and facts.sequences == other.sequences:
                if not is_cache(record.axes) or np.array_equal(facts.key_positions, other.key_positions):
                    rows = len(pairs_of(record.axes, facts, record.rows))
                    if hides_by_number(stated.statistics, record.statistics):
                        judged.swamped = True
                    else:
                        by_statistics(judged, record, stated.statistics, floors, call, rows)
                    return

    def reason_for(self, name: str) -> str:
        """Why the candidate does not give a tensor, as it states, or as is seen."""
        if name in self.judged and self.judged[name].swamped:
            return SWAMPED
        for pattern, why in self.theirs.manifest.not_provided.items():
            if fnmatch.fnmatchcase(name, pattern):
                return why
        return ""
