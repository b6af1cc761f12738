"""Good model folders, small ones, and the means to spoil them."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "rope_scaling": None,
    "attention_bias": False,
    "mlp_bias": False,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def weights(seed: int = 0) -> dict[str, torch.Tensor]:
    """The tensors that CONFIG asks for, their shapes written out by hand: E 16, F 24, V 40, H·D 16, K·D 8."""
    shapes = {"model.embed_tokens.weight": (40, 16), "model.norm.weight": (16,), "lm_head.weight": (40, 16)}
    for n in range(2):
        layer = f"model.layers.{n}."
        shapes |= {
            layer + "input_layernorm.weight": (16,),
            layer + "self_attn.q_proj.weight": (16, 16),
            layer + "self_attn.k_proj.weight": (8, 16),
            layer + "self_attn.v_proj.weight": (8, 16),
            layer + "self_attn.o_proj.weight": (16, 16),
            layer + "post_attention_layernorm.weight": (16,),
            layer + "mlp.gate_proj.weight": (24, 16),
            layer + "mlp.up_proj.weight": (24, 16),
            layer + "mlp.down_proj.weight": (16, 24),
        }
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.25 for name, shape in shapes.items()}


def write_folder(folder: Path, config: dict[str, Any] | None = None, tensors: dict | None = None) -> Path:
    """A folder with ``config.json`` and ``model.safetensors``, written by json and the safetensors library."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG if config is None else config))
    save_file(weights() if tensors is None else tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_shards(folder: Path, assign: Callable[[str], int] | None = None) -> Path:
    """The same folder with its tensors in two shards: the first layer, and all the rest."""
    write_folder(folder)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    assign = assign or (lambda name: 1 if ".layers.0." in name else 2)
    names = {name: f"model-{assign(name):05d}-of-00002.safetensors" for name in tensors}
    for shard in set(names.values()):
        save_file({n: t for n, t in tensors.items() if names[n] == shard}, folder / shard, metadata={"format": "pt"})
    write_index(folder, names)
    return folder


def write_index(folder: Path, weight_map: Any) -> None:
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    )


def read_index(folder: Path) -> dict[str, str]:
    return json.loads((folder / "model.safetensors.index.json").read_text())["weight_map"]


def edit_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not ...}))


def edit_tensors(folder: Path, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Rewrite ``model.safetensors`` after ``edit`` has changed the dictionary of its tensors in place."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def edit_header(folder: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Rewrite the header of ``model.safetensors``, bytes of the tensors untouched."""
    path = folder / "model.safetensors"
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    edit(header)
    write_raw(path, json.dumps(header).encode(), content[8 + length :])


def write_raw(path: Path, header: bytes, data: bytes = b"", length: int | None = None) -> None:
    path.write_bytes(struct.pack("<Q", len(header) if length is None else length) + header + data)
