"""Copy the README's figures out of the notebooks' stored outputs: python tools/readme_figures.py [--check].

A figure is drawn once, in its notebook. With --check nothing is written: the exit status is 1 where a file differs.
"""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "notebooks" / "figures"

#: File -> the notebook, and a piece of source that only the cell has whose first picture it is.
FIGURES = {
    "three_heads.png": ("03_attention", "show(attention_maps(maps"),
    "four_wrong_masks.png": ("03_attention", '"attention-mask-never-applied", "attention-mask-shows-one-future-token"'),
}


def picture(notebook: nbformat.NotebookNode, source: str) -> bytes:
    """The first stored PNG of the one code cell that contains ``source``."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source]
    if len(cells) != 1:
        raise SystemExit(
            f"{len(cells)} cells contain {source!r}; there must be one. Mend FIGURES in {Path(__file__).name}"
        )
    for output in cells[0].outputs:
        if "image/png" in output.get("data", {}):
            return base64.b64decode(output.data["image/png"])
    raise SystemExit(f"the cell with {source!r} has no stored picture. Run `make notebooks` first")


def figures() -> dict[str, bytes]:
    """File name -> bytes, as the notebooks have them now."""
    return {
        name: picture(nbformat.read(ROOT / "notebooks" / f"{stem}.ipynb", as_version=4), source)
        for name, (stem, source) in FIGURES.items()
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Copy the README's figures out of the notebooks.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file differs")
    check = parser.parse_args(arguments).check
    FOLDER.mkdir(exist_ok=True)
    status = 0
    for name, data in figures().items():
        path = FOLDER / name
        same = path.exists() and path.read_bytes() == data
        if check:
            print(f"{name}: {'as in its notebook' if same else 'differs from its notebook'}")
            status |= not same
        elif not same:
            path.write_bytes(data)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
