"""The names: every activation with its axes, every parameter as Hugging Face, Meta and GGUF call it.

Axes: B batch · S query positions · T key positions (cache included) · H query heads · K key/value heads ·
D head dimension · E hidden size · F feed-forward size · V vocabulary · L layers.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass

AXES = {
    "B": "batch",
    "S": "query positions",
    "T": "key positions, cache included",
    "H": "query heads",
    "K": "key/value heads",
    "D": "head dimension",
    "E": "hidden size",
    "F": "feed-forward size",
    "V": "vocabulary",
    "L": "layers",
}

INPUT_ACTIVATIONS = {"input_ids": "B S", "position_ids": "B S", "embedding": "B S E"}

LAYER_ACTIVATIONS = {
    "attention_norm": "B S E",
    "q": "B S H D",
    "k": "B S K D",
    "v": "B S K D",
    "q_rotated": "B S H D",
    "k_rotated": "B S K D",
    "cache_k": "B K T D",
    "cache_v": "B K T D",
    "scores": "B H S T",
    "masked_scores": "B H S T",
    "attention_weights": "B H S T",
    "attention_context": "B S H D",
    "attention_output": "B S E",
    "attention_residual": "B S E",
    "ffn_norm": "B S E",
    "ffn_gate": "B S F",
    "ffn_up": "B S F",
    "ffn_activation": "B S F",
    "ffn_hidden": "B S F",
    "ffn_output": "B S E",
    "output": "B S E",
}

OUTPUT_ACTIVATIONS = {"final_norm": "B S E", "logits": "B S V"}

#: Every activation in the order of the dataflow; "layers.N." stands for each layer in turn.
ACTIVATIONS = (
    INPUT_ACTIVATIONS | {f"layers.N.{name}": axes for name, axes in LAYER_ACTIVATIONS.items()} | OUTPUT_ACTIVATIONS
)


def activation_names(num_layers: int) -> list[str]:
    """All activation names of a model with ``num_layers`` layers, in the order in which they are computed."""
    layers = [f"layers.{n}.{name}" for n in range(num_layers) for name in LAYER_ACTIVATIONS]
    return [*INPUT_ACTIVATIONS, *layers, *OUTPUT_ACTIVATIONS]


def activation_axes(name: str) -> str:
    """The axes of an activation, e.g. ``"B H S T"`` for ``layers.3.scores``. KeyError for any other name."""
    return ACTIVATIONS[re.sub(r"^layers\.\d+\.", "layers.N.", name)]


def match_activations(patterns: str | list[str] | tuple[str, ...], num_layers: int) -> list[str]:
    """The activations that any of the shell-style patterns names, in dataflow order; ``*`` also matches dots."""
    patterns = [patterns] if isinstance(patterns, str) else patterns
    return [name for name in activation_names(num_layers) if any(fnmatch.fnmatchcase(name, p) for p in patterns)]


@dataclass(frozen=True)
class ParameterName:
    """One parameter under its four names; ``{n}`` stands for the layer's number.

    Attributes:
        name: the name in ``Llama.state_dict()``.
        huggingface, meta, gguf: the names in those formats' files.
        axes: its shape in the legend's letters, rows first; ``HD`` is the product of H and D.
        optional: the configuration switch that it exists under, "" for always. ``attention_bias`` implies ``qkv_bias``.
    """

    name: str
    huggingface: str
    meta: str
    gguf: str
    axes: str
    optional: str = ""


def _layer(name: str, meta: str, gguf: str, axes: str, optional: str = "") -> ParameterName:
    return ParameterName(
        f"layers.{{n}}.{name}",
        f"model.layers.{{n}}.{name}",
        f"layers.{{n}}.{meta}",
        f"blk.{{n}}.{gguf}",
        axes,
        optional,
    )


PARAMETERS = (
    ParameterName(
        "embed_tokens.weight", "model.embed_tokens.weight", "tok_embeddings.weight", "token_embd.weight", "V E"
    ),
    _layer("input_layernorm.weight", "attention_norm.weight", "attn_norm.weight", "E"),
    _layer("self_attn.q_proj.weight", "attention.wq.weight", "attn_q.weight", "HD E"),
    _layer("self_attn.q_proj.bias", "attention.wq.bias", "attn_q.bias", "HD", "qkv_bias"),
    _layer("self_attn.k_proj.weight", "attention.wk.weight", "attn_k.weight", "KD E"),
    _layer("self_attn.k_proj.bias", "attention.wk.bias", "attn_k.bias", "KD", "qkv_bias"),
    _layer("self_attn.v_proj.weight", "attention.wv.weight", "attn_v.weight", "KD E"),
    _layer("self_attn.v_proj.bias", "attention.wv.bias", "attn_v.bias", "KD", "qkv_bias"),
    _layer("self_attn.q_norm.weight", "attention.q_norm.weight", "attn_q_norm.weight", "D", "qk_norm"),
    _layer("self_attn.k_norm.weight", "attention.k_norm.weight", "attn_k_norm.weight", "D", "qk_norm"),
    _layer("self_attn.o_proj.weight", "attention.wo.weight", "attn_output.weight", "E HD"),
    _layer("self_attn.o_proj.bias", "attention.wo.bias", "attn_output.bias", "E", "attention_bias"),
    _layer("post_attention_layernorm.weight", "ffn_norm.weight", "ffn_norm.weight", "E"),
    _layer("mlp.gate_proj.weight", "feed_forward.w1.weight", "ffn_gate.weight", "F E"),
    _layer("mlp.gate_proj.bias", "feed_forward.w1.bias", "ffn_gate.bias", "F", "mlp_bias"),
    _layer("mlp.up_proj.weight", "feed_forward.w3.weight", "ffn_up.weight", "F E"),
    _layer("mlp.up_proj.bias", "feed_forward.w3.bias", "ffn_up.bias", "F", "mlp_bias"),
    _layer("mlp.down_proj.weight", "feed_forward.w2.weight", "ffn_down.weight", "E F"),
    _layer("mlp.down_proj.bias", "feed_forward.w2.bias", "ffn_down.bias", "E", "mlp_bias"),
    ParameterName("norm.weight", "model.norm.weight", "norm.weight", "output_norm.weight", "E"),
    ParameterName("lm_head.weight", "lm_head.weight", "output.weight", "output.weight", "V E", "untied"),
)
