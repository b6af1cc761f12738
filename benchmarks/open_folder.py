"""What opening a model folder costs: processor seconds, and bytes of memory beyond those of the weights.

    python benchmarks/open_folder.py                        # tinyllama-1.1b in bfloat16: 2.2 GB on the disk for a while
    python benchmarks/open_folder.py --preset llama-3.2-1b

A folder with random weights is written to a temporary place, opened in a fresh process for each dtype, and deleted.
Memory is the peak of the process's resident pages (VmHWM) less what it had after the imports; for weights in the dtype
of the file, these are the file's own pages. Seconds are the process's own, all its threads together. Results go to
``benchmarks/results/open_folder.json``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "open_folder.json"

WRITE = """
import sys
from llama_core import Llama, preset
Llama.random(preset(sys.argv[2]), dtype="bfloat16").save_pretrained(sys.argv[1])
"""

OPEN = """
import json, sys, time
from llama_core.weights import load_model

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

before, start = memory("VmRSS"), time.process_time()
model = load_model(sys.argv[1], dtype=sys.argv[2])
seconds = time.process_time() - start
weights = sum(p.nbytes for p in model.parameters())
added = memory("VmHWM") - before
print(json.dumps(dict(dtype=sys.argv[2], processor_seconds=round(seconds, 2), weights_bytes=weights, added_bytes=added,
                      beyond_weights_bytes=added - weights)))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tinyllama-1.1b", help="whose sizes the folder has")
    parser.add_argument("--dtypes", default="bfloat16,float16,float32", help="to open it in, separated by commas")
    args = parser.parse_args()
    if not Path("/proc/self/status").exists():
        sys.exit("peak memory is read from /proc/self/status, which this system does not have")
    with tempfile.TemporaryDirectory() as place:
        folder = str(Path(place) / args.preset)
        _run(WRITE, folder, args.preset)
        stored = sum(file.stat().st_size for file in Path(folder).iterdir())
        rows = [json.loads(_run(OPEN, folder, dtype)) for dtype in args.dtypes.split(",")]
    for row in rows:
        print(
            f"{row['dtype']:<9} {row['processor_seconds']:6.2f} s   "
            f"weights {row['weights_bytes'] / 1e6:,.0f} MB   beyond them {row['beyond_weights_bytes'] / 1e6:,.0f} MB"
        )
    result = {
        "preset": args.preset,
        "stored_dtype": "bfloat16",
        "stored_bytes": stored,
        "opened": rows,
        "machine": {
            "processor": platform.machine(),
            "cores": os.cpu_count(),
            "python": platform.python_version(),
            "torch": _run("import torch; print(torch.__version__)").strip(),
        },
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(f"written to {RESULTS}")


def _run(program: str, *args: str) -> str:
    """The output of a program in a process of its own, whose peak memory is its own too."""
    quiet = os.environ | {"TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *args], check=True, stdout=subprocess.PIPE, text=True, env=quiet
    )
    return done.stdout


if __name__ == "__main__":
    main()
