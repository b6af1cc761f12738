"""Write the notebooks without the solutions of their exercises: `build/student/`, for classes.

Authored once, as with nbgrader: what stands between `### BEGIN SOLUTION` and `### END SOLUTION` is taken out, with a
line in its place that says so. A cell that holds nothing but a solution goes whole, since the stub above it is where
the answer is written; so does the check of the solution. What the other cells of an exercise printed is cleared.

usage: python tools/student.py [--to FOLDER] NOTEBOOK.ipynb ...
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
_REGION = re.compile(rf"^([ \t]*){BEGIN}[ \t]*\n(.*?)^[ \t]*{END}[ \t]*$", re.DOTALL | re.MULTILINE)
_BLANK = r"\1# your code here\n\1raise NotImplementedError('your code here')"


def without_solution(source: str) -> str:
    """The source with every solution replaced by a line that asks for it; empty where nothing else is in it.

    Raises:
        ValueError: a solution begins and does not end, or ends and did not begin.
    """
    if not _REGION.sub("", source).strip():
        return ""
    blank = _REGION.sub(_BLANK, source)
    if BEGIN in blank or END in blank:
        raise ValueError(f"{BEGIN!r} and {END!r} do not pair up in this cell:\n{source}")
    return blank


def student_version(notebook: NotebookNode) -> NotebookNode:
    """A copy of the notebook for somebody who has yet to find the solutions.

    Raises:
        ValueError: markers of a solution do not pair up.
    """
    notebook = nbformat.from_dict(notebook)
    kept = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            kept.append(cell)
            continue
        blank = without_solution(cell.source)
        if "check-solution" in cell.metadata.get("tags", []) or (cell.source.strip() and not blank):
            continue
        if blank != cell.source or "exercise" in cell.metadata.get("llama_core", {}):
            cell.source, cell.outputs, cell.execution_count = blank, [], None
            cell.metadata.get("jupyter", {}).pop("source_hidden", None)
        kept.append(cell)
    notebook.cells = kept
    return notebook


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Write the notebooks without the solutions of their exercises.")
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK.ipynb")
    parser.add_argument("--to", type=Path, default=Path("build/student"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    options.to.mkdir(parents=True, exist_ok=True)
    for path in options.notebooks:
        nbformat.write(student_version(nbformat.read(path, as_version=4)), options.to / path.name)
        print(options.to / path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
