"""Mistakes that cannot be told apart by a checkpoint's outputs: committed, with the reason.

``python -m llama_core.checkpoints.equivalence`` computes them anew; a test compares.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EquivalenceClass:
    """Mistakes that agree within tolerance on every small case of a checkpoint.

    Attributes:
        checkpoints: at which of them.
        dtypes: in which types.
        mistakes: their ids.
        because: why no output can tell them apart.
    """

    checkpoints: tuple[str, ...]
    dtypes: tuple[str, ...]
    mistakes: frozenset[str]
    because: str


_ALL = ("float32", "bfloat16", "float16")

EQUIVALENCE_CLASSES: tuple[EquivalenceClass, ...] = (
    EquivalenceClass(
        ("10",),
        _ALL,
        frozenset({"model-layers-reversed", "model-layers-sorted-as-text"}),
        "The model of checkpoint 10 has two layers, and to exchange the last two of two is to reverse them. "
        "Checkpoint 7 has three.",
    ),
    EquivalenceClass(
        ("10",),
        _ALL,
        frozenset({"ffn-gelu", "ffn-gelu-tanh"}),
        "The two forms of gelu differ by less than 0.001, too little to change a greedy token of the cases. "
        "Checkpoint 5 tells them apart by value, in float32.",
    ),
    EquivalenceClass(
        ("5", "6", "7", "8"),
        ("bfloat16",),
        frozenset({"ffn-gelu", "ffn-gelu-tanh"}),
        "The two forms of gelu differ by less than 0.001, which bfloat16 cannot hold.",
    ),
    EquivalenceClass(
        ("6",),
        ("bfloat16",),
        frozenset({"norm-eps-1e-6", "norm-eps-outside-root", "norm-without-eps"}),
        "With hidden states of 0.01 an ε that is a tenth, nothing, or outside the root changes the norm by 5 % alike. "
        "Checkpoint 1 has inputs of 0.001, which tell them apart.",
    ),
)


def classes_at(checkpoint_id: str, dtype: str = "float32") -> tuple[frozenset[str], ...]:
    """The classes that hold at a checkpoint in a type."""
    return tuple(c.mistakes for c in EQUIVALENCE_CLASSES if checkpoint_id in c.checkpoints and dtype in c.dtypes)
