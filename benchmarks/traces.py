"""What a trace of a model costs: memory beyond the weights, time beside ``cp``, and the memory of comparing two.

    python benchmarks/traces.py                              # tinyllama-1.1b in bfloat16: 3 GB on the disk for a while
    python benchmarks/traces.py --layers 2 --rounds 1        # two of its layers: a minute

A folder with random weights is written to a temporary place and deleted in the end. Each figure is measured in a fresh
process, whose peak is its own. Memory is the peak of the process's own pages (RssAnon, sampled every 5 ms: mapped files
are the weights themselves, or the page cache's) less what it had after the imports.

- *trace*: 128 tokens, every activation. Beyond the weights, which are mapped. Limit 1 GB.
- *writing*: seconds of a run that writes less those of a run that hands its tensors to nobody, both several times in
  turn, as a ratio to ``cp -r`` of what was written, and to ``cp -r`` followed by ``sync`` of the same files: hashes and
  fsync are on our side of it. Medians of several rounds. Limit 2. The hash of the weights, one for each trace, is told
  apart.
- *floor*: what no writer of this format can be under while the model has every processor busy: sha256 of the same bytes
  on all of them, and ``cp``, which puts them into the same files without looking at them. Statistics and the way to the
  disk come on top.
- *compare*: two such traces with the model. Beyond the parameters of one layer, as they are stored. Limit 500 MB.

*Elsewhere* is how many processors other programs had meanwhile. Times say little where it is not near 0.

Results go to ``benchmarks/results/traces.json``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RESULTS = Path(__file__).resolve().parent / "results" / "traces.json"
LIMITS = {"trace_beyond_weights_bytes": 10**9, "writing_to_cp": 2.0, "compare_beyond_a_layer_bytes": 500 * 10**6}

WRITE_MODEL = """
import sys
from llama_core import Llama, preset
if sys.argv[2] == "stories":
    Llama.from_pretrained("stories").save_pretrained(sys.argv[1])
else:
    config = preset(sys.argv[2])
    config = config.replace(num_hidden_layers=int(sys.argv[3]) or config.num_hidden_layers)
    Llama.random(config, dtype="bfloat16").save_pretrained(sys.argv[1])
"""

#: Samples the process's own pages from a thread.
PEAK = """
import json, sys, threading, time

def own_pages():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))

class Peak(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.before = self.most = own_pages()
        self.going = True
    def run(self):
        while self.going:
            self.most = max(self.most, own_pages())
            time.sleep(0.005)
    def __enter__(self):
        self.start()
        return self
    def __exit__(self, *problem):
        self.going = False
        self.join()
    @property
    def added(self):
        return self.most - self.before
"""

TRACE = (
    PEAK
    + """
import shutil, statistics
import torch
from llama_core import Llama
from llama_core.names import activation_names
from llama_core.traces.recorder import manifest_of, plan_prompt, run_plan
from llama_core.traces.write import TraceWriter

folder, out, tokens = sys.argv[1], sys.argv[2], int(sys.argv[3])

class Nobody:
    def begin_call(self, call): pass
    def add(self, *tensor): pass

with Peak() as peak:
    model = Llama.from_pretrained(folder)
    weights = sum(p.nbytes for p in model.parameters())
    names = activation_names(model.config.num_hidden_layers)
    plan = plan_prompt(torch.randint(0, model.config.vocab_size, (tokens,), generator=torch.Generator().manual_seed(1)))
    start = time.perf_counter()
    manifest = manifest_of(model)
    hashing = time.perf_counter() - start
    run_plan(model, plan, Nobody(), names)
    alone, both = [], []
    for _ in range(int(sys.argv[4])):
        start, busy = time.perf_counter(), time.process_time()
        run_plan(model, plan, Nobody(), names)
        alone.append((time.perf_counter() - start, time.process_time() - busy))
        shutil.rmtree(out, ignore_errors=True)
        manifest.calls.clear(), manifest.tensors.clear()
        start, busy = time.perf_counter(), time.process_time()
        with TraceWriter(out, manifest) as writer:
            run_plan(model, plan, writer, names)
        both.append((time.perf_counter() - start, time.process_time() - busy))
forward, forward_busy = (statistics.median(figures) for figures in zip(*alone))
writing, writing_busy = (statistics.median(figures) for figures in zip(*both))
print(json.dumps(dict(added=peak.added, weights=weights, hashing_weights_seconds=hashing, forward_seconds=forward,
                      forward_and_writing_seconds=writing, writing_processor_seconds=writing_busy - forward_busy,
                      bytes=writer.bytes_written, layer=sum(p.nbytes for p in model.layers[0].parameters()))))
"""
)

#: A constant as the noise beside the golden trace: measuring it takes minutes, and changes no figure here.
NOISE = """
import sys
from pathlib import Path
import numpy as np
from llama_core.traces import Trace
from llama_core.traces.align import Golden
from llama_core.traces.format import NOISE, TensorRecord
from llama_core.traces.write import write_arrays

golden = Trace.open(sys.argv[1])
heads = {"H": golden.config.num_attention_heads, "K": golden.config.num_key_value_heads}
arrays = {}
for (name, _), record in golden.records.items():
    groups = next((heads[letter] for letter in record.axes.split() if letter in heads), 1)
    shape = len(Golden(golden).index(name)), groups
    arrays[f"{golden.manifest.compute_dtype}/{name}"] = np.full(shape, 0.01, np.float32)
write_arrays(Path(sys.argv[1]) / NOISE, arrays, [TensorRecord(n, 0, "", x.shape, "float32") for n, x in arrays.items()])
"""

COMPARE = (
    PEAK
    + """
import torch
from llama_core.traces import compare

start = time.perf_counter()
with Peak() as peak:
    result = compare(sys.argv[1], sys.argv[2], model=sys.argv[3] if len(sys.argv) > 3 else None)
statuses = {line.status for line in result.lines}
print(json.dumps(dict(added=peak.added, seconds=time.perf_counter() - start, passed=result.passed,
                      statuses=sorted(statuses))))
"""
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="tinyllama-1.1b", help="whose sizes the model has; or stories")
    parser.add_argument("--layers", type=int, default=0, help="fewer layers of that size; nothing is recorded then")
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3, help="of writing and copying")
    parser.add_argument("--place", help="a folder to work in, on the disk to be measured")
    args = parser.parse_args()
    if not Path("/proc/self/status").exists():
        sys.exit("peak memory is read from /proc/self/status, which this system does not have")
    with tempfile.TemporaryDirectory(dir=args.place) as place:
        result = measure(Path(place), args)
    table(result)
    if args.preset == "tinyllama-1.1b" and not args.layers:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
        print(f"written to {RESULTS.name}")


def measure(place: Path, args: argparse.Namespace) -> dict:
    model, one, two = (str(place / name) for name in ("model", "one", "two"))
    _run(WRITE_MODEL, model, args.preset, str(args.layers))
    rounds = []
    elsewhere = _Elsewhere()
    for _ in range(args.rounds):
        found = _json(TRACE, model, one, str(args.tokens), "3")
        copies = {"cp": _copy(one, place / "copy", False), "cp_and_sync": _copy(one, place / "copy", True)}
        hashes = {"sha256": _hash(one, 1), "sha256_on_all": _hash(one, os.cpu_count() or 1)}
        rounds.append(found | copies | hashes)
    writing = [r["forward_and_writing_seconds"] - r["forward_seconds"] for r in rounds]
    floors = [r["sha256_on_all"] + r["cp"] for r in rounds]
    elsewhere_while_writing = elsewhere.processors()
    _json(TRACE, model, two, str(args.tokens), "1")
    _run(NOISE, one)
    with_model, without = _json(COMPARE, one, two, model), _json(COMPARE, one, two)
    layer = rounds[0]["layer"]
    return {
        "preset": args.preset,
        "tokens": args.tokens,
        "bytes_written": rounds[0]["bytes"],
        "weights_bytes": rounds[0]["weights"],
        "layer_bytes": layer,
        "trace_beyond_weights_bytes": max(r["added"] for r in rounds),
        "writing_seconds": statistics.median(writing),
        "writing_processor_seconds": statistics.median(r["writing_processor_seconds"] for r in rounds),
        "writing_to_cp": statistics.median(w / r["cp"] for w, r in zip(writing, rounds, strict=True)),
        "writing_to_cp_and_sync": statistics.median(w / r["cp_and_sync"] for w, r in zip(writing, rounds, strict=True)),
        "floor_seconds": statistics.median(floors),
        "floor_to_cp": statistics.median(f / r["cp"] for f, r in zip(floors, rounds, strict=True)),
        "writing_to_floor": statistics.median(w / f for w, f in zip(writing, floors, strict=True)),
        "processors_elsewhere": elsewhere_while_writing,
        "hashing_weights_seconds": statistics.median(r["hashing_weights_seconds"] for r in rounds),
        "rounds": rounds,
        "compare_beyond_a_layer_bytes": with_model["added"] - layer,
        "compare_without_model_bytes": without["added"],
        "compare": with_model,
        "compare_without_model": without,
        "limits": LIMITS,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
    }


class _Elsewhere:
    """How busy the processors are with other programs than this one and those that it has waited for."""

    def __init__(self) -> None:
        self._start, self._busy = time.perf_counter(), self._others()

    def processors(self) -> float:
        return max(0.0, self._others() - self._busy) / (time.perf_counter() - self._start)

    @staticmethod
    def _others() -> float:
        fields = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()
        everybody = sum(int(fields[n]) for n in (1, 2, 3, 6, 7, 8)) / os.sysconf("SC_CLK_TCK")
        ours = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return everybody - sum(usage.ru_utime + usage.ru_stime for usage in ours)


def _hash(folder: str, threads: int) -> float:
    """Seconds of sha256 over the files of a folder, which are in memory already, so many at a time."""
    contents = [file.read_bytes() for file in Path(folder).iterdir()]
    with ThreadPoolExecutor(threads) as pool:
        start = time.perf_counter()
        list(pool.map(lambda content: hashlib.sha256(content).digest(), contents))
        return time.perf_counter() - start


def _copy(source: str, target: Path, sync: bool) -> float:
    """Seconds of ``cp -r``, with ``sync`` of what it wrote if wanted."""
    files = [str(target / file.name) for file in Path(source).iterdir()]
    start = time.perf_counter()
    subprocess.run(["cp", "-r", source, str(target)], check=True)
    if sync:
        subprocess.run(["sync", *files], check=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(target)
    return seconds


def table(result: dict) -> None:
    megabytes = 1e6
    rows = [
        ("bytes of the trace", f"{result['bytes_written'] / megabytes:,.0f} MB", ""),
        ("trace: memory beyond the weights", f"{result['trace_beyond_weights_bytes'] / megabytes:,.0f} MB", "1,000 MB"),
        ("writing, forward pass apart", f"{result['writing_seconds']:.2f} s", ""),
        ("  in processor seconds, all threads", f"{result['writing_processor_seconds']:.2f} s", ""),
        ("  as a ratio to cp", f"{result['writing_to_cp']:.2f}", "2"),
        ("  as a ratio to cp and sync", f"{result['writing_to_cp_and_sync']:.2f}", ""),
        ("  as a ratio to the floor", f"{result['writing_to_floor']:.2f}", ""),
        ("floor: sha256 on all processors, and cp", f"{result['floor_seconds']:.2f} s", ""),
        ("  as a ratio to cp", f"{result['floor_to_cp']:.2f}", ""),
        ("processors that other programs had meanwhile", f"{result['processors_elsewhere']:.2f}", ""),
        ("hash of the weights, once a trace", f"{result['hashing_weights_seconds']:.2f} s", ""),
        (
            "compare with the model: memory beyond one layer",
            f"{result['compare_beyond_a_layer_bytes'] / megabytes:,.0f} MB",
            "500 MB",
        ),
        ("compare without: memory", f"{result['compare_without_model_bytes'] / megabytes:,.0f} MB", "500 MB"),
        ("compare with the model: time", f"{result['compare']['seconds']:.1f} s", ""),
    ]
    for name, value, limit in rows:
        print(f"{name:<50} {value:>12}   {'limit ' + limit if limit else ''}".rstrip())


def _json(program: str, *args: str) -> dict:
    return json.loads(_run(program, *args).splitlines()[-1])


def _run(program: str, *args: str) -> str:
    """The output of a program in a process of its own."""
    quiet = os.environ | {"TQDM_DISABLE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *args], check=True, stdout=subprocess.PIPE, text=True, env=quiet
    )
    return done.stdout


if __name__ == "__main__":
    main()
