"""11_port_your_own where there is no C compiler: it says so, and does not fail."""

import sys

import nbclient
import pytest
from notebook_files import ROOT, read

FOLDER = ROOT / "notebooks"


@pytest.mark.skipif(sys.platform == "win32", reason="compilers are hidden by an empty PATH")
def test_without_a_compiler_the_notebook_says_so_and_leaves_out_what_needs_one(tmp_path, monkeypatch):
    notebook = read(FOLDER / "11_port_your_own.ipynb")
    monkeypatch.setenv("PATH", str(tmp_path))
    resources = {"metadata": {"path": str(FOLDER)}}
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3", resources=resources).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    said = [number for number, cell in enumerate(cells) for o in cell.outputs if "no C compiler" in o.get("text", "")]
    assert len(said) == 1
    assert [cell.outputs for cell in cells[said[0] + 1 :]] == [[]] * len(cells[said[0] + 1 :])
