"""tools/run_notebooks.py on a small notebook: the same bytes each time, and nothing of the machine in them."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import tool

run_notebooks = tool("run_notebooks")

SOURCES = [
    "import warnings\nwarnings.warn('careful')",
    "import ipywidgets\nslider = ipywidgets.IntSlider(description='head')\nslider",
    "for _ in range(3):\n    print('line', flush=True)",
    "held = bytearray(300_000_000)",
    "import time\nwhile time.process_time() < 2:\n    pass",
]


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """The notebook after one run, then what a second run measured and what it left."""
    folder = tmp_path_factory.mktemp("executed")
    path = folder / "small.ipynb"
    cells = [new_code_cell(source, id=f"cell-{number}") for number, source in enumerate(SOURCES)]
    metadata = {"kernelspec": {"name": "conda-env-mine", "display_name": "Mine", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
    assert run_notebooks.main([str(path)]) == 0
    first = path.read_bytes()
    assert run_notebooks.main([str(path), "--record", str(folder / "record.json")]) == 0
    return first, path, json.loads((folder / "record.json").read_text())


def test_a_second_run_writes_the_same_bytes(executed):
    first, path, _ = executed
    assert path.read_bytes() == first


def test_check_stores_nothing_and_fails_where_an_output_differs(executed):
    _, path, _ = executed
    changed = path.parent / "changed.ipynb"
    text = path.read_text().replace('"line\\n', '"lime\\n', 1)
    assert text != path.read_text()
    changed.write_text(text)
    assert run_notebooks.main(["--check", str(changed), str(path)]) == 1
    assert changed.read_text() == text


def test_no_state_id_or_version_of_this_run_is_stored(executed):
    notebook = nbformat.read(executed[1], as_version=4)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    assert notebook.cells[1].outputs[0].data[run_notebooks.WIDGET_VIEW].model_id == "0" * 32
    assert not any("execution" in cell.metadata for cell in notebook.cells)


def test_lines_printed_one_by_one_are_one_output(executed):
    notebook = nbformat.read(executed[1], as_version=4)
    assert [output.text for output in notebook.cells[2].outputs] == ["line\nline\nline\n"]


def test_a_warning_does_not_name_a_temporary_file(executed):
    text = nbformat.read(executed[1], as_version=4).cells[0].outputs[0].text
    assert text.startswith("CELL:2: UserWarning: careful") and "ipykernel" not in text


def test_the_cell_that_measures_is_not_stored(executed):
    assert [cell.source for cell in nbformat.read(executed[1], as_version=4).cells] == SOURCES


@pytest.mark.skipif(run_notebooks.sys.platform == "win32", reason="Windows does not tell the peak memory")
def test_the_peak_memory_is_that_of_the_kernel(executed):
    measured = executed[2]["notebooks"]["small"]["peak_memory_mb"]
    assert 300 < measured < 600  # the bytes above; an idle kernel takes about 80


@pytest.mark.skipif(run_notebooks.sys.platform == "win32", reason="Windows does not tell the processor time")
def test_the_busy_seconds_are_those_of_the_kernel(executed):
    assert 2 <= executed[2]["notebooks"]["small"]["cpu_seconds"] < 3  # the last cell ends at 2; none of it is waiting
