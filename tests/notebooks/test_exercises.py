"""The exercises: the stub does not pass, the solution does, and each known wrong answer is named for what it is.

Wrong answers stand in `wrong_answers/NN_name.py`, a file for each notebook: WRONG = [(exercise, source, mistake), ...].
"""

import runpy
import shutil
from pathlib import Path

import pytest
from notebook_files import NOTEBOOKS, ROOT, Exercise, exercises

#: Stubs that are no mistake of their own, but an empty place.
EMPTY = {"03-attention"}
EXERCISES = [exercise for path in NOTEBOOKS for exercise in exercises(path)]
WRONG = [
    (path.stem, *wrong)
    for path in sorted((Path(__file__).parent / "wrong_answers").glob("*.py"))
    for wrong in runpy.run_path(str(path))["WRONG"]
]


#: Notebooks whose exercises are compiled, then traced and compared: ten seconds and more for an answer.
IN_C = {"11_port_your_own"}


def each(rows, ids):
    """Parameters of a test, one for each row; those of notebooks in C are slow."""
    notebooks = [row.notebook if isinstance(row, Exercise) else row[0] for row in rows]
    marks = [[pytest.mark.slow] * (notebook in IN_C) for notebook in notebooks]
    values = [(row,) if isinstance(row, Exercise) else row for row in rows]
    return [pytest.param(*v, id=i, marks=m) for v, i, m in zip(values, ids, marks, strict=True)]


def verdict(exercise: Exercise, answer: str, monkeypatch: pytest.MonkeyPatch):
    """What the check says of an answer: the variable `result` that it leaves. Runs without a kernel."""
    if exercise.notebook in IN_C and not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("there is no C compiler: cc, gcc or clang")
    monkeypatch.chdir(ROOT / "notebooks")
    namespace: dict = {"__name__": "__main__"}
    for source in (exercise.imports, answer, exercise.check):
        exec(source, namespace)
    return namespace["result"]


def name(exercise: Exercise) -> str:
    return f"{exercise.notebook}-{exercise.id}"


@pytest.mark.parametrize("exercise", each(EXERCISES, map(name, EXERCISES)))
def test_the_stub_does_not_pass_and_is_told_why(exercise, monkeypatch):
    found = verdict(exercise, exercise.stub, monkeypatch)
    assert found.passed is False
    assert len(found.feedback()) > len("Not yet.")
    named = found.cause is not None and found.cause.mistake is not None
    assert named != (exercise.id in EMPTY)


@pytest.mark.parametrize("exercise", each(EXERCISES, map(name, EXERCISES)))
def test_the_solution_passes(exercise, monkeypatch):
    assert verdict(exercise, exercise.solution, monkeypatch).passed is True


@pytest.mark.parametrize("exercise", EXERCISES, ids=name)
def test_two_wrong_answers_or_more_are_known(exercise):
    mistakes = {mistake for notebook, id, _, mistake in WRONG if (notebook, id) == (exercise.notebook, exercise.id)}
    assert len(mistakes) >= 2


@pytest.mark.parametrize(("notebook", "id", "source", "mistake"), each(WRONG, [f"{w[0]}-{w[1]}-{w[3]}" for w in WRONG]))
def test_a_wrong_answer_does_not_pass_and_is_named(notebook, id, source, mistake, monkeypatch):
    (exercise,) = [e for e in EXERCISES if (e.notebook, e.id) == (notebook, id)]
    found = verdict(exercise, source, monkeypatch)
    assert found.passed is False
    assert found.cause is not None and found.cause.mistake is not None, found
    assert found.cause.mistake.id == mistake


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_has_two_or_three_exercises(path):
    assert 2 <= len(exercises(path)) <= 3
