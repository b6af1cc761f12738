"""tools/student.py: the version without solutions."""

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_files import NOTEBOOKS, read, tags, tool

student = tool("student")

BOTH = """def twice(x):
    ### BEGIN SOLUTION
    y = x
    return y + x
    ### END SOLUTION
"""


def code(source: str, role: str = "", hidden: bool = False):
    metadata = {"tags": [role], "llama_core": {"exercise": "twice"}} if role else {}
    if hidden:
        metadata["jupyter"] = {"source_hidden": True}
    return new_code_cell(source, metadata=metadata, execution_count=1, outputs=[new_output("stream", text="printed\n")])


@pytest.fixture
def made():
    cells = [
        new_markdown_cell("Write `twice`."),
        code("def twice(x):\n    return x", "exercise"),
        code("check(twice)", "check"),
        code("### BEGIN SOLUTION\ndef twice(x):\n    return 2 * x\n### END SOLUTION", "solution", hidden=True),
        code("check(twice)", "check-solution"),
        code("print('what comes next')"),
    ]
    return new_notebook(cells=cells)


def test_stub_and_check_stay_and_the_solution_with_its_check_goes(made):
    assert [tags(cell) for cell in student.student_version(made).cells] == [[], ["exercise"], ["check"], []]


def test_what_an_exercise_printed_is_cleared_and_the_rest_kept(made):
    cells = [cell for cell in student.student_version(made).cells if cell.cell_type == "code"]
    assert [len(cell.outputs) for cell in cells] == [0, 0, 1]


def test_the_original_is_left_as_it_was(made):
    student.student_version(made)
    assert len(made.cells) == 6 and len(made.cells[1].outputs) == 1


def test_within_a_function_a_line_in_the_solutions_place_asks_for_it():
    namespace = {}
    exec(student.without_solution(BOTH), namespace)
    with pytest.raises(NotImplementedError, match="your code here"):
        namespace["twice"](1)


def test_a_cell_that_stays_in_part_is_unfolded():
    (cell,) = student.student_version(new_notebook(cells=[code(BOTH, "solution", hidden=True)])).cells
    assert "source_hidden" not in cell.metadata.jupyter and "y + x" not in cell.source


@pytest.mark.parametrize("source", [f"x = 1\n{student.BEGIN}\nx = 2", f"x = 1\n{student.END}"])
def test_markers_that_do_not_pair_up_are_refused(source):
    with pytest.raises(ValueError, match="do not pair up"):
        student.without_solution(source)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_no_line_of_a_solution_is_left(path):
    notebook = read(path)
    left = {line.strip() for cell in student.student_version(notebook).cells for line in cell.source.splitlines()}
    elsewhere = {line.strip() for c in notebook.cells if "solution" not in tags(c) for line in c.source.splitlines()}
    solutions = {line.strip() for c in notebook.cells if "solution" in tags(c) for line in c.source.splitlines()}
    assert left & (solutions - elsewhere) == set()
    assert solutions - elsewhere or not solutions, "no solution says anything that the notebook does not say elsewhere"
