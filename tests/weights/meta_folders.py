"""Small Meta folders written by torch alone, whole or cut into several files, and what they must read as."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

#: E 32, H 4, K 2, D 8 (at D = 4 a permutation of rows is its own inverse), L 2, V 40; F: ⌊8·32/3⌋ = 85, up to a
#: multiple of 12: 96.
PARAMS = {
    "dim": 32,
    "n_layers": 2,
    "n_heads": 4,
    "n_kv_heads": 2,
    "vocab_size": 40,
    "multiple_of": 12,
    "norm_eps": 1e-5,
}

#: Meta's name within a layer -> (shape, ours)
LAYER = {
    "attention_norm.weight": ((32,), "input_layernorm.weight"),
    "attention.wq.weight": ((32, 32), "self_attn.q_proj.weight"),
    "attention.wk.weight": ((16, 32), "self_attn.k_proj.weight"),
    "attention.wv.weight": ((16, 32), "self_attn.v_proj.weight"),
    "attention.wo.weight": ((32, 32), "self_attn.o_proj.weight"),
    "ffn_norm.weight": ((32,), "post_attention_layernorm.weight"),
    "feed_forward.w1.weight": ((96, 32), "mlp.gate_proj.weight"),
    "feed_forward.w2.weight": ((32, 96), "mlp.down_proj.weight"),
    "feed_forward.w3.weight": ((96, 32), "mlp.up_proj.weight"),
}
BY_ROWS = ("wq", "wk", "wv", "w1", "w3", "output")
BY_COLUMNS = ("wo", "w2")


def meta_weights(seed: int = 0, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """The tensors that PARAMS asks for."""
    shapes = {"tok_embeddings.weight": (40, 32), "norm.weight": (32,), "output.weight": (40, 32)}
    shapes |= {f"layers.{n}.{name}": shape for n in range(2) for name, (shape, _) in LAYER.items()}
    generator = torch.Generator().manual_seed(seed)
    return {name: (torch.randn(shape, generator=generator) * 0.25).to(dtype) for name, shape in shapes.items()}


def as_state_dict(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same under our names; row 2i + j of a head of q and k goes to row i + j·D/2, one by one."""
    top = {
        "tok_embeddings.weight": "embed_tokens.weight",
        "norm.weight": "norm.weight",
        "output.weight": "lm_head.weight",
    }
    state = {top[name]: values for name, values in tensors.items() if name in top}
    for n in range(2):
        for name, (_, ours) in LAYER.items():
            values = tensors[f"layers.{n}.{name}"]
            if name.startswith(("attention.wq", "attention.wk")):
                moved = torch.empty_like(values)
                for row in range(len(values)):
                    head, inside = divmod(row, 8)
                    pair, member = divmod(inside, 2)
                    moved[head * 8 + pair + member * 4] = values[row]
                values = moved
            state[f"layers.{n}.{ours}"] = values
    return state


def write_meta(folder: Path, tensors: Any = None, params: dict[str, Any] | None = None, name: str = "00") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "params.json").write_text(json.dumps(PARAMS if params is None else params))
    torch.save(meta_weights() if tensors is None else tensors, folder / f"consolidated.{name}.pth")
    return folder


def cut(tensors: dict[str, torch.Tensor], count: int, embedding_axis: int) -> list[dict[str, torch.Tensor]]:
    """The parts of each machine, as the parallel layers of Meta's code keep them."""
    shards: list[dict[str, torch.Tensor]] = [{} for _ in range(count)]
    for name, values in tensors.items():
        part = name.removesuffix(".weight").rpartition(".")[2]
        axis = 0 if part in BY_ROWS else 1 if part in BY_COLUMNS else embedding_axis if "tok_emb" in name else None
        parts = [values] * count if axis is None else values.chunk(count, axis)
        for shard, piece in zip(shards, parts, strict=True):
            shard[name] = piece.clone()
    return shards


def write_shards(folder: Path, count: int, embedding_axis: int, params: dict[str, Any] | None = None) -> Path:
    for n, shard in enumerate(cut(meta_weights(), count, embedding_axis)):
        write_meta(folder, shard, params, f"{n:02d}")
    return folder
