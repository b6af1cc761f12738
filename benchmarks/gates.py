"""How long the gates take: wall seconds and processor seconds of whole commands, in processes of their own.

    python benchmarks/gates.py

The limits are those the gates were built for, on two cores: a check under 30 s, a proof under 120 s. Results go to
``benchmarks/results/gates.json``.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "gates.json"

#: Arguments of llama-core, and the limit in seconds where there is one.
COMMANDS = {
    "check": 30,
    "check --fast": None,
    "check --dtype bfloat16": None,
    "check --dtype float16": None,
    "check --model stories": None,
    "check --prove": 120,
    "check --prove --dtype bfloat16": None,
}


def measure(arguments: str) -> dict:
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "llama_core", *arguments.split()], stdout=subprocess.PIPE, text=True, check=False
    )
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "seconds": round(seconds, 1),
        "processor_seconds": round(processor, 1),
        "exit_status": done.returncode,
        "verdict": done.stdout.strip().splitlines()[-1],
    }


def main() -> None:
    found = {}
    for arguments, limit in COMMANDS.items():
        found[arguments] = measure(arguments) | {"limit_seconds": limit}
        row = found[arguments]
        within = "" if limit is None else f"   limit {limit} s"
        print(
            f"llama-core {arguments:<31} {row['seconds']:6.1f} s   processor {row['processor_seconds']:6.1f} s"
            f"{within}   {row['verdict']}",
            flush=True,
        )
    machine = {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    RESULTS.write_text(json.dumps({"commands": found, "machine": machine}, indent=2) + "\n", encoding="utf-8")
    print(f"written to {RESULTS.relative_to(Path.cwd()) if RESULTS.is_relative_to(Path.cwd()) else RESULTS.name}")


if __name__ == "__main__":
    main()
