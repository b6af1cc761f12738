"""Are all values of a tensor finite? At memory speed, and without a copy of the tensor."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from llama_core.errors import WeightsError
from llama_core.weights.stored import StoredTensor

_CHUNK = 1 << 24  # values at a time


def check_finite(values: Tensor, entry: StoredTensor, target: torch.dtype) -> None:
    """Refuse NaN, infinity, and values too large for the dtype that they are to be converted to.

    ``aminmax`` passes NaN on and allocates nothing, in any dtype; ``isfinite`` would write a mask of the same length.

    Raises:
        WeightsError: naming the tensor and the index of the first such value.
    """
    largest = torch.finfo(target).max
    flat = values.reshape(-1)
    for start in range(0, flat.numel(), _CHUNK):
        chunk = flat[start : start + _CHUNK]
        low, high = (x.item() for x in torch.aminmax(chunk))
        if math.isfinite(low) and math.isfinite(high) and -largest <= low and high <= largest:
            continue
        wide = chunk.double()
        wrong = ~wide.isfinite() | (wide.abs() > largest)
        offset = int(wrong.nonzero()[0])
        value = wide[offset].item()
        at = [int(i) for i in torch.unravel_index(torch.tensor(start + offset, device="cpu"), values.shape)]
        if math.isfinite(value):
            message = f"{entry.name} holds {value:g} at {at}, which {str(target).removeprefix('torch.')} cannot hold"
            hint = "load it in bfloat16 or float32"
        else:
            message = f"{entry.name} holds {value} at {at}"
            hint = "the training diverged or the file is damaged; fused attention would hide this behind finite logits"
        raise WeightsError(
            message,
            file=entry.path,
            key=entry.name,
            expected=f"finite values up to {largest:g}",
            actual=f"{value} at {at}; {int(wrong.sum()):,} such values in this part of the tensor",
            hint=hint,
        )
