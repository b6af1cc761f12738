import numpy as np
import pytest
import torch

from llama_core.errors import InputError
from llama_core.viz.arrays import as_array, as_mask, layer_arrays


def test_a_batch_of_one_is_its_only_row():
    assert as_array(torch.ones(1, 2, 3), "x", "S T").tolist() == [[1, 1, 1], [1, 1, 1]]


def test_the_error_names_argument_axes_and_shape():
    with pytest.raises(InputError) as caught:
        as_array(np.ones((2, 4, 4)), "weights", "S T")
    error = caught.value
    assert (error.key, error.expected, error.actual) == ("weights", "[S, T]", [2, 4, 4])
    assert "weights[0]" in error.hint


def test_the_error_says_which_argument_a_size_came_from():
    sizes = {}
    as_array(np.ones((3, 4)), "scores", "S T", sizes)
    with pytest.raises(InputError) as caught:
        as_array(np.ones((3, 5)), "weights", "S T", sizes)
    assert "T = 4 as in scores" in caught.value.expected


@pytest.mark.parametrize("values", [np.ones((0, 3)), "text", None, [[1, 2], [3]], np.ones((2, 2), complex), object()])
def test_what_is_no_table_of_numbers_is_refused(values):
    with pytest.raises(InputError):
        as_array(values, "x", "S T")


@pytest.mark.parametrize("values", [[[0.5, 1.0]], [[2, 0]], [[float("nan"), 0]]])
def test_a_mask_holds_yes_and_no_only(values):
    with pytest.raises(InputError, match="yes or no"):
        as_mask(values, "mask", "S T")


def test_layers_of_a_capture_come_in_numeric_order():
    seen = {f"layers.{n}.q": np.full((1, 1), n) for n in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9)} | {"layers.0.k": None}
    assert [float(layer[0, 0]) for layer in layer_arrays(seen, "q", "S D")] == list(range(11))


@pytest.mark.parametrize("seen", [{}, {"layers.1.q": np.ones((1, 1))}, {"q": np.ones((1, 1))}])
def test_a_capture_without_the_layers_says_what_to_capture(seen):
    with pytest.raises(InputError) as caught:
        layer_arrays(seen, "q", "S D")
    assert 'capture(model, "layers.*.q")' in caught.value.hint


@pytest.mark.parametrize("layers", [[], 3, "ab"])
def test_no_layers_are_refused(layers):
    with pytest.raises(InputError):
        layer_arrays(layers, "q", "S D")
