"""What every hypothesis about a cause is made of: a change of the table of steps and words, like a known mistake."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from llama_core.checkpoints.mistakes.mistake import Mistake
from llama_core.checkpoints.steps import Changes, StepFunction

#: Checkpoint -> where it is taught.
_LESSONS = {
    "0": "00_foundation#sizes",
    "1": "01_rms_norm#formula",
    "1B": "01b_rope#rotation",
    "2": "02_qkv_projection#heads",
    "3": "03_attention#scores",
    "4": "04_output_projection#order",
    "5": "05_feed_forward#gate",
    "6": "06_transformer_block#order",
    "7": "07_full_model#layers",
    "8": "08_kv_cache#writing",
}


def made(id: str, checkpoint: str, title: str, mend: str, changes: Changes, notebook: str = "") -> Mistake:
    """A hypothesis; ``title`` completes the sentence "it looks as if ..."."""
    return Mistake(id, checkpoint, title, "", "", mend, notebook or _LESSONS[checkpoint], changes)


def after(step: str, then: Callable[[np.ndarray], np.ndarray]) -> dict[str, StepFunction]:
    """The right value of a step, and then something done to it."""
    return {step: lambda ctx, *arguments: then(ctx.right(ctx, *arguments))}
