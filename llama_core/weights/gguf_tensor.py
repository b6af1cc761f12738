"""One tensor of a GGUF file: how its values are stored, and as what they are read."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from llama_core.errors import WeightsError
from llama_core.weights.meta import reorder_heads
from llama_core.weights.safetensors_file import TORCH_DTYPES


@dataclass(frozen=True)
class StoredType:
    """How ggml stores values.

    Attributes:
        name: ggml's. block: how many values of a row are stored together. bytes: what a block takes.
        inputs: what llama.cpp's CPU kernels round the other factor of a product to, "" for nothing
            (``vec_dot_type`` in ``ggml-cpu.c``): as ``Arithmetic.product_inputs``.
    """

    name: str
    block: int
    bytes: int
    inputs: str = ""

    @property
    def quantized(self) -> bool:
        return self.block > 1


#: By ggml's number. Source: ``enum ggml_type`` and the ``block_…`` structures in ggml.
TYPES = {
    0: StoredType("F32", 1, 4),
    1: StoredType("F16", 1, 2, "float16"),
    2: StoredType("Q4_0", 32, 18, "q8_0"),
    3: StoredType("Q4_1", 32, 20, "q8_0"),
    6: StoredType("Q5_0", 32, 22, "q8_0"),
    7: StoredType("Q5_1", 32, 24, "q8_0"),
    8: StoredType("Q8_0", 32, 34, "q8_0"),
    10: StoredType("Q2_K", 256, 84, "q8_k"),
    11: StoredType("Q3_K", 256, 110, "q8_k"),
    12: StoredType("Q4_K", 256, 144, "q8_k"),
    13: StoredType("Q5_K", 256, 176, "q8_k"),
    14: StoredType("Q6_K", 256, 210, "q8_k"),
    30: StoredType("BF16", 1, 2, "bfloat16"),
}


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a file, not read yet.

    Attributes:
        name: its name in the file. path: the file. shape: rows first.
        type: how it is stored. start: the byte of the file that it begins at.
        head_dim: D for q and k, whose rows llama.cpp interleaves; else None.
    """

    name: str
    path: Path
    shape: tuple[int, ...]
    type: StoredType
    start: int
    head_dim: int | None = None

    @property
    def dtype(self) -> str:
        """What it is read as, under safetensors' name: quantized values become float32."""
        return "F32" if self.type.quantized else self.type.name

    @property
    def numel(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * TORCH_DTYPES[self.dtype].itemsize

    @property
    def stored_bytes(self) -> int:
        return self.numel // self.type.block * self.type.bytes

    def read(self) -> Tensor:
        """The values, in memory of their own, the rows of q and k in the half layout.

        Raises:
            WeightsError: the file has become shorter since its header was read, or the values are quantized and the
                ``gguf`` package is not installed.
        """
        raw = np.empty(self.stored_bytes, np.uint8)
        with open(self.path, "rb") as file:
            file.seek(self.start)
            count = file.readinto(raw.data)
        if count != self.stored_bytes:
            raise WeightsError(
                "the file became shorter while it was read",
                file=self.path,
                key=self.name,
                expected=f"{self.stored_bytes:,} bytes",
                actual=f"{count:,} bytes",
            )
        if self.type.quantized:
            gguf = gguf_package(self.path, self.name)
            blocks = raw.reshape(*self.shape[:-1], -1)
            with np.errstate(all="ignore"):  # damaged scales; the values are scanned for NaN and infinity afterwards
                wide = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[self.type.name])
            values = torch.from_numpy(np.ascontiguousarray(wide, np.float32))
        else:
            values = torch.from_numpy(raw).view(TORCH_DTYPES[self.dtype])
        values = values.view(self.shape)
        return values if self.head_dim is None else reorder_heads(values, self.head_dim, "interleaved", "half")


def gguf_package(file: Path | None = None, key: str | None = None):
    """The ``gguf`` package. Raises WeightsError where it is not installed."""
    try:
        import gguf
        import gguf.quants
    except ImportError as e:
        raise WeightsError(
            "the gguf package is not installed, which writes GGUF files and reads quantized ones",
            file=file,
            key=key,
            expected="gguf",
            actual=str(e),
            hint="pip install 'llama-core[gguf]'",
        ) from e
    return gguf
