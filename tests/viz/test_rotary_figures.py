import numpy as np
import pytest
from drawing import heading, images, looks, turned

from llama_core import viz
from llama_core.errors import InputError


def scatter(ax):
    [points] = [c for c in ax.collections if c.get_gid() == "positions"]
    return points.get_offsets()


def test_pairs_take_their_coordinates_by_layout():
    vectors = np.arange(8.0).reshape(2, 4) + 1
    half, interleaved = (viz.rotary_pairs(vectors, layout=layout, pairs=[1]) for layout in ("half", "interleaved"))
    assert scatter(half.axes[0]).tolist() == [[2, 4], [6, 8]]
    assert scatter(interleaved.axes[0]).tolist() == [[3, 4], [7, 8]]


def test_the_turn_of_each_pair_is_measured_from_the_vectors():
    # theta 100, D 8: pair 0 turns 1 radian, pair 3 turns 100^(-3/4) of one.
    fig = viz.rotary_pairs(turned(5, size=8, theta=100.0))
    assert heading(fig) == "From one position to the next, pair 0 turns 57.3° and pair 3 1.81°"


def test_positions_that_are_not_neighbours_count_by_their_distance():
    fig = viz.rotary_pairs(turned(5)[[0, 2]], [0, 2], pairs=[0])
    assert heading(fig) == "Pair 0 turns 57.3° from one position to the next"


@pytest.mark.parametrize(
    "settings", [{"layout": "other"}, {"pairs": [4]}, {"pairs": []}, {"positions": [0, 1, 2, 3, 4, 5]}]
)
def test_settings_that_do_not_fit_are_refused(settings):
    with pytest.raises(InputError):
        viz.rotary_pairs(turned(5), **settings)


def test_an_odd_head_dimension_is_refused():
    with pytest.raises(InputError, match="pairs"):
        viz.rotary_pairs(np.ones((2, 3)))
    with pytest.raises(InputError, match="pairs"):
        viz.rotary_layouts(3)


def test_the_map_holds_cosines_of_position_times_frequency():
    # Quarter and half turns: cos 0, 1, 2, 3 quarters = 1 0 -1 0; halves 1 -1 1 -1.
    fig = viz.frequency_map([np.pi / 2, np.pi], [0, 1, 2, 3])
    assert images(fig)[0].T.round(12).tolist() == [[1, 0, -1, 0], [1, -1, 1, -1]]


def test_wavelengths_are_a_whole_turn_over_the_frequency():
    fig = viz.frequency_map([np.pi / 2, np.pi / 50], range(10))
    [curve] = [line for line in fig.axes[0].lines if line.get_gid() == "wavelength"]
    assert curve.get_ydata().tolist() == pytest.approx([4, 100])
    assert heading(fig) == "Pairs that never complete a turn within 10 positions: 1 of 2"


@pytest.mark.parametrize("frequencies", [[0.0], [-1.0], [[1.0, 2.0], [3.0, 4.0]], {}, {"a": [1.0], "b": [1.0, 2.0]}])
def test_frequencies_that_turn_nothing_are_refused(frequencies):
    with pytest.raises(InputError):
        viz.frequency_map(frequencies, [0, 1])


def test_layouts_colour_the_two_coordinates_of_a_pair():
    half, interleaved = viz.rotary_layouts(6).axes
    for ax, expected in ((half, [0, 1, 2, 0, 1, 2]), (interleaved, [0, 0, 1, 1, 2, 2])):
        cells = {round(p.get_x() + 0.5): p.get_gid() for p in ax.patches if (p.get_gid() or "").startswith("pair")}
        assert [cells[n] for n in range(6)] == [f"pair {n}" for n in expected]


@looks
def test_looks_of_rotary_pairs():
    return viz.rotary_pairs(turned(12, size=16, theta=10000.0))


@looks
def test_looks_of_frequency_map():
    frequencies = 10000.0 ** (-np.arange(16) / 16)
    return viz.frequency_map({"as trained": frequencies, "linear, factor 4": frequencies / 4}, range(100))


@looks
def test_looks_of_rotary_layouts():
    return viz.rotary_layouts(16)
