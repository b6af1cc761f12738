"""Checkpoint 9 as steps: from logits to the tokens that may follow, and their probabilities.

Parameters arrive as inputs, one number each: ``temperature`` (0 is argmax), ``top_k`` (0 keeps all), ``top_p`` (1 keeps
all). They apply in this order, as in transformers: temperature, top-k, top-p.
"""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.steps import Step


def greedy_ids(ctx: Context, logits: np.ndarray) -> np.ndarray:
    """[B]: the most likely token; the lowest id where two are equal."""
    return logits.argmax(-1)


def scaled_logits(ctx: Context, logits: np.ndarray, temperature: np.ndarray) -> np.ndarray:
    """logits / T; at T = 0 everything but the argmax is -inf."""
    if temperature[0] == 0:
        best = np.arange(logits.shape[-1]) == logits.argmax(-1)[:, None]
        return np.where(best, 0.0, -np.inf)
    return logits / temperature[0]


def kept_by_top_k(ctx: Context, scaled: np.ndarray, top_k: np.ndarray) -> np.ndarray:
    """-inf for every token with a lower logit than the k-th highest."""
    k = int(top_k[0])
    if k == 0:
        return scaled
    kth = np.sort(scaled, -1)[:, -min(k, scaled.shape[-1])][:, None]
    return np.where(scaled < kth, -np.inf, scaled)


def kept_by_top_p(ctx: Context, limited: np.ndarray, top_p: np.ndarray) -> np.ndarray:
    """Tokens from the most likely down, until their sum reaches p; the one that crosses it is kept."""
    return np.where(nucleus(ctx, limited, float(top_p[0])), limited, -np.inf)


def nucleus(ctx: Context, limited: np.ndarray, p: float) -> np.ndarray:
    """Which tokens are in the smallest set, most likely first, whose probabilities sum to p or more."""
    probabilities = r.softmax(ctx, limited)
    order = np.argsort(-probabilities, axis=-1, kind="stable")
    ordered = np.take_along_axis(probabilities, order, -1)
    before = np.cumsum(ordered, -1) - ordered
    inside = (before < p) | (p >= 1)
    keep = np.zeros_like(inside)
    np.put_along_axis(keep, order, inside, -1)
    return keep & (limited > -np.inf)


def probabilities(ctx: Context, cut: np.ndarray) -> np.ndarray:
    return r.softmax(ctx, cut)


def kept(ctx: Context, cut: np.ndarray) -> np.ndarray:
    """[B, V]: 1 for every token that may be drawn."""
    return (cut > -np.inf).astype(np.int64)


SAMPLING_STEPS = (
    Step("greedy_ids", ("logits",), (), "9", greedy_ids),
    Step("scaled_logits", ("logits", "temperature"), (), "9", scaled_logits),
    Step("top_k_logits", ("scaled_logits", "top_k"), (), "9", kept_by_top_k),
    Step("top_p_logits", ("top_k_logits", "top_p"), (), "9", kept_by_top_p),
    Step("kept", ("top_p_logits",), (), "9", kept),
    Step("probabilities", ("top_p_logits",), (), "9", probabilities),
)
