"""What the tests of gates share: small cases, a wrong attention, a norm in numpy."""

import numpy as np

from llama_core.checkpoints import checkpoint
from llama_core.checkpoints.own import implementations


def small(id):
    return checkpoint(id).small_cases


def scaled_wrongly(inputs, weights, config):
    """D for √D."""
    right = implementations(checkpoint("3"))[1].run
    q = inputs["q_rotated"] * config.head_dim**-0.5
    return {"attention_context": right({**inputs, "q_rotated": q}, weights, config)["attention_context"]}


def numpy_norm(inputs, weights, config):
    x = inputs["layer_input"]
    assert isinstance(x, np.ndarray)
    return (
        x
        / np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + config.rms_norm_eps)
        * weights["input_layernorm.weight"]
    )
