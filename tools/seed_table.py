"""How many of the catalogue's mistakes the seed's 31 tests catch: as they were, as they are here, and beside the gates.

Each mistake is made in the float64 reference. The original assertions (``tests/seed/seed_originals.py``, after the
seed's own list of what they assert) and the tests of the same names here (``tests/seed/test_seed_*.py``) are run on it;
the gates judge it on their own cases. The 31 tests reach checkpoints 1, 1B, 2 and 3, the other checkpoints' mistakes
none of them can see.

    python tools/seed_table.py                     prints the table: about a minute
    python tools/seed_table.py --write FOLDER      also writes seed_assertions.json and seed_assertions.md there
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SEED = ROOT / "tests" / "seed"
RESULTS = ROOT / "benchmarks" / "results"
sys.path.insert(0, str(SEED))

from seed_originals import ORIGINALS  # noqa: E402
from seed_subject import Mistaken  # noqa: E402

from llama_core.checkpoints.mistakes import CATALOGUE, mistakes_for  # noqa: E402
from llama_core.checkpoints.prove import prove_mistake  # noqa: E402
from llama_core.checkpoints.specification import CHECKPOINTS  # noqa: E402

MODULES = ("library", "rope", "qkv", "integration", "attention")


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
    """Mistake -> its checkpoint, the original assertions and the tests here that catch it, whether its gate does."""
    here = tests_here()
    reached = {"originals": touched_by(ORIGINALS), "here": touched_by(here)}
    table = {}
    for id in ids:
        mistake = CATALOGUE[id]
        table[id] = {
            "checkpoint": mistake.checkpoint,
            "originals": catches(mistake, ORIGINALS, reached["originals"]),
            "here": catches(mistake, here, reached["here"]),
            "gate": prove_mistake(mistake).caught,
        }
    return table


def counts(table: dict[str, dict]) -> list[tuple[str, int, int, int, int]]:
    """Checkpoint, mistakes, and how many of them the originals, the tests here and the gate catch; a total below."""
    rows = []
    for id, spec in CHECKPOINTS.items():
        of = [table[m.id] for m in mistakes_for(id) if m.id in table]
        caught = (sum(bool(row[by]) for row in of) for by in ("originals", "here", "gate"))
        rows.append((f"{id} {spec.title}", len(of), *caught))
    return [*rows, ("all", *(sum(row[n] for row in rows) for n in range(1, 5)))]


def markdown(table: dict[str, dict]) -> str:
    lines = [
        "# The seed's 31 tests and the catalogue of known mistakes",
        "",
        "Each mistake is made in the float64 reference and handed to the seed's original assertions, to the tests of "
        "the same names here, and to the gate of its checkpoint (float32 tolerances). The 31 tests reach checkpoints "
        "1, 1B, 2 and 3 only. Written by `python tools/seed_table.py --write benchmarks/results`.",
        "",
        "| checkpoint | known mistakes | caught by the originals | by the 31 tests here | by the gates |",
        "|---|---:|---:|---:|---:|",
        *(f"| {' | '.join(map(str, row))} |" for row in counts(table)),
        "",
        "Of the checkpoints that the 31 tests reach:",
        "",
        "| mistake | original tests that catch it | tests here | gate |",
        "|---|---|---:|---|",
    ]
    for id, row in table.items():
        if row["checkpoint"] in ("1", "1B", "2", "3"):
            originals = ", ".join(f"`{name}`" for name in row["originals"]) or "none"
            lines.append(f"| `{id}` | {originals} | {len(row['here'])} | {'caught' if row['gate'] else 'missed'} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="How many known mistakes the seed's 31 tests catch, then and now.")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    table = measure(CATALOGUE)
    for name, *numbers in (("checkpoint", "mistakes", "originals", "31 here", "gates"), *counts(table)):
        print(f"{name:<22}" + "".join(f"{number:>11}" for number in numbers))
    if options.write:
        options.write.mkdir(parents=True, exist_ok=True)
        (options.write / "seed_assertions.json").write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
        (options.write / "seed_assertions.md").write_text(markdown(table), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
