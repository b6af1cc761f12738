"""Wrong answers to the exercises of 03_attention: exercise, source, the mistake that the check must name."""

_SCORES = """
def my_scores(q, k):
    return {scores}
"""
_MASK = """
def my_mask(S, T):
    query = np.arange(S)[:, None]{offset}
    key = np.arange(T)[None, :]
    return {visible}
"""
_ATTENTION = """
def my_attention(inputs, weights, config):
    q = inputs["q_rotated"].transpose(0, 2, 1, 3)
    group = config.num_attention_heads // config.num_key_value_heads
    k, v = ({expand} for x in (inputs["cache_k"], inputs["cache_v"]))
    query, key = inputs["position_ids"][:, None, :, None], inputs["key_positions"][:, None, None, :]
    scores = q @ k.swapaxes(-1, -2) / {divisor}
    scores = np.where({visible}, scores, -np.inf)
    top = scores.max({axis}, keepdims=True)
    e = np.exp(scores - np.where(np.isfinite(top), top, 0))
    total = e.sum({axis}, keepdims=True)
    context = e / np.where(total == 0, 1, total) @ v
    return {{"attention_context": {merged}}}
"""
_RIGHT = {
    "expand": "np.repeat(x, group, axis=1)",
    "divisor": "math.sqrt(config.head_dim)",
    "visible": "(key >= 0) & (key <= query)",
    "axis": "-1",
    "merged": "context.transpose(0, 2, 1, 3)",
}
_EVERY = "(key >= 0) & (query == query)"


def _attention(**wrong: str) -> str:
    return _ATTENTION.format(**_RIGHT | wrong)


WRONG = [
    ("03-scores", _SCORES.format(scores="q @ k.swapaxes(-1, -2)"), "attention-no-scale"),
    ("03-scores", _SCORES.format(scores="q @ k.swapaxes(-1, -2) / q.shape[-1]"), "attention-scale-d"),
    ("03-mask", _MASK.format(offset="", visible="key <= query"), "attention-mask-top-left"),
    ("03-mask", _MASK.format(offset=" + T - S", visible="key < query"), "attention-mask-hides-diagonal"),
    ("03-mask", _MASK.format(offset=" + T - S", visible="key <= query + 1"), "attention-mask-shows-one-future-token"),
    ("03-mask", _MASK.format(offset=" + T - S", visible="key > query"), "attention-mask-inverted"),
    ("03-attention", _attention(divisor="1"), "attention-no-scale"),
    ("03-attention", _attention(expand="np.tile(x, (1, group, 1, 1))"), "attention-heads-tiled"),
    ("03-attention", _attention(expand="np.repeat(x[:, :1], q.shape[1], axis=1)"), "attention-first-head-for-all"),
    ("03-attention", _attention(visible=_EVERY), "attention-mask-never-applied"),
    ("03-attention", _attention(axis="-2"), "attention-softmax-over-queries"),
    (
        "03-attention",
        _attention(merged="context.reshape(inputs['q_rotated'].shape)"),
        "attention-heads-merged-untransposed",
    ),
]
