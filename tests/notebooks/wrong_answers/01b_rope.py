"""Wrong answers to the exercises of 01b_rope: exercise, source, the mistake that the check must name."""

_ROPE = """
def my_rope(inputs, weights, config):
    D = config.head_dim
    angles = {positions}[..., None] * config.rope_theta ** (-2 * np.arange(D // 2) / D)
    cos, sin = np.cos(angles)[:, :, None], np.sin(angles)[:, :, None]

    def rotate(x):
        {rotate}

    return {{"q_rotated": rotate(inputs["q"]), "k_rotated": rotate(inputs["k"]), "v": {v}}}
"""
_RIGHT = {
    "positions": 'inputs["position_ids"]',
    "rotate": "a, b = x[..., : D // 2], x[..., D // 2 :]\n"
    "        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)",
    "v": 'inputs["v"]',
}
_PAIRS = (
    "a, b = x[..., 0::2], x[..., 1::2]\n"
    "        return np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)"
)
_FREQUENCIES = """
def my_frequencies(head_dim, theta):
    return {}
"""

WRONG = [
    ("01b-half", _ROPE.format(**_RIGHT | {"rotate": _PAIRS}), "rope-pairs-swapped"),
    ("01b-half", _ROPE.format(**_RIGHT | {"positions": '(inputs["position_ids"] + 1)'}), "rope-position-plus-one"),
    ("01b-half", _ROPE.format(**_RIGHT | {"v": 'rotate(inputs["v"])'}), "rope-values-rotated"),
    (
        "01b-frequencies",
        _FREQUENCIES.format("500000.0 ** (-2 * np.arange(head_dim // 2) / head_dim)"),
        "rope-theta-500000",
    ),
    (
        "01b-frequencies",
        _FREQUENCIES.format("-(theta ** (-2 * np.arange(head_dim // 2) / head_dim))"),
        "rope-sign-flipped",
    ),
]
