"""How many of the catalogue's mistakes tests catch: the seed's 31, as they were and as they are here, those that hold a
whole model to transformers, and the gates.

Each mistake is made in the table of steps. The original assertions (``tests/seed/seed_originals.py``, after the seed's
own list of what they assert) and the tests of the same names here (``tests/seed/test_seed_*.py``) are run on its
float64 values; the parity tests (``tests/parity/test_parity.py``) on whole models that it is made in, in float32; the
gates judge it on their own cases. The 31 tests reach checkpoints 1, 1B, 2 and 3, the other checkpoints' mistakes none
of them can see; a parity test sees none that is made beside the model.

    python tools/seed_table.py                     prints the table: two minutes
    python tools/seed_table.py --write FOLDER      also writes seed_assertions.json and seed_assertions.md there
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / name) for name in ("seed", "parity")]

import stepped  # noqa: E402
from seed_originals import ORIGINALS  # noqa: E402
from seed_subject import Mistaken  # noqa: E402

from llama_core.checkpoints.families import LLAMA  # noqa: E402
from llama_core.checkpoints.mistakes import CATALOGUE, mistakes_for  # noqa: E402
from llama_core.checkpoints.prove import prove_mistake  # noqa: E402
from llama_core.checkpoints.specification import CHECKPOINTS  # noqa: E402

MODULES = ("library", "rope", "qkv", "integration", "attention")
#: What catches mistakes: key in the record -> heading of its column.
COLUMNS = {
    "originals": "caught by the originals",
    "here": "by the 31 tests here",
    "parity": "by the parity tests",
    "gate": "by the gates",
}


def tests_here() -> dict:
    """Name -> the test of that name in ``tests/seed``."""
    modules = [importlib.import_module(f"test_seed_{name}") for name in MODULES]
    return {name: test for module in modules for name, test in vars(module).items() if name.startswith("test_")}


def touched_by(tests: dict) -> dict[str, set[str]]:
    """Name -> the checkpoints whose steps a test evaluates. Every test passes on the reference without a mistake."""
    touched = {}
    for name, test in tests.items():
        subject = Mistaken()
        test(subject)
        touched[name] = subject.touched
    return touched


def catches(mistake, tests: dict, touched: dict[str, set[str]]) -> list[str]:
    """The tests that fail on a reference with the mistake."""
    found = []
    for name, test in tests.items():
        if mistake.checkpoint not in touched[name]:
            continue
        try:
            test(Mistaken(mistake))
        except AssertionError:
            found.append(name)
    return found


def measure(ids) -> dict[str, dict]:
    """Mistake -> its checkpoint, the tests of each kind that catch it, and whether its gate does.

    ``parity`` is None for a mistake that no model can have.
    """
    here = tests_here()
    reached = {"originals": touched_by(ORIGINALS), "here": touched_by(here)}
    table = {}
    for id in ids:
        mistake = CATALOGUE[id]
        table[id] = {
            "checkpoint": mistake.checkpoint,
            "originals": catches(mistake, ORIGINALS, reached["originals"]),
            "here": catches(mistake, here, reached["here"]),
            "parity": stepped.caught_by(mistake) if stepped.concerns_a_model(mistake) else None,
            "gate": prove_mistake(mistake).caught,
        }
    return table


def counts(table: dict[str, dict]) -> list[tuple]:
    """Checkpoint, mistakes, and how many of them tests of each kind and the gate catch; a total below."""
    rows = []
    for id, spec in CHECKPOINTS.items():
        of = [table[m.id] for m in mistakes_for(id) if m.id in table]
        caught = (sum(bool(row[by]) for row in of) for by in COLUMNS)
        rows.append((f"{id} {spec.title}", len(of), *caught))
    return [*rows, ("all", *(sum(row[n] for row in rows) for n in range(1, 2 + len(COLUMNS))))]


def markdown(table: dict[str, dict]) -> str:
    beside = [id for id, row in table.items() if row["parity"] is None]
    neighbours = [id for id in table if CATALOGUE[id].family != LLAMA]
    missed = [f"`{id}`" for id, row in table.items() if row["parity"] == []]
    lines = [
        "# Which tests catch the catalogue's known mistakes",
        "",
        "Each mistake is made in the table of steps and handed to the seed's original assertions, to the tests of the "
        "same names here, to the parity tests and to the gate of its checkpoint (float32 tolerances). Written by "
        "`python tools/seed_table.py --write benchmarks/results`.",
        "",
        "The 31 tests reach checkpoints 1, 1B, 2 and 3 only. The parity tests hold whole models to transformers, at "
        f"tolerances of their own. {len(beside)} of the mistakes are made beside the model, in what is counted, in "
        "sampling or in generation: no parity test can see them, and they count as not caught. "
        f"{len(neighbours)} concern steps that only Mistral, Qwen2 or Qwen3 have, and meet the parity tests of those.",
        "",
        _line("checkpoint", "known mistakes", *COLUMNS.values()),
        "|---|" + "---:|" * (1 + len(COLUMNS)),
        *(_line(*row) for row in counts(table)),
        "",
        f"Made in a model and still not seen by the parity tests: {', '.join(missed) or 'none'}.",
        "",
        "Of the checkpoints that the 31 tests reach:",
        "",
        _line("mistake", "original tests that catch it", "tests here", "parity tests", "gate"),
        "|---|---|---:|---:|---|",
    ]
    for id, row in table.items():
        if row["checkpoint"] in ("1", "1B", "2", "3"):
            originals = ", ".join(f"`{name}`" for name in row["originals"]) or "none"
            here, parity = (len(row[by] or ()) for by in ("here", "parity"))
            lines.append(_line(f"`{id}`", originals, here, parity, "caught" if row["gate"] else "missed"))
    return "\n".join(lines) + "\n"


def _line(*cells) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="How many known mistakes each kind of test catches.")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    if red := stepped.caught_by(None):
        sys.exit(f"without a mistake these parity tests fail: {', '.join(red)}")
    table = measure(CATALOGUE)
    for name, *numbers in (("checkpoint", "mistakes", "originals", "31 here", "parity", "gates"), *counts(table)):
        print(f"{name:<22}" + "".join(f"{number:>11}" for number in numbers))
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        rows = ",\n".join(f" {json.dumps(id)}: {json.dumps(row)}" for id, row in table.items())
        (options.write / "seed_assertions.json").write_text(f"{{\n{rows}\n}}\n", encoding="utf-8")
        (options.write / "seed_assertions.md").write_text(markdown(table), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
