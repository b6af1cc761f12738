"""Known mistakes, planted by hand in a plain torch Llama: one table."""

from plain_llama import Plain
from planted_layers import (
    ATTENTION,
    ATTENTION_OTHERWISE,
    FEED_FORWARD,
    FEED_FORWARD_OTHERWISE,
    OUTPUT,
    QKV,
    QKV_OTHERWISE,
)
from planted_model import BLOCK, CACHE, GENERATION, MODEL, SAMPLING
from planted_neighbours import AFTER_ROTATION, HEAD_NORM, WINDOW
from planted_norm_rope import NORM, NORM_OTHERWISE, ROPE

#: id -> (checkpoint, replaced methods)
PLANTED = {
    **{id: ("1", dict(norm=fn)) for id, fn in NORM.items()},
    **{id: ("1B", replaced) for id, replaced in ROPE.items()},
    **{id: ("2", replaced) for id, replaced in QKV.items()},
    **{id: ("3", replaced) for id, replaced in ATTENTION.items()},
    **{id: ("4", replaced) for id, replaced in OUTPUT.items()},
    **{id: ("5", replaced) for id, replaced in FEED_FORWARD.items()},
    **{id: ("6", replaced) for id, replaced in BLOCK.items()},
    **{id: ("7", replaced) for id, replaced in MODEL.items()},
    **{id: ("8", replaced) for id, replaced in CACHE.items()},
    **{id: ("9", replaced) for id, replaced in SAMPLING.items()},
    **{id: ("10", replaced) for id, replaced in GENERATION.items()},
    **{id: ("2", replaced) for id, replaced in HEAD_NORM.items()},
    **{id: ("3", replaced) for id, replaced in WINDOW.items()},
    **{id: ("6", replaced) for id, replaced in AFTER_ROTATION.items()},
}


#: The same mistakes, made in another way: id -> (checkpoint, replaced methods)
OTHERWISE = {
    **{id: ("1", dict(norm=fn)) for id, fn in NORM_OTHERWISE.items()},
    **{id: ("2", replaced) for id, replaced in QKV_OTHERWISE.items()},
    **{id: ("3", replaced) for id, replaced in ATTENTION_OTHERWISE.items()},
    **{id: ("5", replaced) for id, replaced in FEED_FORWARD_OTHERWISE.items()},
}


def planted(id, table=PLANTED):
    """The program with this mistake."""
    checkpoint_id, replaced = table[id]
    return Plain(checkpoint_id, **replaced)
