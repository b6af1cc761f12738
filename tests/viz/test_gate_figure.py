"""The picture of a gate's checks: what it marks where, and that rounding does not move it."""

import pytest
from drawing import heading, looks

from llama_core import viz
from llama_core.checkpoints.noise import EXACT, Tolerance
from llama_core.checkpoints.result import Check, CheckResult
from llama_core.errors import InputError

NOISE = Tolerance(4e-6, 1e-6, "noise.json")


def check(error: float, tolerance: Tolerance = NOISE, output: str = "scores", **rest) -> Check:
    return Check("prefill", "eager", output, error, tolerance, error <= tolerance.value, **rest)


def result(*checks: Check) -> CheckResult:
    return CheckResult("3", "Attention", "an implementation", "float32", "cpu", checks)


def marks(fig) -> list[tuple[str, float]]:
    """The marker and the place of each check's error, from top to bottom."""
    lines = [line for line in fig.axes[0].lines if line.get_marker() in "oX"]
    return [(line.get_marker(), float(line.get_xdata()[0])) for line in sorted(lines, key=lambda it: it.get_ydata()[0])]


def test_a_right_check_is_marked_by_class_and_a_wrong_one_at_its_error():
    errors = result(check(0.0, EXACT), check(1.9e-6), check(3.5e-6), check(0.25), check(float("inf")))
    fig = viz.gate_checks(errors)
    # Exact: the left edge. Up to three floors: the floor. Beyond: halfway to the tolerance, √(1e-6 · 4e-6) = 2e-6.
    assert marks(fig) == [("o", 1e-9), ("o", 1e-6), ("o", pytest.approx(2e-6)), ("X", 0.25), ("X", 10.0)]
    assert heading(fig) == "Checkpoint 3, Attention: 2 of 5 checks wrong (float32); 1 near the tolerance"


def test_right_results_of_two_processors_give_one_picture():
    # The same sums in other orders: errors between a tenth and twice the noise.
    one, other = (result(check(a), check(b), check(0.0, EXACT)) for a, b in ((1e-7, 2e-6), (9e-7, 3e-7)))
    assert viz.png(viz.gate_checks(one)) == viz.png(viz.gate_checks(other))
    wrong = result(check(1e-7), check(5e-6), check(0.0, EXACT))
    assert viz.png(viz.gate_checks(one)) != viz.png(viz.gate_checks(wrong))


def test_to_the_digit_the_mark_stands_where_the_error_was_measured():
    assert marks(viz.gate_checks(result(check(3e-7), check(3.5e-6)), to_the_digit=True)) == [("o", 3e-7), ("o", 3.5e-6)]


def test_welcome_outputs_are_drawn_on_demand():
    both = result(check(1e-7), check(1e-7, output="masked_scores", required=False))
    assert len(marks(viz.gate_checks(both))) == 1
    assert len(marks(viz.gate_checks(both, required_only=False))) == 2


def test_a_gate_that_compared_nothing_is_refused():
    with pytest.raises(InputError, match="compared nothing"):
        viz.gate_checks(result())


@looks
def test_looks_of_gate_checks():
    return viz.gate_checks(result(check(0.0, EXACT), check(1.9e-6), check(3.5e-6), check(0.25)))
