import numpy as np
import pytest
from drawing import (
    attention,
    causal,
    column_labels,
    hatched,
    heading,
    images,
    looks,
    panels,
    pipeline,
    row_labels,
    words,
)

from llama_core import viz
from llama_core.errors import InputError


def test_the_pipeline_shows_its_five_tensors():
    steps = pipeline(3, 5)
    for shown, given in zip(images(viz.score_pipeline(*steps)), steps, strict=False):
        visible = ~np.ma.getmaskarray(shown)
        assert np.array_equal(shown[visible], given[visible])


def test_the_pipeline_hatches_exactly_what_the_mask_hides():
    # Two queries behind three cached keys: the first sees 4 of 5 keys, the second all.
    shown = [hatched(ax) for ax in panels(viz.score_pipeline(*pipeline(2, 5)))]
    expected = np.array([[0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    assert [cells.any() for cells in shown] == [False, False, True, True, False]
    assert np.array_equal(shown[2], expected) and np.array_equal(shown[3], expected)


def test_the_pipeline_labels_queries_with_the_last_tokens():
    first = panels(viz.score_pipeline(*pipeline(2, 4), ["a", "b", " c", "d"]))[0]
    assert row_labels(first) == ["▁c", "d"]
    assert column_labels(first) == ["a", "b", "▁c", "d"]


def test_the_pipeline_states_the_largest_weight_and_how_much_is_masked():
    scores = np.zeros((2, 2))
    masked = np.array([[0, -np.inf], [0, 0]])
    weights = np.array([[1, 0], [0.25, 0.75]])
    fig = viz.score_pipeline(scores, scores, masked, weights, np.ones((2, 3)), ["a", "b"])
    assert heading(fig) == "“b” puts 0.75 of its weight on “b”; the mask hides 1 of 4 scores"


def test_weight_that_leaks_through_the_mask_is_shown_not_hatched():
    products, scores, masked, weights, output = pipeline(3, 3)
    leaky = np.full((3, 3), 1 / 3)
    fig = viz.score_pipeline(products, scores, masked, leaky, output)
    assert not hatched(panels(fig)[3]).any()
    assert heading(fig) == "1 of the weight lies where the mask hides the key"  # three cells of a third


def test_nan_and_infinity_are_crossed_out_and_counted():
    steps = [step.copy() for step in pipeline(3, 3)]
    steps[0][1, 2], steps[3][2, 0] = np.inf, np.nan
    fig = viz.score_pipeline(*steps)
    assert np.argwhere(hatched(panels(fig)[0], "not finite")).tolist() == [[1, 2]]
    assert np.argwhere(hatched(panels(fig)[3], "not finite")).tolist() == [[2, 0]]
    assert heading(fig).endswith("2 values are not finite (crossed out)")


def test_steps_of_different_shapes_are_refused():
    steps = list(pipeline(3, 3))
    steps[3] = np.ones((3, 4))
    with pytest.raises(InputError, match="weights does not have the shape"):
        viz.score_pipeline(*steps)


def test_masks_are_hatched_where_they_hide():
    masks = {"prefill": causal(3, 3), "decode": causal(1, 4), "left padding": [[0, 0, 0], [0, 1, 0], [0, 1, 1]]}
    fig = viz.causal_masks(masks)
    for ax, mask in zip(panels(fig), masks.values(), strict=True):
        assert np.array_equal(hatched(ax), ~np.array(mask, bool))
    assert heading(fig) == "Prefill hides 3 of 9; decode hides 0 of 4; left padding hides 6 of 9"


def test_masks_take_tokens_of_their_own():
    fig = viz.causal_masks({"a": causal(2, 3), "b": causal(1, 1)}, {"a": ["x", "y", "z"]})
    assert row_labels(panels(fig)[0]) == ["y", "z"]
    assert column_labels(panels(fig)[1]) == ["0"]


@pytest.mark.parametrize("masks", [{}, {"a": [[0.5]]}, {"a": [1, 0]}])
def test_what_is_no_mask_is_refused(masks):
    with pytest.raises(InputError):
        viz.causal_masks(masks)


def test_the_sheet_shows_every_head_of_every_layer_in_order():
    layers = [attention(2, 3, 3), attention(4, 3, 3)[2:]]
    shown = images(viz.head_sheet(layers))
    for picture, given in zip(shown, [*layers[0], *layers[1]], strict=False):
        assert np.array_equal(picture[causal(3, 3)], given[causal(3, 3)])


def test_the_sheet_hatches_the_future_alone():
    # Behind two cached keys the first query sees keys 0 to 2; that it puts nothing on key 2 is no mask.
    fig = viz.head_sheet([[[[0.5, 0.5, 0, 0], [0.25, 0.25, 0.25, 0.25]]]])
    assert hatched(panels(fig)[0]).tolist() == [[False, False, False, True], [False] * 4]


def test_the_sheet_brackets_consecutive_heads_by_their_key_head():
    fig = viz.head_sheet([attention(6, 3, 3)], num_key_value_heads=2)
    brackets = [line.get_xdata() for line in fig.artists if line.get_gid() == "bracket"]
    middles = [(ax.get_position().x0 + ax.get_position().x1) / 2 for ax in panels(fig)[:6]]
    assert [[min(x) < middle < max(x) for middle in middles] for x in brackets] == [
        [True, True, True, False, False, False],
        [False, False, False, True, True, True],
    ]


def test_key_heads_that_do_not_divide_the_query_heads_are_refused():
    with pytest.raises(InputError, match="divide"):
        viz.head_sheet([attention(6, 3, 3)], num_key_value_heads=4)


def test_a_head_that_looks_at_the_previous_token_is_named():
    uniform = np.tril(np.ones((4, 4))) / np.arange(1, 5)[:, None]
    # Queries 2 and 3 put 0.9 and 0.7 on the token before: 0.8 on average. Query 1 does not count.
    previous = np.array([[1, 0, 0, 0], [0.5, 0.5, 0, 0], [0.1, 0.9, 0, 0], [0.1, 0.1, 0.7, 0.1]])
    fig = viz.head_sheet([[uniform, uniform], [uniform, previous]])
    assert heading(fig) == "Layer 1 head 1 puts 0.80 of its weight on the previous token"


def test_patterns_tell_first_previous_and_own_token_apart():
    first = np.eye(4)[[0, 0, 0, 0]]
    previous = np.eye(4)[[0, 0, 1, 2]]
    own = np.eye(4)
    [patterns] = viz.head_patterns([[first, previous, own]])
    assert [(p.head, p.kind, p.weight) for p in patterns] == [
        (0, "first token", 1.0),
        (1, "previous token", 1.0),
        (2, "itself", 1.0),
    ]


def test_the_sheet_lists_the_tokens_with_their_positions():
    fig = viz.head_sheet([attention(1, 3, 3)], [" a", "b", "c"])
    assert "keys from left to right:   0 ▁a   1 b   2 c" in [text.get_text() for text in fig.texts]


@looks
def test_looks_of_score_pipeline():
    return viz.score_pipeline(*pipeline(6, 6), words(6))


@looks
def test_looks_of_score_pipeline_with_a_cache_and_many_keys():
    return viz.score_pipeline(*pipeline(4, 14), words(14))


@looks
def test_looks_of_causal_masks():
    padded = causal(5, 5) & (np.arange(5) >= 2)
    masks = {"prefill": causal(6, 6), "decode": causal(1, 7), "chunk": causal(3, 9), "left padding": padded}
    return viz.causal_masks(masks)


@looks
def test_looks_of_head_sheet():
    return viz.head_sheet([attention(8, 9, 9)[:4], attention(8, 9, 9)[4:]], words(9), num_key_value_heads=2)
