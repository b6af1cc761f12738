"""Wrong answers to the exercises of 02_qkv_projection: exercise, source, the mistake that the check must name."""


def _projection(split: str, value: str = "v_proj", bias: str = "+ weights.get(f'self_attn.{name}.bias', 0)") -> str:
    return f"""
def my_projection(inputs, weights, config):
    x = inputs["attention_norm"]

    def heads(name):
        flat = x @ weights[f"self_attn.{{name}}.weight"].T {bias}
        return {split}

    return {{"q": heads("q_proj"), "k": heads("k_proj"), "v": heads("{value}")}}
"""


_RIGHT = "flat.reshape(*flat.shape[:-1], -1, config.head_dim)"
_FUSED = """
def split(fused, config):
    q = config.num_attention_heads * config.head_dim
    kv = config.num_key_value_heads * config.head_dim
    return fused[..., :q], {}
"""

WRONG = [
    ("02-projection", _projection(_RIGHT, bias=""), "qkv-bias-ignored"),
    ("02-projection", _projection(_RIGHT, value="k_proj"), "qkv-v-from-k"),
    (
        "02-projection",
        _projection("flat.reshape(*flat.shape[:-1], config.head_dim, -1).swapaxes(-1, -2)"),
        "qkv-coordinates-before-heads",
    ),
    ("02-fused", _FUSED.format("fused[..., q + kv :], fused[..., q : q + kv]"), "qkv-k-and-v-swapped"),
    ("02-fused", _FUSED.format("fused[..., q : q + kv], fused[..., q : q + kv]"), "qkv-v-from-k"),
]
