"""What a gate ran on: versions, machine, threads."""

from __future__ import annotations

import platform

import numpy as np
import torch

from llama_core import __version__


def environment(device: str = "cpu") -> dict[str, str | int]:
    """Facts that figures depend on, by name."""
    kind = torch.device(device).type
    return {
        "llama_core": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": f"{platform.system()} {platform.machine()}",
        "device": torch.cuda.get_device_name(device) if kind == "cuda" else kind,
        "threads": torch.get_num_threads(),
    }
