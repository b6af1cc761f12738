"""Execute notebooks and store their outputs, without what changes from run to run.

The same notebook on the same machine gives the same bytes each time. One line is printed for each notebook: seconds,
those that its kernel's processor worked, and its kernel's peak memory.

usage: python tools/run_notebooks.py [--check] [--record FILE.json] NOTEBOOK.ipynb ...
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import time
from importlib.metadata import version
from pathlib import Path

import nbclient
import nbformat
from nbformat import NotebookNode

CELL_SECONDS = 300
CELL_FILE = re.compile(r"/tmp/ipykernel_\d+/\d+\.py")
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"

# Run in the notebook's own kernel after its last cell, and never stored: peak memory in bytes, seconds of processor
# time, which other work on the machine does not lengthen. Linux's `ru_maxrss` begins at the peak of the
# process that started the kernel, its VmHWM (kB) does not. macOS, without VmHWM, counts `ru_maxrss` in bytes.
USED = """
import time as _time
from pathlib import Path as _Path
_status = _Path("/proc/self/status")
if _status.exists():
    _peak = next(int(l.split()[1]) * 1024 for l in _status.read_text().splitlines() if l.startswith("VmHWM"))
else:
    import resource as _resource
    _peak = _resource.getrusage(_resource.RUSAGE_SELF).ru_maxrss
print(_peak, _time.process_time())
"""


def normalise(notebook: NotebookNode) -> NotebookNode:
    """Drop what depends on the machine or the moment: widgets' states and ids, versions, times, temporary files."""
    notebook.metadata.pop("widgets", None)
    notebook.metadata["kernelspec"] = {
        "display_name": "Python 3 (ipykernel)",
        "language": "python",
        "name": "python3",
    }
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        for output in cell.get("outputs", []):
            view = output.get("data", {}).get(WIDGET_VIEW)
            if view is not None:
                view["model_id"] = "0" * 32
            if output.output_type == "stream":
                output.text = CELL_FILE.sub("CELL", output.text)
    return notebook


def execute(notebook: NotebookNode, folder: Path) -> tuple[float, int | None, float | None]:
    """Execute in place with `folder` as working directory.

    Returns:
        Seconds from start to end, the kernel's peak memory in bytes, and its seconds of processor time. The last two
        are None on Windows, which does not tell.

    Raises nbclient's CellExecutionError as soon as a cell fails.
    """
    if sys.platform != "win32":
        notebook.cells.append(nbformat.v4.new_code_cell(USED))
    client = nbclient.NotebookClient(
        notebook,
        timeout=CELL_SECONDS,
        kernel_name="python3",
        record_timing=False,
        coalesce_streams=True,
        store_widget_state=False,
        resources={"metadata": {"path": str(folder)}},
    )
    start = time.perf_counter()
    client.execute()
    seconds = time.perf_counter() - start
    if sys.platform == "win32":
        return seconds, None, None
    peak, processor = notebook.cells.pop().outputs[0].text.split()
    return seconds, int(peak), float(processor)


def run(path: Path, check: bool = False) -> dict:
    """Execute one notebook and store it, or with `check` only say whether the result is what is stored.

    Returns:
        ``seconds``, ``cpu_seconds``, ``peak_memory_mb``, ``file_kb`` and, with `check`, ``unchanged``.
    """
    notebook = nbformat.read(path, as_version=4)
    seconds, peak, processor = execute(notebook, path.resolve().parent)
    text = nbformat.writes(normalise(notebook)) + "\n"
    measured = {
        "seconds": round(seconds, 1),
        "cpu_seconds": None if processor is None else round(processor, 1),
        "peak_memory_mb": None if peak is None else round(peak / 1e6),
        "file_kb": round(len(text.encode()) / 1e3),
    }
    if check:
        measured["unchanged"] = path.read_text(encoding="utf-8") == text
    else:
        path.write_text(text, encoding="utf-8", newline="\n")
    return measured


def machine() -> dict:
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": version("torch"),
        "matplotlib": version("matplotlib"),
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Execute notebooks and store their outputs.")
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK.ipynb")
    parser.add_argument(
        "--check", action="store_true", help="store nothing; fail where the result is not what is stored"
    )
    parser.add_argument("--record", type=Path, metavar="FILE", help="write what was measured as JSON")
    options = parser.parse_args(arguments)

    os.environ["TQDM_DISABLE"] = "1"
    # Inherited from a shell, this backend draws no figure into a notebook.
    os.environ.pop("MPLBACKEND", None)
    measured = {}
    for path in options.notebooks:
        measured[path.stem] = result = run(path, options.check)
        memory = "" if result["peak_memory_mb"] is None else f"{result['peak_memory_mb']:6d} MB"
        differs = "" if result.get("unchanged", True) else "   differs from what is stored"
        busy = "" if result["cpu_seconds"] is None else f"{result['cpu_seconds']:6.1f} s busy"
        print(
            f"{path.name:32} {result['seconds']:6.1f} s {busy} {memory} {result['file_kb']:5d} kB{differs}", flush=True
        )
    total = round(sum(result["seconds"] for result in measured.values()), 1)
    print(f"{'all':32} {total:6.1f} s")
    if options.record:
        record = {"machine": machine(), "total_seconds": total, "notebooks": measured}
        options.record.write_text(json.dumps(record, indent=2) + "\n")
    return 0 if all(result.get("unchanged", True) for result in measured.values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
