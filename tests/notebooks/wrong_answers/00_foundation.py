"""Wrong answers to the exercises of 00_foundation: exercise, source, the mistake that the check must name."""

_SIZES = """
def my_sizes(inputs, weights, config):
    E, F, head_dim = config.hidden_size, config.intermediate_size, config.head_dim
    q = config.num_attention_heads * head_dim
    kv = {kv} * head_dim
    layer = 2 * E * (q + kv) + {matrices} * E * F + 2 * E
    if config.attention_bias:
        layer += q + 2 * kv + E
    if config.mlp_bias:
        layer += ({matrices} - 1) * F + E
    embedding = config.vocab_size * E
    head = 0 if config.tie_word_embeddings else embedding
    return {{
        "head_dim": np.array([head_dim]),
        "query_size": np.array([q]),
        "key_value_size": np.array([kv]),
        "cache_values_per_position": np.array([{cache} * config.num_hidden_layers * kv]),
        "layer_parameters": np.array([layer]),
        "num_parameters": np.array([embedding + config.num_hidden_layers * layer + E + head]),
    }}
"""
_COUNT = """
def count(config):
    model = Llama(config)
    block = {block}
    total = {total}
    return block, total
"""

WRONG = [
    (
        "00-sizes",
        _SIZES.format(kv="config.num_attention_heads", matrices=3, cache=2),
        "foundation-key-value-heads-ignored",
    ),
    (
        "00-sizes",
        _SIZES.format(kv="config.num_key_value_heads", matrices=3, cache=1),
        "foundation-cache-without-values",
    ),
    (
        "00-from-the-model",
        _COUNT.format(
            block="sum(p.numel() for p in model.layers[0].parameters())",
            total="sum(t.numel() for t in model.state_dict().values())",
        ),
        "foundation-tied-head-counted-twice",
    ),
    (
        "00-from-the-model",
        _COUNT.format(
            block="sum(p.numel() for n, p in model.layers[0].named_parameters() if 'bias' not in n)",
            total="sum(p.numel() for n, p in model.named_parameters() if 'bias' not in n)",
        ),
        "foundation-biases-not-counted",
    ),
]
