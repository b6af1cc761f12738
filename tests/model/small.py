"""A model small enough for many passes, with grouped heads, D other than E / H, and biases."""

import torch

from llama_core import Llama, LlamaConfig

CONFIG = LlamaConfig(
    vocab_size=61,
    hidden_size=40,
    intermediate_size=56,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=12,
    attention_bias=True,
)

#: What a cached, chunked, batched or padded pass may differ by from a plain one, for float32 logits of order 5.
TOLERANCE = 2e-5


def model(device: torch.device | str = "cpu", **changes) -> Llama:
    return Llama.random(CONFIG.replace(**changes), seed=1, device=device)


def token_ids(rows: int, length: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, CONFIG.vocab_size, (rows, length), generator=torch.Generator().manual_seed(seed))


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=tolerance)
