"""Wrong answers to the exercises of 04_output_projection: exercise, source, the mistake that the check must name."""

_JOIN = """
import numpy as np


def my_output(inputs, weights, config):
    context = inputs["attention_context"]
    flat = {}.reshape(*context.shape[:2], -1)
    return {{"attention_output": flat @ weights["self_attn.o_proj.weight"].T {}}}
"""
_BIAS = "+ weights.get('self_attn.o_proj.bias', 0)"
_PART = """
def part(context, W, h, D):
    H = context.shape[2]
    return context[:, :, h] @ W[:, {}].T
"""

WRONG = [
    ("04-join", _JOIN.format("context.swapaxes(-1, -2)", _BIAS), "output-coordinates-before-heads"),
    ("04-join", _JOIN.format("np.flip(context, 2)", _BIAS), "output-heads-reversed"),
    ("04-join", _JOIN.format("context", ""), "output-bias-ignored"),
    ("04-sum", _PART.format("(H - 1 - h) * D : (H - h) * D"), "output-heads-reversed"),
    ("04-sum", _PART.format("h::H"), "output-coordinates-before-heads"),
]
