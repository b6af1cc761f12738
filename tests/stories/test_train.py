import torch

from llama_core.capture import capture
from llama_core.stories.train import initial_model, turn_queries


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
