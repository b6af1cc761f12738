"""Checkpoints 1 to 6: each layer of a Llama. Knows nothing of files, tokens or pictures."""

from llama_core.layers.attention import Attention, QKVProjection, SelfAttention
from llama_core.layers.block import Block
from llama_core.layers.feed_forward import FeedForward
from llama_core.layers.rms_norm import RMSNorm
from llama_core.layers.rope import RoPE

__all__ = ["Attention", "Block", "FeedForward", "QKVProjection", "RMSNorm", "RoPE", "SelfAttention"]
