"""The small configurations that cases are made of."""

from __future__ import annotations

from llama_core.config import LlamaConfig
from llama_core.presets import preset

#: K < H and D ≠ E/H: what is taken for something else has another size.
GROUPED = LlamaConfig(
    vocab_size=61,
    hidden_size=24,
    intermediate_size=40,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=64,
    eos_token_ids=(2,),
)
#: K = H and D = E/H: transposed, swapped and skipped weights fit.
SQUARE = GROUPED.replace(hidden_size=32, num_key_value_heads=4)
#: With a bias wherever a Llama can have one.
BIASED = GROUPED.replace(attention_bias=True, mlp_bias=True)
#: A Llama's neighbours, each with its one step more (``families``).
MISTRAL = GROUPED.replace(sliding_window=3)
QWEN2 = GROUPED.replace(qkv_bias=True)
QWEN3 = GROUPED.replace(qk_norm=True)
LLAMA_2_7B = preset("llama-2-7b")
