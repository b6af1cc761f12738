"""What the gates prove of themselves, as figures: nothing right is called wrong, and what is wrong is named rightly.

    python benchmarks/proofs.py                    prints them: some minutes
    python benchmarks/proofs.py --seeds 2          fewer seeds for right implementations (20 by default)
    python benchmarks/proofs.py --write FOLDER     also writes proofs.json there

``caught``: the catalogue in each type; what is missed has its signal beside tolerance and noise floor. ``right``: every
right implementation on seeds that do not ship, checks and false alarms, and the error that comes nearest to its
tolerance. ``named``: the catalogue in each of its ways on inputs and weights that do not ship. ``planted``: the same by
hand, in torch. ``outside``: errors that are in no catalogue, none of which may get a name.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "gates"))

from planted import PLANTED  # noqa: E402
from right.kinds import IDS, judge_right  # noqa: E402
from sweep import CHECKPOINTS_SWEPT, results  # noqa: E402

from llama_core.checkpoints.mistakes import CATALOGUE, classes_at  # noqa: E402
from llama_core.checkpoints.noise import DTYPES, FACTOR  # noqa: E402
from llama_core.checkpoints.prove import prove  # noqa: E402
from llama_core.checkpoints.result import strain  # noqa: E402


def caught(dtype: str) -> dict:
    proof = prove(dtype)
    missed = {
        c.mistake.id: {"case": c.case, "output": c.output, "signal": c.error, "tolerance": c.tolerance}
        | {"noise": c.tolerance / FACTOR}
        for c in proof.missed
    }
    return {"total": len(proof.catches), "caught": len(proof.catches) - len(proof.missed), "missed": missed}


def right(id: str, dtype: str, seeds: Iterable[int]) -> dict:
    checks = [c for seed in seeds for r in judge_right(id, dtype, seed) for c in r.checks if c.required]
    nearest = max((c for c in checks if c.output), key=strain)
    return {
        "implementations": sorted({c.path for c in checks}),
        "checks": len(checks),
        "false_alarms": sum(not c.passed for c in checks),
        "nearest": {
            "error_in_tolerances": strain(nearest) if math.isfinite(strain(nearest)) else None,
            "by": nearest.path,
            "case": nearest.case,
            "output": nearest.output,
        },
    }


def named(found: dict[str, list[dict]], dtype: str) -> dict:
    """How many of the catalogue's ways are named, alone or as one of their class; and which are not."""
    ways = [(id, told["named"]) for id, all_told in found.items() for told in all_told]
    wrong = sorted({id for id, names in ways if not is_named(id, names, dtype)})
    return {"ways": len(ways), "named": sum(is_named(id, names, dtype) for id, names in ways), "not_named": wrong}


def is_named(id: str, names: list[str], dtype: str) -> bool:
    classes = [{id}, *classes_at(CATALOGUE[id].checkpoint, dtype)]
    return len(names) == 1 and any({id, *names} <= alike for alike in classes)


def of_sweeps(dtype: str) -> dict:
    by_hand = {id.partition(",")[0]: [] for id in results("planted", dtype)}
    for id, told in results("planted", dtype).items():
        by_hand[id.partition(",")[0]].append(told)
    outside = results("outside", dtype)
    return {
        "checkpoints": CHECKPOINTS_SWEPT[dtype],
        "named": named(results("named", dtype), dtype),
        "planted": named(by_hand, dtype) | {"share_of_catalogue": round(len(PLANTED) / len(CATALOGUE), 3)},
        "outside": {
            "errors": len(outside),
            "given_a_name": sorted(name for name, told in outside.items() if told["named"] or told["alternatives"]),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=20, help="for right implementations (default 20)")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="write proofs.json there")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict = {"seeds": args.seeds, "caught": {}, "right": {}, "sweeps": {}}
    for dtype in DTYPES:
        found["caught"][dtype] = tell(f"caught {dtype}", caught(dtype))
    for dtype in CHECKPOINTS_SWEPT:
        found["sweeps"][dtype] = tell(f"sweeps {dtype}", of_sweeps(dtype))
    for dtype in DTYPES:
        found["right"][dtype] = {id: tell(f"right {dtype} {id}", right(id, dtype, range(args.seeds))) for id in IDS}
    if args.write:
        (args.write / "proofs.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def tell(what: str, found: dict) -> dict:
    print(f"{what}: {json.dumps(found)}", flush=True)
    return found


if __name__ == "__main__":
    main()
