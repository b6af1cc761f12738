"""The error of a value, on numbers that can be checked by hand."""

import math

import numpy as np
import pytest

from llama_core.checkpoints.compare import axes_of, error, kept_entries

# The root mean square of these four is √((9 + 16 + 0 + 25) / 4) = √12.5.
REFERENCE = np.array([3.0, -4.0, 0.0, 5.0])


def test_the_error_is_the_largest_difference_in_root_mean_squares():
    candidate = REFERENCE + [0.1, -0.5, 0.2, 0.0]
    assert error(candidate, REFERENCE) == pytest.approx(0.5 / math.sqrt(12.5))


def test_a_reference_of_zeros_is_compared_absolutely():
    assert error(np.array([0.0, 0.25]), np.zeros(2)) == 0.25


def test_infinities_of_the_reference_do_not_count_in_its_root_mean_square():
    reference = np.array([3.0, 4.0, -np.inf])
    assert error(np.array([3.0, 5.0, -np.inf]), reference) == pytest.approx(1 / math.sqrt(12.5))


@pytest.mark.parametrize("stand_in", [-np.inf, -1e4, -1e9, -65504.0, float(np.finfo(np.float32).min)])
def test_the_usual_stand_ins_for_minus_infinity_count_as_hidden(stand_in):
    assert error(np.array([1.0, stand_in]), np.array([1.0, -np.inf])) == 0


@pytest.mark.parametrize("value", [0.0, -100.0, -8999.0, np.inf, np.nan])
def test_a_score_that_is_not_hidden_where_it_must_be_is_infinitely_wrong(value):
    assert error(np.array([1.0, value]), np.array([1.0, -np.inf])) == math.inf


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_where_the_reference_is_is_infinitely_wrong(value):
    assert error(np.array([1.0, value]), np.array([1.0, 2.0])) == math.inf


def test_whole_numbers_count_the_entries_that_differ():
    assert error(np.array([1, 2, 3, 4]), np.array([1, 2, 0, 4])) == 0.25


def test_entries_that_are_not_kept_count_neither_as_error_nor_as_size():
    candidate, reference = np.array([[1.0, 2.5], [9.0, np.nan]]), np.array([[1.0, 2.0], [1e9, 1e9]])
    kept = np.array([[True], [False]])
    assert error(candidate, reference, kept) == pytest.approx(0.5 / math.sqrt(2.5))


def test_padding_is_left_out_along_queries_and_in_scores_and_cache_along_keys():
    inputs = {"attention_mask": np.array([[0, 1, 1], [1, 1, 1]])}
    assert kept_entries("7", "logits", inputs)[:, :, 0].tolist() == [[False, True, True], [True, True, True]]
    assert kept_entries("8", "layers.1.cache_k", inputs)[0, 0, :, 0].tolist() == [False, True, True]
    scores = np.broadcast_to(kept_entries("6", "scores", {"position_ids": np.array([[-1, 0, 1]])}), (1, 4, 3, 3))
    assert scores[0, 0].tolist() == [[False] * 3, [False, True, True], [False, True, True]]


def test_hidden_keys_of_masked_scores_and_weights_are_not_left_out():
    inputs = {"position_ids": np.array([[-1, 0, 1]])}
    for name in ("masked_scores", "attention_weights"):
        assert np.broadcast_to(kept_entries("6", name, inputs), (1, 1, 3, 3))[0, 0, 2].all()


@pytest.mark.parametrize("checkpoint", ["1B", "3"])
def test_padding_counts_where_a_row_that_sees_nothing_must_be_zeros(checkpoint):
    assert kept_entries(checkpoint, "attention_context", {"position_ids": np.array([[-1, 0]])}) is None


def test_axes_are_those_of_the_names_within_a_layer_and_without():
    assert axes_of("layers.2.scores") == axes_of("scores") == "B H S T"
    assert axes_of("logits") == "B S V"
