"""notebooks/conftest.py on tiny notebooks: one as stored, one with a small change in each cell, one without outputs.

The pictures have 1000 × 600 pixels, as many as one in the workbook gets, so that a small change is small beside them.
"""

import base64
import copy
import io
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from notebook_files import ROOT, tool
from PIL import Image

PRINT = "print('error 0.1234 in 3.21 ms')"
PICTURE = """
import io
from IPython.display import display
from PIL import Image
buffer = io.BytesIO()
Image.linear_gradient("L").resize((1000, 600)).convert("RGB").save(buffer, "PNG")
display({"image/png": buffer.getvalue(), "text/plain": "a picture"}, raw=True, metadata={"image/png": {"alt": "grey"}})
"""


def redraw(cell, paint: Callable[[np.ndarray], np.ndarray]) -> None:
    data = cell.outputs[0].data
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))))
    buffer = io.BytesIO()
    Image.fromarray(paint(pixels)).save(buffer, "PNG")
    data["image/png"] = base64.b64encode(buffer.getvalue()).decode()


def printed_duration(cell):
    cell.outputs[0].text = cell.outputs[0].text.replace("3.21 ms", "45.6 ms")


def colours_by_a_few_levels(cell):
    def paint(pixels):
        pixels[::50, ::50] = np.minimum(pixels[::50, ::50] + 3, 255)
        return pixels

    redraw(cell, paint)


def last_digit_of_a_value(cell):
    cell.outputs[0].data["text/plain"] = "0.1235"


def last_digit_of_a_printed_number(cell):
    cell.outputs[0].text = cell.outputs[0].text.replace("0.1234", "0.1235")


def picture_swapped_for_another(cell):
    redraw(cell, lambda pixels: pixels[::-1])


def three_by_forty_pixels(cell):
    def paint(pixels):
        pixels[300:303, 500:540] += 32
        return pixels

    redraw(cell, paint)


def picture_narrower_by_a_column(cell):
    redraw(cell, lambda pixels: pixels[:, :-1])


def second_picture(cell):
    cell.outputs.append(copy.deepcopy(cell.outputs[0]))


def alternative_text(cell):
    cell.outputs[0].metadata["image/png"]["alt"] = "gray"


def value_where_a_semicolon_hides_it(cell):
    value = nbformat.v4.new_output("execute_result", {"text/plain": "7"}, execution_count=cell.execution_count)
    cell.outputs = [value]


def widget_view_removed(cell):
    del cell.outputs[0].data["application/vnd.jupyter.widget-view+json"]


def other_stream(cell):
    cell.outputs[0].name = "stderr"


def mark_of_having_run(cell):
    cell.execution_count = None


#: A change of what is stored for a cell -> the cell's source.
SEEN = {
    last_digit_of_a_value: "0.1234",
    last_digit_of_a_printed_number: PRINT,
    picture_swapped_for_another: PICTURE,
    three_by_forty_pixels: PICTURE,
    picture_narrower_by_a_column: PICTURE,
    second_picture: PICTURE,
    alternative_text: PICTURE,
    value_where_a_semicolon_hides_it: "x = 7\nx;",
    widget_view_removed: "import ipywidgets\nipywidgets.IntSlider(description='head')",
    other_stream: PRINT,
    mark_of_having_run: "x = 8",
}
NOT_SEEN = {printed_duration: PRINT, colours_by_a_few_levels: PICTURE}
CHANGES = {**SEEN, **NOT_SEEN}


@pytest.fixture(scope="module")
def failed(tmp_path_factory) -> dict[str, set[str]]:
    """The changes whose cells fail: in the notebook as stored, in the changed one, in the one without outputs."""
    folder = tmp_path_factory.mktemp("strict")
    stored = new_notebook(cells=[new_code_cell(source) for source in CHANGES.values()])
    run_notebooks = tool("run_notebooks")
    run_notebooks.execute(stored, folder)
    run_notebooks.normalise(stored)
    changed, stripped = copy.deepcopy(stored), copy.deepcopy(stored)
    for change, cell in zip(CHANGES, changed.cells, strict=True):
        change(cell)
    for cell in stripped.cells:
        cell.outputs, cell.execution_count = [], None
    for name, notebook in {"stored": stored, "changed": changed, "stripped": stripped}.items():
        nbformat.write(notebook, folder / f"{name}.ipynb")

    shutil.copy(ROOT / "notebooks" / "conftest.py", folder)
    options = ["--nbval", "--nbval-current-env", "--nbval-sanitize-with", ROOT / "tools" / "nbval_sanitize.cfg"]
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "--junit-xml=cells.xml", "."]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert (folder / "cells.xml").is_file(), result.stdout + result.stderr
    cells = list(ElementTree.parse(folder / "cells.xml").iter("testcase"))
    assert len(cells) == 3 * len(CHANGES), result.stdout
    names = [change.__name__ for change in CHANGES]
    red: dict[str, set[str]] = {"stored": set(), "changed": set(), "stripped": set()}
    for cell in cells:
        if cell.find("failure") is not None:
            red[cell.get("classname").removesuffix(".ipynb")].add(names[int(cell.get("name").removeprefix("Cell "))])
    return red


def test_a_notebook_as_stored_is_green(failed):
    assert failed["stored"] == set()


def test_a_notebook_without_outputs_is_red_in_every_cell(failed):
    assert failed["stripped"] == {change.__name__ for change in CHANGES}


@pytest.mark.parametrize("change", SEEN, ids=lambda change: change.__name__)
def test_a_change_of_what_is_stored_turns_its_cell_red(failed, change):
    assert change.__name__ in failed["changed"]


@pytest.mark.parametrize("change", NOT_SEEN, ids=lambda change: change.__name__)
def test_what_differs_between_two_honest_runs_stays_green(failed, change):
    assert change.__name__ not in failed["changed"]
