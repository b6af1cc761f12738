"""Floating-point types by name."""

from __future__ import annotations

import torch

from llama_core.config import DTYPES
from llama_core.errors import ConfigError, InputError

_TORCH_DTYPES = {name: getattr(torch, name) for name in DTYPES}


def as_torch_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """``"bfloat16"`` or ``torch.bfloat16`` as ``torch.bfloat16``. Raises ConfigError for anything but a float type."""
    found = _TORCH_DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype) or found not in _TORCH_DTYPES.values():
        raise ConfigError(
            f"{dtype!r} is no floating-point type that a model can have",
            key="dtype",
            expected=" | ".join(DTYPES),
            actual=dtype,
        )
    return found


def as_device(device: str | torch.device) -> torch.device:
    """``"cuda:1"`` as a device. Raises InputError for what is none, or is not there."""
    try:
        place = torch.device(device)
        torch.empty(0, device=place)
    except (RuntimeError, TypeError, AssertionError, NotImplementedError) as e:  # each from some kind of device
        raise InputError(
            f"there is no device {str(device)[:80]!r} here",
            key="device",
            expected="cpu, or cuda or mps where there is one",
            actual=str(e).splitlines()[0][:200],
        ) from e
    return place


def dtype_name(dtype: torch.dtype) -> str:
    """``torch.bfloat16`` as ``"bfloat16"``."""
    return str(dtype).removeprefix("torch.")


def at_least_float32(dtype: torch.dtype) -> torch.dtype:
    """The type to compute norms, rotary tables and softmax in: float32, or float64 where the model has it."""
    return torch.promote_types(dtype, torch.float32)
