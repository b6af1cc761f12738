"""The catalogue of known mistakes: each a small, named change of the table of steps, and words for people."""

from __future__ import annotations

from llama_core.checkpoints.mistakes import (
    attention,
    block,
    cache,
    feed_forward,
    foundation,
    generation,
    head_norm,
    model,
    norm,
    projection,
    rope,
    sampling,
    window,
)
from llama_core.checkpoints.mistakes.classes import EQUIVALENCE_CLASSES, EquivalenceClass, classes_at
from llama_core.checkpoints.mistakes.mistake import Mistake, combine
from llama_core.errors import CheckpointError

#: Every known mistake by its id, in the order of checkpoints.
CATALOGUE: dict[str, Mistake] = {
    mistake.id: mistake
    for mistake in (
        *foundation.MISTAKES,
        *norm.MISTAKES,
        *rope.MISTAKES,
        *projection.QKV_MISTAKES,
        *head_norm.PROJECTION_MISTAKES,
        *attention.MISTAKES,
        *window.MISTAKES,
        *projection.OUTPUT_MISTAKES,
        *feed_forward.MISTAKES,
        *block.MISTAKES,
        *head_norm.BLOCK_MISTAKES,
        *model.MISTAKES,
        *cache.MISTAKES,
        *sampling.MISTAKES,
        *generation.MISTAKES,
    )
}

_PARTS = ("1", "1B", "2", "3", "4", "5")

#: The checkpoints whose steps a checkpoint is made of, itself included.
CONTAINED: dict[str, tuple[str, ...]] = {
    **{id: (id,) for id in ("0", *_PARTS, "9")},
    "6": (*_PARTS, "6"),
    "7": (*_PARTS, "6", "7"),
    "8": (*_PARTS, "6", "7", "8"),
    "10": (*_PARTS, "6", "7", "8", "10"),
}


def mistake(id: str) -> Mistake:
    """The mistake with this id. Raises CheckpointError for any other text."""
    if id not in CATALOGUE:
        alike = [known for known in CATALOGUE if set(id.split("-")) & set(known.split("-"))]
        raise CheckpointError(
            f"there is no known mistake {id!r}", key="mistake", expected=" ".join(alike or CATALOGUE), actual=id
        )
    return CATALOGUE[id]


def mistakes_for(checkpoint_id: str) -> tuple[Mistake, ...]:
    """The mistakes that a checkpoint itself must catch."""
    return tuple(m for m in CATALOGUE.values() if m.checkpoint == checkpoint_id)


def candidates_for(checkpoint_id: str) -> tuple[Mistake, ...]:
    """The mistakes that may show at a checkpoint: its own, then those of the checkpoints that it contains."""
    inner = [id for id in CONTAINED.get(checkpoint_id, ()) if id != checkpoint_id]
    return tuple(m for id in (checkpoint_id, *inner) for m in mistakes_for(id))


__all__ = [
    "CATALOGUE",
    "CONTAINED",
    "EQUIVALENCE_CLASSES",
    "EquivalenceClass",
    "Mistake",
    "candidates_for",
    "classes_at",
    "combine",
    "mistake",
    "mistakes_for",
]
