"""Wrong answers to the exercises of 05_feed_forward: exercise, source, the mistake that the check must name."""

_SWIGLU = """
def my_feed_forward(inputs, weights, config):
    def linear(x, name):
        return x @ weights[f"mlp.{{name}}.weight"].T + weights.get(f"mlp.{{name}}.bias", 0)

    def silu(z):
        return z / (1 + np.exp(-z))

    x = inputs["ffn_norm"]
    gate, up = linear(x, "gate_proj"), linear(x, "up_proj")
    return {{"ffn_output": linear({}, "down_proj")}}
"""
_RENAMED = """
def renamed(w):
    return {}
"""

WRONG = [
    ("05-swiglu", _SWIGLU.format("silu(up) * gate"), "ffn-gate-and-up-swapped"),
    ("05-swiglu", _SWIGLU.format("silu(gate * up)"), "ffn-silu-of-product"),
    ("05-swiglu", _SWIGLU.format("silu(gate)"), "ffn-no-gate"),
    ("05-swiglu", _SWIGLU.format("up / (1 + np.exp(-gate))"), "ffn-sigmoid"),
    ("05-meta-names", _RENAMED.format('w["w3"], w["w1"], w["w2"]'), "ffn-gate-and-up-swapped"),
    (
        "05-meta-names",
        _RENAMED.format('tuple(w[n] if w[n].shape[0] != w[n].shape[1] else w[n].T for n in ("w1", "w3", "w2"))'),
        "ffn-weight-transposed",
    ),
]
