"""Families: a plain Llama, and its neighbours, which have one step more.

A case belongs to the family that its configuration says. Gates ask a plain Llama's cases of other people's programs,
and a neighbour's only when its name is given; llama_core itself is asked for all.
"""

from __future__ import annotations

from dataclasses import dataclass

from llama_core.config import LlamaConfig
from llama_core.errors import CheckpointError

#: The plain family, and the word for every family.
LLAMA, ALL = "llama", "all"


@dataclass(frozen=True)
class Neighbour:
    """A family that differs from a Llama.

    Attributes:
        field: of ``LlamaConfig``; it switches the step on.
        about: the step, as a sentence says it.
        reads: the configuration's fields that the step itself needs, in words; empty for none.
    """

    field: str
    about: str
    reads: str = ""


NEIGHBOURS = {
    "mistral": Neighbour(
        "sliding_window", "a query sees its own position and the sliding_window - 1 before it", "sliding_window"
    ),
    "qwen2": Neighbour("qkv_bias", "q_proj, k_proj and v_proj have a bias, o_proj has none"),
    "qwen3": Neighbour(
        "qk_norm", "each head of q and k is normalised, with weights of its own, before it is rotated", "rms_norm_eps"
    ),
}


def family_of(config: LlamaConfig) -> str:
    """``llama``, or the neighbour whose step the configuration switches on."""
    return next((name for name, neighbour in NEIGHBOURS.items() if getattr(config, neighbour.field)), LLAMA)


def check_family(name: str) -> str:
    """The name itself. Raises CheckpointError if it is neither a family's nor ``all``."""
    known = (LLAMA, *NEIGHBOURS, ALL)
    if name not in known:
        raise CheckpointError(f"there is no family {name!r}", key="family", expected=" | ".join(known), actual=name)
    return name
