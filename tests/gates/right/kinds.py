"""All right implementations of a checkpoint, and their errors on values that do not ship.

    python tests/gates/right/kinds.py [seeds]

prints, for every checkpoint and type, the largest error over floor: what ``FACTOR`` in ``noise.py`` is chosen from.
"""

import sys
import warnings
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from right import fused, loops, other_order, peers

from llama_core.checkpoints.gate import called, judge
from llama_core.checkpoints.implementation import Implementation
from llama_core.checkpoints.noise import DTYPES
from llama_core.checkpoints.own import implementations
from llama_core.checkpoints.specification import CHECKPOINTS, checkpoint

KINDS = {
    "loops": (loops.RUNS, "numpy"),
    "back to front": (other_order.RUNS, "numpy"),
    "fused kernels": (fused.RUNS, "torch"),
    "transformers": (peers.RUNS, "torch"),
}
IDS = [id for id in CHECKPOINTS if id != "0"]  # its cases are configurations, and have no seed


def right_implementations(id):
    """llama_core's, and those of other kinds."""
    others = [Implementation(kind, runs[id], arrays) for kind, (runs, arrays) in KINDS.items() if id in runs]
    return [*implementations(checkpoint(id)), *others]


def other_values(id, seed):
    """The small cases of every family with values that neither ship nor are part of the floors."""
    return [case.reseeded(600_000 + 1000 * seed + case.seed) for case in checkpoint(id).every_small_case]


def judge_right(id, dtype, seed):
    """One result over all right implementations; transformers knows one rotary layout only."""
    found = []
    for layout in ("half", "interleaved"):
        cases = [case for case in other_values(id, seed) if case.config.rope_layout == layout]
        able = [i for i in right_implementations(id) if layout == "half" or i.name != "transformers"]
        if seed % 10 and id == "6":
            able = [i for i in able if i.name != "loops"]  # two seeds will do: they are slow, and the most exact
        if cases:
            found.append(judge(checkpoint(id), [called(i, "cpu") for i in able], "", dtype, "cpu", cases))
    return found


def strain(check):
    """The error in floors."""
    return check.error / check.tolerance.floor if check.tolerance.floor else float("inf") if check.error else 0.0


def main():
    warnings.simplefilter("ignore")
    seeds = range(int(sys.argv[1]) if len(sys.argv) > 1 else 20)
    for id in IDS:
        for dtype in DTYPES:
            checks = [c for seed in seeds for r in judge_right(id, dtype, seed) for c in r.checks if c.output]
            worst = max(checks, key=strain)
            line = f"{id:3} {dtype:9} {strain(worst):5.2f} {worst.path}: {worst.case}: {worst.output} {worst.error:.2g}"
            print(line, worst.note, flush=True)


if __name__ == "__main__":
    main()
