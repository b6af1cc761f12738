import numpy as np
import pytest
from drawing import attention, causal, hatched, heading, images, looks, panels, softmax, wave, words

from llama_core import viz
from llama_core.errors import InputError

RIGHT = np.array([[1.0, 0.0], [0.25, 0.75]])
WRONG = np.array([[0.5, 0.5], [0.25, 0.75]])


def test_right_wrong_and_difference_stand_side_by_side():
    fig = viz.fingerprint(RIGHT, {"no mask": WRONG}, weights=True)
    assert [picture.tolist() for picture in images(fig)[:3]] == [
        RIGHT.tolist(),
        WRONG.tolist(),
        [[-0.5, 0.5], [0, 0]],
    ]
    assert [ax.get_title(loc="left") for ax in panels(fig)[:3]] == ["right", "no mask", "wrong − right, ≤ 0.5"]
    assert heading(fig) == "Largest difference: 0.5 with “no mask”"


def test_the_masked_cells_are_hatched_where_nothing_leaked():
    fig = viz.fingerprint(RIGHT, {"no mask": WRONG}, weights=True, hidden=~causal(2, 2))
    assert [hatched(ax).tolist() for ax in panels(fig)[:2]] == [[[False, True], [False, False]], [[False] * 2] * 2]


def test_several_mistakes_share_one_scale():
    fig = viz.fingerprint(RIGHT, {"a": WRONG, "b": 4 * RIGHT})
    scales = [ax.images[0].get_clim() for ax in panels(fig)]
    assert scales[:3] == [(-4, 4)] * 3
    assert scales[3:5] == [(-3, 3)] * 2


def test_of_several_mistakes_the_heading_names_the_one_that_differs_most_and_least():
    fig = viz.fingerprint(RIGHT, {"a": WRONG, "b": 4 * RIGHT, "c": RIGHT, "d": RIGHT / 2})
    # |4 - 1| = 3 and |0.5 - 1| = 0.5, twice; "c" does not differ at all.
    assert heading(fig) == "“b” differs most, by up to 3; “a” least, by 0.5"
    titles = [ax.get_title(loc="left") for ax in panels(fig)]
    assert titles[5:] == ["wrong − right, ≤ 0.5", "wrong − right, ≤ 3", "no difference", "wrong − right, ≤ 0.5"]


def test_a_magnitude_that_is_no_error_is_called_what_it_is():
    fig = viz.error_map([[1.0, 2.0]], quantity="length")
    assert [ax.get_ylabel() for ax in fig.axes[1:]] == ["length"]


def test_equal_infinities_are_no_difference():
    scores = np.array([[1.0, -np.inf]])
    fig = viz.fingerprint(scores, {"same": scores.copy()}, hidden=[[0, 1]])
    assert images(fig)[2].tolist() == [[0, 0]]
    assert heading(fig) == "No difference can be seen here"


@pytest.mark.parametrize("wrong", [{}, {str(n): RIGHT for n in range(5)}, {"a": np.ones((2, 3))}])
def test_pictures_that_cannot_be_compared_are_refused(wrong):
    with pytest.raises(InputError):
        viz.fingerprint(RIGHT, wrong)


def test_errors_keep_their_magnitude_and_exact_cells_stay_white():
    fig = viz.error_map([[0.0, -1e-3], [1e-6, np.nan]], ["a", "b"], tolerance=1e-4)
    ax = panels(fig)[0]
    assert images(fig)[0].filled(0).tolist() == [[0, 1e-3], [1e-6, 0]]
    exact = [p for p in ax.patches if p.get_gid() == "exact"]
    assert [p.get_facecolor() for p in exact] == [(1, 1, 1, 1)]
    assert np.argwhere(hatched(ax, "not finite")).tolist() == [[1, 1]]
    assert [(t.get_text(), t.get_position()) for t in ax.texts] == [("×", (1, 0))]
    assert heading(fig) == (
        "Largest error 0.001 at head 0, “b”; 1 of 4 above the tolerance; 1 value is not finite (crossed out)"
    )


@pytest.mark.parametrize(
    "error, finding", [([[0.0]], "No error: every value is exact"), ([[np.nan]], "No error is finite; 1 value is")]
)
def test_errors_without_a_scale_are_drawn_all_the_same(error, finding):
    assert heading(viz.error_map(error)).startswith(finding)


def test_a_tolerance_that_is_not_positive_is_refused():
    with pytest.raises(InputError, match="tolerance"):
        viz.error_map([[1.0]], tolerance=0.0)


@looks
def test_looks_of_fingerprint():
    right = attention(1, 6, 6)[0]
    wrong = {"mask never applied": softmax(3 * wave(6, 6)), "moved by one key": np.roll(right, 1, axis=1)}
    return viz.fingerprint(right, wrong, words(6), words(6), weights=True, hidden=~causal(6, 6))


@looks
def test_looks_of_fingerprint_with_one_mistake():
    return viz.fingerprint(wave(6, 8), {"half the size": wave(6, 8) / 2}, words(6))


@looks
def test_looks_of_error_map():
    error = np.abs(wave(8, 12)) ** 9
    error[2] = 0
    error[4, 5] = np.inf
    return viz.error_map(error, words(12), tolerance=0.1)
