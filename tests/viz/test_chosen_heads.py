import numpy as np
import pytest
from drawing import attention, causal, column_labels, hatched, heading, images, looks, panels, words
from matplotlib.path import Path

from llama_core import viz
from llama_core.errors import InputError


def framed_cells(ax) -> list[tuple[int, int]]:
    """(row, column) of every framed cell, from the corners of the squares drawn."""
    found = []
    for patch in ax.patches:
        if patch.get_gid() == "framed":
            starts = patch.get_path().vertices[patch.get_path().codes == Path.MOVETO]
            found += [(int(y + 0.5), int(x + 0.5)) for x, y in starts]
    return found


def test_each_panel_shows_its_head_with_the_future_hatched():
    maps = {"a": attention(1, 3, 5)[0], "b": attention(1, 4, 4)[0]}
    fig = viz.attention_maps(maps)
    for ax, shown, given in zip(panels(fig), images(fig), maps.values(), strict=False):
        seen = causal(*given.shape)
        assert np.array_equal(shown[seen], given[seen])
        assert np.array_equal(hatched(ax), ~seen)


def test_weight_on_the_future_is_shown_not_hatched():
    fig = viz.attention_maps({"a": np.full((2, 2), 0.5)})
    assert not hatched(panels(fig)[0]).any()


def test_frames_stand_around_the_cells_that_were_named():
    cells = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]], bool)
    fig = viz.attention_maps({"a": np.tri(3) / 3, "b": np.tri(3) / 3}, framed={"b": cells})
    assert [framed_cells(ax) for ax in panels(fig)] == [[], [(1, 0), (2, 1)]]


def test_the_title_states_the_mean_weight_of_the_queries_that_have_a_frame():
    weights = np.array([[1, 0, 0], [0.75, 0.25, 0], [0.5, 0.25, 0.25]])
    fig = viz.attention_maps({"one back": weights}, framed={"one back": np.eye(3, k=-1, dtype=bool)})
    assert heading(fig) == "Weight inside the frames: 0.50 with “one back”"  # (0.75 + 0.25) / 2


def test_without_frames_the_title_states_the_strongest_cell():
    fig = viz.attention_maps({"a": np.array([[0.5, 0], [0.25, 0.75]])})
    assert heading(fig) == "“a” is strongest at query 1, key 1: 0.75"


def test_each_head_may_have_tokens_of_its_own():
    fig = viz.attention_maps({"a": np.eye(2), "b": np.eye(3)}, {"a": ["x", "y"], "b": [" p", "q", "r"]})
    assert [column_labels(ax) for ax in panels(fig)] == [["x", "y"], ["▁p", "q", "r"]]


@pytest.mark.parametrize("maps", [{}, {str(n): np.eye(2) for n in range(5)}])
def test_no_heads_and_more_than_four_are_refused(maps):
    with pytest.raises(InputError, match="one to four heads"):
        viz.attention_maps(maps)


def test_a_frame_without_its_head_is_refused():
    with pytest.raises(InputError, match="belongs to no head"):
        viz.attention_maps({"a": np.eye(2)}, framed={"b": np.eye(2)})


def test_a_frame_of_another_shape_is_refused():
    with pytest.raises(InputError, match="shape"):
        viz.attention_maps({"a": np.eye(2)}, framed={"a": np.eye(3)})


@looks
def test_looks_of_attention_maps():
    maps = {"previous token": attention(1, 8, 8)[0], "sink": attention(2, 8, 8)[1]}
    return viz.attention_maps(maps, words(8), framed={"previous token": np.eye(8, k=-1, dtype=bool)})
