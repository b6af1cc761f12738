"""How far right implementations lie apart, and the tolerances that follow.

The *floor* of an output is the largest error, over every right arithmetic of a type and several seeds, against the
float64 reference on the same rounded inputs. The tolerance is ``FACTOR`` times the floor. The floors of the shipped
cases are in ``noise.json``, written by ``python -m llama_core.checkpoints.noise``; those of any other case (a real
model's weights) are measured on the spot, by the same functions.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from llama_core.checkpoints.arithmetic import REFERENCE, right_arithmetics
from llama_core.checkpoints.cases import Case
from llama_core.checkpoints.compare import error, kept_entries
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import CHECKPOINTS, Checkpoint

#: Tolerance over floor.
FACTOR = 4.0
#: How many seeds besides the shipped one a floor is the maximum of.
OTHER_SEEDS = 12
DTYPES = ("float32", "bfloat16", "float16")
_FILE = Path(__file__).with_name("noise.json")
_SHIPPED = "noise.json"
_ON_THE_SPOT = "measured now"

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Tolerance:
    """How far an output may be from the reference, and why.

    Attributes:
        value: the largest error that passes.
        floor: the largest error of a right arithmetic.
        source: where the floor comes from.
    """

    value: float
    floor: float
    source: str

    def __str__(self) -> str:
        return f"{FACTOR:g} × {self.floor:.2g}, {self.source}" if self.floor else self.source


#: Of ids, positions and counts, and of values that are only handed through.
EXACT = Tolerance(0.0, 0.0, "exact")


def computed_in(checkpoint: Checkpoint, dtype: str) -> str:
    """The type that an implementation's outputs have at least: probabilities are float32 whatever the model's is."""
    return "float32" if checkpoint.id == "9" else dtype


def output_names(checkpoint: Checkpoint, values: Arrays) -> list[str]:
    """The outputs, required and welcome, that a reference evaluation holds; ``layers.N.`` spelled out."""
    wanted = checkpoint.outputs | checkpoint.welcome
    return [name for name in values if generic(name) in wanted]


def generic(name: str) -> str:
    """``layers.3.output`` as ``layers.N.output``."""
    parts = name.split(".")
    return ".".join([parts[0], "N", *parts[2:]]) if parts[0] == "layers" else name


def measure(checkpoint: Checkpoint, case: Case, dtype: str) -> dict[str, float]:
    """Output -> the largest error of a right arithmetic on this case's own values."""
    inputs, weights = case.values(dtype)
    reference = run_procedure(checkpoint.procedure, inputs, weights, case.config, REFERENCE)
    return measure_values(checkpoint, inputs, weights, case.config, reference, dtype)


def measure_values(checkpoint: Checkpoint, inputs: Arrays, weights: Arrays, config, reference: Arrays, dtype: str):
    """``measure`` where the reference is known already. Whole numbers have no floor: they are exact."""
    names = [name for name in output_names(checkpoint, reference) if reference[name].dtype.kind == "f"]
    floors = dict.fromkeys(names, 0.0)
    for arithmetic in right_arithmetics(computed_in(checkpoint, dtype)) if names else ():
        values = run_procedure(checkpoint.procedure, inputs, weights, config, arithmetic)
        for name in names:
            kept = kept_entries(checkpoint.id, name, inputs)
            floors[name] = max(floors[name], error(values[name], reference[name], kept))
    return floors


def measure_seeds(checkpoint: Checkpoint, case: Case, dtype: str, seeds: Sequence[int]) -> dict[str, float]:
    """The largest floor of each output over several seeds."""
    floors: dict[str, float] = {}
    for seed in seeds:
        for name, floor in measure(checkpoint, case.reseeded(seed), dtype).items():
            floors[name] = max(floors.get(name, 0.0), floor)
    return floors


def shipped_seeds(case: Case) -> list[int]:
    """The seeds that ``noise.json`` covers: the case's own and others far from every case's; one for a large case."""
    return [case.seed] if case.large else [case.seed, *(10_000 + case.seed + 1000 * n for n in range(OTHER_SEEDS))]


@cache
def shipped_floors() -> dict:
    """dtype -> checkpoint -> case -> output -> floor."""
    return json.loads(_FILE.read_text())["floors"]


def tolerances(checkpoint: Checkpoint, case: Case, dtype: str, reference: Arrays | None = None) -> dict[str, Tolerance]:
    """Output -> its tolerance: from ``noise.json`` for a shipped case (reseeded or not), else measured on the spot.
    Whole numbers have none: ``EXACT``.

    Args:
        reference: the case's reference values, where they are at hand.
    """
    floors = shipped_floors().get(dtype, {}).get(checkpoint.id, {}).get(case.name)
    if floors is None or case.given is not None or dtype not in DTYPES:
        source = _ON_THE_SPOT
        inputs, weights = case.values(dtype)
        if reference is None:
            reference = run_procedure(checkpoint.procedure, inputs, weights, case.config)
        floors = measure_values(checkpoint, inputs, weights, case.config, reference, dtype)
    else:
        source = _SHIPPED
    return {name: Tolerance(FACTOR * floor, floor, source) if floor else EXACT for name, floor in floors.items()}


def tolerance(checkpoint: Checkpoint, case: Case, output: str, dtype: str) -> float:
    """The largest error of one output that passes."""
    return tolerances(checkpoint, case, dtype).get(output, EXACT).value


def regenerate(
    dtypes: Sequence[str] = DTYPES, checkpoints: Sequence[str] = tuple(CHECKPOINTS), known: Mapping | None = None
) -> dict:
    """Measure every floor anew: dtype -> checkpoint -> case -> output -> floor, to three digits.

    Args:
        known: floors of the same form that are kept instead of measured.
    """

    def floors(id: str, case: Case, dtype: str) -> dict[str, float]:
        kept = (known or {}).get(dtype, {}).get(id, {}).get(case.name)
        if kept is not None:
            return kept
        measured = measure_seeds(CHECKPOINTS[id], case, dtype, shipped_seeds(case))
        return {name: float(f"{floor:.2e}") for name, floor in measured.items()}

    return {
        dtype: {id: {case.name: floors(id, case, dtype) for case in CHECKPOINTS[id].every_case} for id in checkpoints}
        for dtype in dtypes
    }


def main() -> None:
    """Measure every floor anew and write ``noise.json``."""
    parser = argparse.ArgumentParser(prog="python -m llama_core.checkpoints.noise", description=main.__doc__)
    parser.add_argument("--missing", action="store_true", help="only those of cases that the file does not have")
    known = shipped_floors() if parser.parse_args().missing else None
    about = (
        "The largest error, max |a - b| / rms(reference), of a right arithmetic against the float64 reference, per "
        f"dtype, checkpoint, case and output, over the case's seed and {OTHER_SEEDS} others (a large case: its own "
        "seed). Written by python -m llama_core.checkpoints.noise."
    )
    _FILE.write_text(_document(about, regenerate(known=known)))


def _document(about: str, floors: dict) -> str:
    """JSON with one line per case."""
    dtypes = []
    for dtype, checkpoints in floors.items():
        parts = []
        for id, cases in checkpoints.items():
            lines = [f"    {json.dumps(case)}: {json.dumps(of_case)}" for case, of_case in cases.items()]
            parts.append(f"   {json.dumps(id)}: {{\n" + ",\n".join(lines) + "\n   }")
        dtypes.append(f"  {json.dumps(dtype)}: {{\n" + ",\n".join(parts) + "\n  }")
    return f'{{\n "about": {json.dumps(about)},\n "floors": {{\n' + ",\n".join(dtypes) + "\n }\n}\n"


if __name__ == "__main__":
    main()
