"""The ladder of errors: where its marks stand."""

import numpy as np
import pytest
from drawing import heading

from llama_core import viz
from llama_core.errors import InputError

NAMES = ["embedding", "layers.0.q", "layers.0.output", "layers.1.q", "layers.1.output", "logits"]
#: The third lies above its noise and within the tolerance, which is more.
ERRORS = {"cumulative": [0.0, 1e-7, 2e-6, 1e-2, 1e-3, np.inf]}
NOISE = {"cumulative": [0.0, 1e-8, 1e-6, 1e-6, np.nan, 1e-6]}


def drawn():
    return viz.noise_ladder(NAMES, ERRORS, NOISE, wrong=["layers.1.q"])


def marks(fig, marker):
    """Where the marks of a kind stand, and how high."""
    lines = [line for line in fig.axes[0].lines if line.get_marker() == marker]
    return [(int(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_wrong_tensors_are_crossed_and_inherited_errors_are_hollow():
    fig = drawn()
    assert marks(fig, "X") == [(3, 1e-2)]
    hollow = [line for line in fig.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [int(x) for line in hollow for x in line.get_xdata()] == [1, 5]


def test_exact_values_stand_at_the_lower_edge_and_infinite_ones_at_the_upper():
    fig = drawn()
    low, high = fig.axes[0].get_ylim()
    heights = dict(marks(fig, "o"))
    assert low < heights[0] < 1e-7 < 1e-2 < heights[5] < high


def test_the_title_names_the_first_wrong_tensor():
    assert heading(drawn()).startswith("The first wrong tensor is layers.1.q; 3 of 6")


def test_layers_are_numbered_once():
    assert [t.get_text() for t in drawn().axes[-1].get_xticklabels()] == ["0", "1"]


def test_panels_that_do_not_agree_are_refused():
    with pytest.raises(InputError):
        viz.noise_ladder(NAMES, ERRORS, {"other": NOISE["cumulative"]})
    with pytest.raises(InputError):
        viz.noise_ladder(NAMES, {"cumulative": [1.0]}, NOISE)
