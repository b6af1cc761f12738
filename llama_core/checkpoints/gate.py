"""Gates: hold an implementation's values to the float64 reference, case by case, and say what is wrong."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.compare import axes_of, entry_errors, error, kept_entries
from llama_core.checkpoints.families import ALL, LLAMA
from llama_core.checkpoints.implementation import (
    Implementation,
    as_implementation,
    call,
    required_outputs,
)
from llama_core.checkpoints.margins import Margins, is_shipped
from llama_core.checkpoints.noise import DTYPES, EXACT, generic, output_names, tolerances
from llama_core.checkpoints.outputs import Unfit, as_compared
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.result import Check, CheckResult, WrongCase, strain
from llama_core.checkpoints.specification import CHECKPOINTS, Checkpoint, checkpoint
from llama_core.errors import CheckpointError

Arrays = dict[str, np.ndarray]
#: (checkpoint, case, inputs, weights, dtype) -> named outputs; raises Unfit, in one line, where there are none.
Produce = Callable[[Checkpoint, Case, Arrays, Arrays, str], dict[str, Any]]


@dataclass(frozen=True)
class Source:
    """Where outputs come from: an implementation called here or in a child process, or files.

    Attributes:
        path: which of several ways this is, or "".
        produce: gives the outputs of one case.
    """

    path: str
    produce: Produce


def check(
    id: str,
    implementation: Any = None,
    *,
    results: str | PathLike | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    model: str | PathLike | None = None,
    cases: Sequence[Case] | None = None,
    family: str | None = None,
) -> CheckResult:
    """Judge an implementation of one checkpoint.

    Args:
        id: "0", "1", "1B", "2" … "10".
        implementation: ``run(inputs, weights, config) -> {name: array}`` in torch or numpy, or a class that takes the
            place of llama_core's; None judges llama_core itself.
        results: a folder of outputs that another program wrote for the exported cases (``checkpoint(id).export``).
        dtype: float32, bfloat16 or float16: inputs and weights are rounded to it first.
        device: where torch implementations run.
        model: a model folder, or "stories": its weights and activations instead of the shipped cases.
        cases: these instead of the shipped ones.
        family: whose shipped cases: ``llama``, ``mistral``, ``qwen2``, ``qwen3`` or ``all``. None: ``all`` for
            llama_core itself, a plain Llama's for everything else.

    Returns:
        The result; also for an implementation that raises, or returns something else than it must.

    Raises:
        CheckpointError: the checkpoint, dtype, device, family or results folder does not exist.
    """
    spec = checkpoint(id)
    check_setting(dtype, device)
    family = family or (ALL if implementation is None and results is None else LLAMA)
    cases = cases_for(spec, model, family=family) if cases is None else list(cases)
    if results is not None:
        from llama_core.checkpoints.exchange import from_folder

        subject, sources = f"results in {results}", [Source("", from_folder(results, spec, cases))]
    elif implementation is None:
        subject, sources = "llama_core", own_sources(spec, device)
    else:
        subject = getattr(implementation, "__qualname__", type(implementation).__name__)
        try:
            found = as_implementation(implementation, spec)
        except CheckpointError as e:
            return _nothing(spec, subject, dtype, device, e.message)
        subject, sources = found.name, [Source("", called(found, device).produce)]
    return judge(spec, sources, subject, dtype, device, cases)


def check_all(ids: Sequence[str] = tuple(CHECKPOINTS), **options: Any) -> list[CheckResult]:
    """``check`` for several checkpoints, all by default."""
    return [check(id, **options) for id in ids]


def cases_for(
    spec: Checkpoint, model: str | PathLike | None = None, fast: bool = False, family: str = LLAMA
) -> list[Case]:
    """The shipped cases of a family, without the large ones if ``fast``; or a model's."""
    if model is None:
        return [case for case in spec.of_family(family) if not (fast and case.large)]
    from llama_core.checkpoints.model_cases import cases_of_model

    return cases_of_model(spec, model)


def check_setting(dtype: str, device: str) -> None:
    """Raises CheckpointError for a type that gates do not know or a device that is not there."""
    if dtype not in DTYPES:
        raise CheckpointError(f"there are no gates in {dtype}", key="dtype", expected=" | ".join(DTYPES), actual=dtype)
    if device == "cpu":
        return
    import torch

    try:
        torch.zeros(1, device=device).cpu()  # there, and back with a value: the device "meta" has none
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        raise CheckpointError(
            f"the device {device!r} cannot be used",
            key="device",
            expected="cpu, or cuda or mps where there is one",
            actual=str(e).splitlines()[0],
        ) from e


def own_sources(spec: Checkpoint, device: str) -> list[Source]:
    """llama_core's own ways to compute a checkpoint."""
    from llama_core.checkpoints.own import implementations

    sources = [called(i, device) for i in implementations(spec)]
    return [Source(s.path if len(sources) > 1 else "", s.produce) for s in sources]


def called(implementation: Implementation, device: str) -> Source:
    """An implementation called in this process."""

    def produce(spec: Checkpoint, case: Case, inputs: Arrays, weights: Arrays, dtype: str) -> dict[str, Any]:
        return call(implementation, spec, case, inputs, weights, dtype, device)

    return Source(implementation.name, produce)


def _nothing(spec: Checkpoint, subject: str, dtype: str, device: str, why: str) -> CheckResult:
    return CheckResult(spec.id, spec.title, subject, dtype, device, (_failure("", "", why),))


def _failure(case: str, path: str, note: str, place: Any = None, required: bool = True) -> Check:
    """Nothing to compare."""
    return Check(case, path, "", float("inf"), EXACT, False, required, note, place=str(place or ""))


def judge(
    spec: Checkpoint, sources: Sequence[Source], subject: str, dtype: str, device: str, cases: Sequence[Case]
) -> CheckResult:
    """Hold what the sources give to the reference on every case; diagnose what is wrong."""
    started = time.perf_counter()
    checks: list[Check] = []
    observations: dict[str, list] = {}
    wrong_case, most = None, 0.0
    for case in cases:
        inputs, weights = case.values(dtype)
        reference = run_procedure(spec.procedure, inputs, weights, case.config)
        margins = None
        if spec.id == "10" and not is_shipped(spec, case):
            margins = Margins(case, inputs, weights, reference["token_ids"], dtype)
        for source in sources:
            try:
                outputs = source.produce(spec, case, inputs, weights, dtype)
            except Unfit as e:
                checks.append(_failure(case.name, source.path, e.message, e.actual))
                continue
            rows, compared = _compare(spec, case, source.path, inputs, weights, reference, outputs, dtype, margins)
            checks += rows
            if not case.large and compared:
                observations.setdefault(source.path, []).append((case, inputs, weights, compared))
            off = max((strain(c) for c in rows if c.output and c.required and not c.passed), default=0.0)
            if off > most:
                errors = {
                    name: entry_errors(compared[name], right, kept_entries(spec.id, name, inputs))
                    for name, right in reference.items()
                    if name in compared
                }
                wrong_case, most = WrongCase(case.name, source.path, errors), off
    cause = None
    wrong = next((c.path for c in checks if c.required and c.output and not c.passed), None)
    if wrong in observations:  # one path at a time: another may be right, or wrong in another way
        from llama_core.checkpoints.diagnose import diagnose

        cause = diagnose(spec, observations[wrong], dtype)
    seconds = time.perf_counter() - started
    return CheckResult(spec.id, spec.title, subject, dtype, device, tuple(checks), cause, seconds, wrong_case)


def _compare(
    spec: Checkpoint,
    case: Case,
    path: str,
    inputs: Arrays,
    weights: Arrays,
    reference: Arrays,
    outputs: dict[str, Any],
    dtype: str,
    margins: Margins | None,
) -> tuple[list[Check], Arrays]:
    """A row per required output, and per welcome one that is there; and the outputs that could be compared."""
    allowed = tolerances(spec, case, dtype, reference)
    required = required_outputs(spec, case)
    rows: list[Check] = []
    compared: Arrays = {}
    for name in [*required, *(n for n in output_names(spec, reference) if n not in required)]:
        if name not in outputs:
            if name in required:
                rows.append(_failure(case.name, path, f"{name} is missing{_given_instead(outputs, reference)}"))
            continue
        axes = spec.outputs.get(generic(name)) or axes_of(name)
        try:
            compared[name] = as_compared(outputs[name], reference[name], name, axes, spec, dtype)
        except Unfit as e:
            rows.append(_failure(case.name, path, e.message, required=name in required))
            continue
        kept = kept_entries(spec.id, name, inputs)
        note = ""
        if margins is not None and "token_ids" in compared:
            kept, note = margins.kept(compared["token_ids"])
        found = error(compared[name], reference[name], kept)
        tolerance = allowed.get(name, EXACT)
        if np.isnan(compared[name]).any():
            note = f"{name} has NaN"
        rows.append(Check(case.name, path, name, found, tolerance, found <= tolerance.value, name in required, note))
    return rows, compared


def _given_instead(outputs: dict[str, Any], reference: Arrays) -> str:
    """The outputs under names that nobody asked for."""
    unknown = [name for name in outputs if name not in reference]
    return f"; there is {', '.join(unknown[:3])}{' …' if len(unknown) > 3 else ''}" if unknown else ""
