"""Write a safetensors file tensor by tensor, so that no more than one of them is copied at a time."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from llama_core.weights.safetensors_file import DTYPE_NAMES


def write_safetensors(path: Path, tensors: dict[str, Tensor], progress: Callable[[int], object] | None = None) -> None:
    """Write ``tensors`` to ``path`` and have the disk keep it (fsync).

    Wider dtypes come first, so that every tensor starts at a multiple of its item size; the header is padded to eight
    bytes for the same reason. ``format: pt`` in the metadata is what transformers looks for.

    Args:
        path: a file that does not exist yet.
        tensors: floating-point tensors on any device; a name in a file -> its values.
        progress: called with the number of bytes after each tensor.

    Raises:
        OSError: when the disk is full or the file exists.
    """
    order = sorted(tensors, key=lambda name: -tensors[name].dtype.itemsize)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name in order:
        values = tensors[name]
        stop = position + values.numel() * values.dtype.itemsize
        header[name] = {
            "dtype": DTYPE_NAMES[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [position, stop],
        }
        position = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "xb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in order:
            values = tensors[name].detach().to("cpu").contiguous()
            file.write(values.reshape(-1).view(torch.uint8).numpy().data)
            if progress:
                progress(values.nbytes)
        file.flush()
        os.fsync(file.fileno())
