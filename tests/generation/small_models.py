"""A small random model for generation tests, and a way to run hundreds of steps in little time."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from jaxtyping import config as shape_checks

from llama_core.config import LlamaConfig
from llama_core.model import Llama

CONFIG = LlamaConfig(
    vocab_size=97,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    eos_token_ids=(2,),
)


@functools.cache
def random_model() -> Llama:
    return Llama.random(CONFIG, seed=1)


@contextmanager
def no_shape_checks() -> Iterator[None]:
    """Decode without the checks of every call's shapes, which take four fifths of the time of a small model.

    The tests of layers and model have them on.
    """
    shape_checks.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        shape_checks.update("jaxtyping_disable", False)
