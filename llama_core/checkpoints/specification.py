"""The checkpoints, "0" to "10": one table."""

from __future__ import annotations

from llama_core.checkpoints import layer_checkpoints as layer
from llama_core.checkpoints import model_checkpoints as model
from llama_core.checkpoints.definition import Checkpoint
from llama_core.errors import CheckpointError

CHECKPOINTS: dict[str, Checkpoint] = {
    spec.id: spec
    for spec in (
        layer.foundation(),
        layer.rms_norm(),
        layer.rope(),
        layer.qkv_projection(),
        layer.attention(),
        layer.output_projection(),
        layer.feed_forward(),
        model.block(),
        model.full_model(),
        model.kv_cache(),
        model.sampling(),
        model.generation(),
    )
}


def checkpoint(id: str) -> Checkpoint:
    """The checkpoint with this id. Raises CheckpointError for any other text."""
    if str(id).upper() not in CHECKPOINTS:
        raise CheckpointError(
            f"there is no checkpoint {id!r}", key="checkpoint", expected=" ".join(CHECKPOINTS), actual=id
        )
    return CHECKPOINTS[str(id).upper()]


__all__ = ["CHECKPOINTS", "Checkpoint", "checkpoint"]
