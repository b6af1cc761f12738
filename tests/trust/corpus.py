"""The corpus of inputs: what must be refused, and what must be accepted; run, and counted.

python tests/trust/corpus.py                 run every case, print what is not as promised
python tests/trust/corpus.py --only WORDS    those whose name holds the words; several with | between
python tests/trust/corpus.py --json FILE     the verdicts as JSON, for the tests
python tests/trust/corpus.py --write FOLDER  the table of what is promised, as trust.md
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

from case import MEGABYTES, SECONDS, Case, complaints

# isort: split
from config_cases import config_cases
from gate_cases import gate_cases
from generation_cases import generation_cases, good_generation_cases
from good_folder_cases import good_folder_cases
from shard_and_meta_cases import good_shard_and_meta_cases, meta_cases, shard_cases
from text_cases import good_text_cases, prompt_cases, tokenizer_cases
from trace_cases import good_trace_cases, trace_cases
from weight_cases import safetensors_cases, weight_cases

BAD = (
    *(config_cases, safetensors_cases, shard_cases, weight_cases, meta_cases),
    *(tokenizer_cases, prompt_cases, generation_cases, trace_cases, gate_cases),
)
GOOD = (good_folder_cases, good_shard_and_meta_cases, good_text_cases, good_generation_cases, good_trace_cases)


def corpus() -> list[Case]:
    """Every case; names are unique."""
    cases = [case for make in (*BAD, *GOOD) for case in make()]
    ids = [case.id for case in cases]
    assert len(set(ids)) == len(ids), sorted({i for i in ids if ids.count(i) > 1})
    return cases


def summary(verdicts: dict[str, dict]) -> str:
    """The table of what is promised, with the number of cases that hold it."""
    counts: dict[str, list[int]] = {}
    for case in corpus():
        concern = case.concern.removeprefix("good ")
        row = counts.setdefault(concern if "." in concern else concern.capitalize(), [0, 0, 0])
        row[case.refusal is None] += 1
        row[2] += bool(verdicts[case.id]["complaints"])
    refused = [verdicts[case.id] for case in corpus() if case.refusal]
    slowest, largest = (max(verdict[key] for verdict in refused) for key in ("seconds", "megabytes"))
    total = [sum(row[n] for row in counts.values()) for n in range(3)]
    lines = [
        "# What is promised about inputs",
        "",
        "A bad input gives one error that names file, key, what was expected and what was found, within "
        f"{SECONDS:g} s of the processor and {MEGABYTES} MB beyond the reading of its bytes; it never crashes, hangs, "
        "runs code or is accepted. A good input is never refused. Each case below runs in a process of its own, under "
        "limits. What a bad model folder is refused for is not converted either.",
        "",
        f"Measured: {total[0]} bad and {total[1]} good inputs, {total[2]} not as promised; the slowest refusal took "
        f"{slowest:.2f} s, the largest {largest:.0f} MB.",
        "",
        "| inputs | bad | good | not as promised |",
        "|---|---:|---:|---:|",
        *(f"| {concern} | {bad} | {good} | {wrong} |" for concern, (bad, good, wrong) in counts.items()),
        "",
        "Written by `python tests/trust/corpus.py --write benchmarks/results`.",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="WORDS")
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--write", type=Path, metavar="FOLDER")
    parser.add_argument("--show", action="store_true", help="every error in full")
    args = parser.parse_args()
    from forked import run_all

    failed, lines = 0, {}
    for case, verdict, place in run_all(
        case for case in corpus() if any(words in case.id for words in args.only.split("|"))
    ):
        wrong = complaints(case, verdict, place)
        lines[case.id] = dataclasses.asdict(verdict) | {"complaints": wrong}
        failed += bool(wrong)
        if args.show or (wrong and not args.json):
            what = "wrong" if wrong else "as promised"
            print(f"{what}: {case.id} ({verdict.seconds:.2f} s, {verdict.megabytes:.0f} MB)")
            print("    " + "\n    ".join(wrong or verdict.text.splitlines()))
    if args.write:
        (args.write / "trust.md").write_text(summary(lines), encoding="utf-8")
    if args.json:
        args.json.write_text(json.dumps(lines))
        return 0
    print(f"{len(lines)} cases, {failed} not as promised")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
