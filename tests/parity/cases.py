"""The small random models on which this model and transformers' are held to each other.

Each case is one feature, so small that all of them together run in seconds. Weights have standard deviation
1/√fan_in, embeddings 1/√E; norms and biases are random: constants, as fresh models have them, would hide mistakes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch
import transformers

from llama_core import Llama, LlamaConfig, RopeScaling

# The transformers side never changes, not even between sessions that plant mistakes: it is computed once per process.
# The model under test is built anew in every test.


@dataclass(frozen=True)
class Case:
    """Hyper-parameters that both configurations spell alike, and the rotary scaling, which they do not."""

    sizes: dict[str, Any] = field(default_factory=dict)
    scaling: dict[str, Any] | None = None
    length: int = 24


SMALL = dict(
    vocab_size=96,
    hidden_size=64,
    intermediate_size=112,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-5,
)

CASES = {
    "heads-mha": Case(dict(num_key_value_heads=4)),
    "heads-gqa-4-to-1": Case(dict(num_attention_heads=8, num_key_value_heads=2)),
    "heads-mqa": Case(dict(num_key_value_heads=1)),
    "head-dim-not-E-over-H": Case(dict(head_dim=24)),
    "tied-head": Case(dict(tie_word_embeddings=True)),
    "attention-bias": Case(dict(attention_bias=True)),
    # A square matrix can be used transposed, and nothing but the values tells.
    "mlp-bias-square": Case(dict(mlp_bias=True, intermediate_size=64)),
    "odd-sizes-one-layer": Case(
        dict(
            vocab_size=101,
            hidden_size=45,
            intermediate_size=37,
            num_hidden_layers=1,
            num_attention_heads=3,
            num_key_value_heads=1,
            head_dim=14,
            rms_norm_eps=1e-3,
        ),
        length=13,
    ),
    "rope-theta": Case(dict(rope_theta=500000.0)),
    "rope-linear": Case(scaling=dict(kind="linear", factor=4.0)),
    "rope-dynamic-within": Case(scaling=dict(kind="dynamic", factor=4.0)),
    # Beyond the original length a single pass agrees; a cache does not (see RoPE), in either implementation.
    "rope-dynamic-beyond": Case(dict(max_position_embeddings=10), dict(kind="dynamic", factor=4.0)),
    "rope-yarn": Case(scaling=dict(kind="yarn", factor=16.0, original_max_position_embeddings=16), length=40),
    "rope-llama3": Case(
        scaling=dict(
            kind="llama3",
            factor=8.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_position_embeddings=32,
        ),
        length=40,
    ),
}

ROPE_CASES = [name for name in CASES if name.startswith("rope-")]
#: Those whose rotation of a position depends on nothing but the position.
FIXED_ROPE_CASES = [name for name in CASES if name != "rope-dynamic-beyond"]


def our_config(name: str) -> LlamaConfig:
    case = CASES[name]
    return LlamaConfig(**(SMALL | case.sizes), rope_scaling=RopeScaling(**case.scaling) if case.scaling else None)


def peer_config(name: str) -> transformers.LlamaConfig:
    case = CASES[name]
    sizes = SMALL | case.sizes
    rope = {"rope_type": "default", "rope_theta": sizes.pop("rope_theta", 10000.0)}
    if case.scaling:
        rope |= {"rope_type": case.scaling["kind"]} | {k: v for k, v in case.scaling.items() if k != "kind"}
    return transformers.LlamaConfig(**sizes, rope_parameters=rope, bos_token_id=1, eos_token_id=2)


def random_tensor(name: str, shape: torch.Size, generator: torch.Generator) -> torch.Tensor:
    value = torch.randn(shape, generator=generator)
    if name.endswith("norm.weight"):
        return 1 + 0.25 * value
    return 0.3 * value if name.endswith("bias") else value * shape[-1] ** -0.5


@cache
def peer_model(name: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> transformers.LlamaForCausalLM:
    """transformers' model of the case with random weights, always the same ones (rounded to ``dtype``)."""
    model = transformers.LlamaForCausalLM._from_config(peer_config(name), attn_implementation=attention).eval()
    generator = torch.Generator().manual_seed(sum(name.encode()))
    for key, parameter in model.named_parameters():
        parameter.data.copy_(random_tensor(key, parameter.shape, generator))
        parameter.requires_grad_(False)
    rotary = model.model.rotary_emb
    table = rotary.inv_freq.clone()
    model.to(dtype)
    rotary.inv_freq = table  # a cast of the model would round the frequencies, which loading a file does not
    return model


def our_model(name: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Llama:
    """This project's model with the tensors of the peer."""
    tensors = {key.removeprefix("model."): value for key, value in peer_model(name, dtype).state_dict().items()}
    model = Llama(our_config(name))
    model.load_state_dict({key: value.clone() for key, value in tensors.items()}, assign=True)
    return model.to(device)


def token_ids(name: str, rows: int = 2) -> torch.Tensor:
    shape = (rows, CASES[name].length)
    return torch.randint(0, our_config(name).vocab_size, shape, generator=torch.Generator().manual_seed(7))
