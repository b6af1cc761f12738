"""Wrong answers to the exercises of 07_full_model: exercise, source, the mistake that the check must name."""

_ASSEMBLE = """
def assemble(ids, weights, num_layers, norm, layer):
    x = {embedding}
    outputs = []
    for n in {order}:
        x = layer(n, x)
        outputs.append(x)
    return outputs, {head}
"""
_RIGHT = {
    "embedding": 'weights["embed_tokens.weight"][ids]',
    "order": "range(num_layers)",
    "head": 'norm(x) @ weights["lm_head.weight"].T',
}
_ORDER = """
def layer_numbers(names):
    found = {{int(name.split(".")[1]) for name in names if name.startswith("layers.")}}
    return {}
"""

WRONG = [
    (
        "07-assemble",
        _ASSEMBLE.format(**_RIGHT | {"head": 'x @ weights["lm_head.weight"].T'}),
        "model-final-norm-missing",
    ),
    ("07-assemble", _ASSEMBLE.format(**_RIGHT | {"order": "reversed(range(num_layers))"}), "model-layers-reversed"),
    (
        "07-assemble",
        _ASSEMBLE.format(
            **_RIGHT | {"embedding": 'weights["embed_tokens.weight"][ids] * len(weights["norm.weight"]) ** 0.5'}
        ),
        "model-embedding-scaled",
    ),
    (
        "07-assemble",
        _ASSEMBLE.format(**_RIGHT | {"head": 'norm(x) @ weights["embed_tokens.weight"].T'}),
        "model-head-tied",
    ),
    ("07-order", _ORDER.format("sorted(found, reverse=True)"), "model-layers-reversed"),
    ("07-order", _ORDER.format("[min(found)] * len(found)"), "model-first-layer-repeated"),
]
