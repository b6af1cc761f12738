"""GGUF files made byte by byte from the format's description, good ones and spoilt ones."""

import struct

import numpy as np

F32, F16, Q8_0, BF16 = 0, 1, 8, 30
METADATA = {
    "general.architecture": "llama",
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.block_count": 2,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.vocab_size": 40,
}


def tensors(seed: int = 0) -> dict[str, np.ndarray]:
    """The tensors that METADATA asks for, shapes written out by hand: E 32, F 64, V 40, H·D 32, K·D 16."""
    shapes = {"token_embd.weight": (40, 32), "output_norm.weight": (32,), "output.weight": (40, 32)}
    for n in range(2):
        layer = f"blk.{n}."
        shapes |= {layer + "attn_norm.weight": (32,), layer + "ffn_norm.weight": (32,)}
        shapes |= {layer + "attn_q.weight": (32, 32), layer + "attn_output.weight": (32, 32)}
        shapes |= {layer + "attn_k.weight": (16, 32), layer + "attn_v.weight": (16, 32)}
        shapes |= {layer + "ffn_gate.weight": (64, 32), layer + "ffn_up.weight": (64, 32)}
        shapes |= {layer + "ffn_down.weight": (32, 64)}
    random = np.random.default_rng(seed)
    return {name: (random.standard_normal(shape) * 0.25).astype(np.float32) for name, shape in shapes.items()}


def text(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def entry(key: str, value) -> bytes:
    """One metadata entry: text, flag, uint32, float32 or an array of them; bytes are taken as they are."""
    if isinstance(value, bytes):
        return text(key) + value
    if isinstance(value, list):
        kind, letter = (5, "i") if isinstance(value[0], int) else (6, "f")
        return text(key) + struct.pack("<IIQ", 9, kind, len(value)) + struct.pack(f"<{len(value)}{letter}", *value)
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, bool):
        return text(key) + struct.pack("<I?", 7, value)
    return text(key) + (struct.pack("<II", 4, value) if isinstance(value, int) else struct.pack("<If", 6, value))


def encode(metadata=None, values=None, kinds=None, offsets=None, shapes=None, version=3, counts=None) -> bytes:
    """A file.

    Args:
        values: name -> float32 values, or the bytes to store. kinds: name -> ggml's type, where it is not F32.
        offsets, shapes: name -> what the header states instead of the truth. counts: (tensors, entries) to state.
    """
    metadata = METADATA if metadata is None else metadata
    values = tensors() if values is None else values
    header = b"".join(entry(key, value) for key, value in metadata.items())
    data, infos = b"", b""
    for name, value in values.items():
        shape = (shapes or {}).get(name, getattr(value, "shape", None))
        at = (offsets or {}).get(name, len(data))
        infos += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        infos += struct.pack("<IQ", (kinds or {}).get(name, F32), at)
        data += value if isinstance(value, bytes) else value.tobytes()
        data += bytes(-len(data) % 32)
    counts = counts or (len(values), len(metadata))
    head = b"GGUF" + struct.pack("<IQQ", version, *counts) + header + infos
    return head + bytes(-len(head) % 32) + data


def q8_0(values: np.ndarray) -> bytes:
    """Blocks of 32: a half-precision scale, the largest value / 127, and whole numbers times it."""
    blocks = values.reshape(-1, 32).astype(np.float64)
    out = b""
    for block in blocks:
        scale = np.abs(block).max() / 127
        whole = np.rint(block / scale) if scale else np.zeros(32)
        out += np.float16(scale).tobytes() + whole.astype(np.int8).tobytes()
    return out


def multiplied_out(stored: bytes, shape: tuple[int, ...]) -> np.ndarray:
    """The values that blocks stand for."""
    rows = np.frombuffer(stored, np.uint8).reshape(-1, 34)
    scales = rows[:, :2].copy().view(np.float16).astype(np.float32)
    return (scales * rows[:, 2:].copy().view(np.int8).astype(np.float32)).reshape(shape)
