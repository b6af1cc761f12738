"""The ladder of errors, in both looks: engines beside each other, and one engine over the noise of right runs."""

import math

import numpy as np
import pytest
from drawing import heading, ladder, looks

from llama_core import viz
from llama_core.errors import InputError

NAMES = ["embedding", "layers.0.q", "layers.0.output", "logits"]


def points(ax) -> dict[str, list[tuple[float, float]]]:
    """What is drawn as none, inherited and wrong: (place in the dataflow, error)."""
    return {line.get_gid(): [tuple(xy) for xy in line.get_xydata().tolist()] for line in ax.lines if line.get_gid()}


def test_each_error_stands_at_its_place_as_none_inherited_or_wrong():
    fig = viz.error_ladder({"mine": dict(zip(NAMES, [1e-7, 0.5, 2e-3, 0.0], strict=True))}, {"mine": ["layers.0.q"]})
    assert points(fig.axes[0]) == {
        "none": [(0, 1e-5), (3, 1e-5)],
        "inherited": [(2, pytest.approx(2e-3))],
        "wrong": [(1, 0.5)],
    }


def test_the_title_says_where_each_run_begins_to_be_wrong():
    runs = {"before": dict.fromkeys(NAMES, 1.0), "after": dict.fromkeys(NAMES, 0.0)}
    fig = viz.error_ladder(runs, {"before": ["layers.0.output", "layers.0.q"]})
    assert heading(fig) == "“before” begins at layers.0.output; nothing is wrong in 1 of 2 runs"
    titles = [ax.get_title(loc="left") for ax in fig.axes]
    assert titles == ["before: begins at layers.0.output", "after: nothing is wrong"]


@pytest.mark.parametrize("error", [math.nan, math.inf, 1e9])
def test_an_error_without_measure_stands_at_the_upper_edge(error):
    fig = viz.error_ladder({"mine": dict(zip(NAMES, [0, 0, 0, error], strict=True))}, {"mine": ["logits"]})
    assert points(fig.axes[0])["wrong"] == [(3, 10.0)]


def test_noise_below_the_floor_moves_nothing():
    runs = [{"mine": {name: noise * n for n, name in enumerate(NAMES)}} for noise in (1e-8, 3e-7)]
    assert viz.png(viz.error_ladder(runs[0])) == viz.png(viz.error_ladder(runs[1]))


@pytest.mark.parametrize(
    "errors, wrong",
    [
        ({}, {}),
        ({"a": {}}, {}),
        ({str(n): {"q": 0.0} for n in range(9)}, {}),
        ({"a": {"q": 0.0}, "b": {"k": 0.0}}, {}),
        ({"a": {"q": 0.0}}, {"b": ["q"]}),
        ({"a": {"q": 0.0}}, {"a": ["k"]}),
    ],
)
def test_runs_that_cannot_stand_below_each_other_are_refused(errors, wrong):
    with pytest.raises(InputError):
        viz.error_ladder(errors, wrong)


def test_every_layer_is_named_where_it_begins():
    fig = viz.error_ladder(*ladder(3))
    ax = fig.axes[-1]
    named = {label.get_text(): x for label, x in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)}
    assert {name: x for name, x in named.items() if name} == {"layer 0": 1, "layer 1": 4, "layer 2": 7}
    assert np.isclose(ax.get_ylim()[0], 5e-6)


@looks
def test_looks_of_error_ladder():
    return viz.error_ladder(*ladder(4))


# Over the noise of right runs

PLACES = ["embedding", "layers.0.q", "layers.0.output", "layers.1.q", "layers.1.output", "logits"]
#: The third lies above its noise and within the tolerance, which is more.
ERRORS = {"cumulative": [0.0, 1e-7, 2e-6, 1e-2, 1e-3, np.inf]}
NOISE = {"cumulative": [0.0, 1e-7, 1e-6, 1e-6, np.nan, 1e-6]}


def over_noise():
    return viz.noise_ladder(PLACES, ERRORS, NOISE, wrong=["layers.1.q"])


def marks(fig, marker):
    """Where the marks of a kind stand, and how high."""
    lines = [line for line in fig.axes[0].lines if line.get_marker() == marker]
    return [(int(x), float(y)) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]


def test_over_noise_wrong_tensors_are_crossed_and_inherited_errors_are_hollow():
    fig = over_noise()
    assert marks(fig, "X") == [(3, 1e-2)]
    hollow = [line for line in fig.axes[0].lines if line.get_markerfacecolor() == "white"]
    assert [int(x) for line in hollow for x in line.get_xdata()] == [5]


def test_over_noise_exact_values_stand_at_the_lower_edge_and_infinite_ones_at_the_upper():
    fig = over_noise()
    low, high = fig.axes[0].get_ylim()
    heights = dict(marks(fig, "o"))
    assert low < heights[0] < 1e-7 < 1e-2 < heights[5] < high


def test_over_noise_the_title_names_the_first_wrong_tensor():
    assert heading(over_noise()).startswith("The first wrong tensor is layers.1.q; 2 of 6")


def test_over_noise_layers_are_numbered_once():
    assert [t.get_text() for t in over_noise().axes[-1].get_xticklabels()] == ["0", "1"]


def test_panels_of_noise_that_do_not_agree_are_refused():
    with pytest.raises(InputError):
        viz.noise_ladder(PLACES, ERRORS, {"other": NOISE["cumulative"]})
    with pytest.raises(InputError):
        viz.noise_ladder(PLACES, {"cumulative": [1.0]}, NOISE)


@looks
def test_looks_of_noise_ladder():
    names, wrong = ["embedding", *(f"layers.{n}.{k}" for n in range(4) for k in ("q", "scores", "output")), "logits"], 5
    noise = np.array([0.0, *(1e-3 * 2.0 ** (n % 4) for n in range(len(names) - 1))])
    errors = {"one": noise * np.where(np.arange(len(names)) < wrong, 0.5, 50.0), "two": noise * 0.5}
    errors["two"][wrong] = np.inf
    errors["one"][-1] = np.nan
    return viz.noise_ladder(names, errors, {"one": noise, "two": noise}, wrong=[names[wrong]])
