import pytest
import torch

from llama_core.capture import capture
from llama_core.stories.data import END, IGNORED
from llama_core.stories.recorded import RecordedGradients
from llama_core.stories.train import gradients, initial_model, turn_queries


def test_turned_queries_are_those_of_later_positions_and_other_heads_stay():
    model = initial_model(seed=3)
    ids = torch.arange(300, 312)[None]
    with capture(model, "layers.0.q_rotated") as before:
        model(ids)
    with capture(model, "layers.0.q_rotated") as later:
        model(torch.cat([torch.full((1, 5), 7), ids], 1))
    turn_queries(model, layer=0, heads=[1, 3], places=5)
    with capture(model, "layers.0.q_rotated") as turned:
        model(ids)
    before, later, turned = (seen["layers.0.q_rotated"] for seen in (before, later, turned))  # [B, S, H, D]
    assert torch.allclose(turned[:, :, [1, 3]], later[:, 5:, [1, 3]], atol=1e-5)
    assert torch.equal(turned[:, :, [0, 2]], before[:, :, [0, 2]])
    assert not torch.allclose(turned[:, :, [1, 3]], before[:, :, [1, 3]], atol=1e-2)


def test_the_model_starts_out_as_its_first_two_layers():
    model, ids = initial_model(seed=3), torch.arange(300, 312)[None]
    whole = model(ids)
    del model.layers[2:]
    assert torch.equal(model(ids), whole)


def assert_near(one: torch.Tensor, other: torch.Tensor) -> None:
    """Products of matrices are in bfloat16, whose steps are 1/256; measured are differences up to 0.011."""
    assert (one - other).norm() <= 0.05 * other.norm()


def test_what_pads_a_batch_for_its_recording_is_not_learnt():
    model = initial_model(seed=3)
    inputs = torch.arange(300, 315).reshape(3, 5)
    targets = inputs + 1
    targets[1, 2:] = IGNORED
    loss, found = gradients(model, inputs, targets)
    padded = RecordedGradients.padded(inputs, END), RecordedGradients.padded(targets, IGNORED)
    assert padded[0].shape == padded[1].shape == (16, 32)
    padded_loss, padded_found = gradients(model, *padded)
    assert torch.allclose(padded_loss, loss, rtol=1e-4)
    for gradient, padded_gradient in zip(found, padded_found, strict=True):
        assert_near(padded_gradient, gradient)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="CUDA graphs need a CUDA device")
def test_a_recorded_step_gives_the_gradients_of_a_computed_one_for_every_batch_of_its_shape():
    model = initial_model(seed=3).to("cuda")
    recorded = RecordedGradients(gradients)
    for first in (300, 400):
        inputs = torch.arange(first, first + 15).reshape(3, 5)
        loss, found = gradients(model, inputs, inputs + 1)
        recorded_loss, recorded_found = recorded(model, inputs, inputs + 1)
        assert torch.allclose(recorded_loss, loss, rtol=1e-5)
        for gradient, again in zip(found, recorded_found, strict=True):
            assert_near(again, gradient)
    assert len(recorded.recordings) == 1
