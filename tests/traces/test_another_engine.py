"""Engines that sum, normalise and rotate in another order are right, also where prompts are long and models large."""

import numpy as np
import pytest
import torch
from small_traces import model

from llama_core.layers.linear import Linear
from llama_core.layers.rms_norm import RMSNorm
from llama_core.traces import compare, noise, record

LENGTH = 280  # more than are run in chunks
LARGE, SMALL = 0, 10**12


def made():
    return model(head_dim=64, num_attention_heads=2, num_key_value_heads=1, num_hidden_layers=2)


def turned_step_by_step(rope):
    """Cosines and sines as llama.cpp has them: ``theta *= theta_scale``, in float32."""

    def cos_sin(position_ids):
        step = np.float32(rope.theta ** (-2 / rope.head_dim))
        phi = np.zeros((*position_ids.shape, rope.head_dim // 2), np.float32)
        angle = position_ids.numpy().astype(np.float32)
        for pair in range(rope.head_dim // 2):
            phi[..., pair] = angle
            angle = angle * step
        tables = torch.from_numpy(phi)[:, :, None]
        return tables.cos(), tables.sin()

    return cos_sin


def backwards(linear, inputs, _):
    return inputs[0].flip(-1) @ linear.weight.flip(-1).T


def one_term_at_a_time(norm, inputs, _):
    x = inputs[0]
    total = torch.zeros_like(x[..., :1])
    for term in x.split(1, -1):
        total = total + term * term
    return x / torch.sqrt(total / x.shape[-1] + norm.eps) * norm.weight


@pytest.fixture(scope="module")
def prompt():
    return torch.randint(0, 53, (1, LENGTH), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("limit", [SMALL, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("way", ["angles", "sums", "all"])
def test_a_right_engine_with_other_sums_or_angles_is_right(tmp_path, monkeypatch, prompt, limit, way):
    monkeypatch.setattr(noise, "_SMALL", limit)
    right = record(made(), prompt, tmp_path / "golden", rows="0,60,last", noise=["float32"])
    other = made()
    if way != "sums":
        other.rope.cos_sin = turned_step_by_step(other.rope)
    for module in other.modules() if way != "angles" else ():
        if isinstance(module, Linear):
            module.register_forward_hook(backwards)
        elif isinstance(module, RMSNorm):
            module.register_forward_hook(one_term_at_a_time)
    other.attention = "eager"
    theirs = record(other, prompt, tmp_path / "theirs", rows="0,60,last")
    result = compare(right, theirs, model=made())
    assert result.passed, str(result)
    assert max(max(line.cumulative or 0, line.introduced or 0) for line in result.lines) < 0.9, str(result)


@pytest.mark.parametrize("limit", [SMALL, LARGE], ids=["small", "large"])
def test_a_thousandth_of_an_angle_is_still_wrong(tmp_path, monkeypatch, prompt, limit):
    monkeypatch.setattr(noise, "_SMALL", limit)
    right = record(made(), prompt, tmp_path / "golden", rows="0,60,last", noise=["float32"])
    other = made()
    other.rope.frequencies *= 1.00001  # at position 279 a thousandth of 2.79
    other.attention = "eager"
    theirs = record(other, prompt, tmp_path / "theirs", rows="0,60,last")
    assert compare(right, theirs, model=made()).first == "layers.0.q_rotated"
