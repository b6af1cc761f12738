"""Hypotheses with numbers in them, which are taken from the candidate: another ε, a factor, a constant, an order.

Each is fitted to the first wrong tensor of one call and then held, like every other, to all that the candidate gives.
A fit has few numbers against many values, so that it does not come about by chance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes import CATALOGUE
from llama_core.checkpoints.mistakes.mistake import Mistake, change
from llama_core.names import activation_axes
from llama_core.traces.hypothesis import after, made
from llama_core.traces.judge import Introduced
from llama_core.traces.regions import STEPS, Region

#: Rows below which a fit says nothing.
_ROWS = 3
#: Of the root mean square: values in another order are the same but for rounding, in half precision too.
_NEAR = 0.05
_NORMS = ("attention_norm", "ffn_norm", "final_norm")
#: A constant that is added at every position is a bias; where the catalogue has that mistake, it is the one.
_SPURIOUS = dict.fromkeys("qkv", "qkv-spurious-bias") | {"logits": "model-spurious-head-bias"}


def fitted(name: str, one: Introduced, region: Region) -> list[Mistake]:
    """Those that may explain a tensor, given what it is and what it should be."""
    if len(one.right) < _ROWS or not np.isfinite(one.right).all() or not np.isfinite(one.candidate).all():
        return []
    found = [*_factor(name, one)]
    if name in _NORMS:
        found += _eps(name, one, region)
    if activation_axes(one.name).split()[:2] == ["B", "S"]:
        found += [*_constant(name, one), *_order(name, one)]
    return found


def _factor(name: str, one: Introduced) -> Iterator[Mistake]:
    square = float(np.sum(one.right * one.right))
    if not square:
        return
    c = float(np.sum(one.candidate * one.right)) / square
    if abs(c) > 1e-3:
        title = f"{name} is {c:.4g} times what it should be"
        mend = f"Look in this step for a factor of {c:.4g} or 1/{1 / c:.4g}: a scale left out, or applied twice."
        yield made(f"{name}-times-{c:.4g}", STEPS[name].checkpoint, title, mend, change(**after(name, lambda x: c * x)))


def _eps(name: str, one: Introduced, region: Region) -> Iterator[Mistake]:
    """ε = (x·w / y)² - mean(x²), from each row's projection of y on x·w."""
    step = STEPS[name]
    x = region.value(step.inputs[0])
    weight = region.context.weight(step.weights[0])
    x = x[region.facts.positions >= 0] if x.shape[:2] == region.facts.positions.shape else x.reshape(-1, x.shape[-1])
    if x.shape != one.candidate[:, 0].shape:
        return
    scaled = x * weight
    with np.errstate(all="ignore"):
        size = np.sum(one.candidate[:, 0] * scaled, -1) / np.sum(scaled * scaled, -1)
        eps = float(np.median(size**-2.0 - np.mean(x * x, -1)))
    if not 0 < eps < 1 or not np.isfinite(eps):
        return
    eps = float(f"{eps:.1e}")
    right = region.context.config.rms_norm_eps
    if eps == right:
        return

    def norm(ctx: Context, *arguments):
        before = ctx.config
        ctx.config = before.replace(rms_norm_eps=eps)
        try:
            return ctx.right(ctx, *arguments)
        finally:
            ctx.config = before

    title = f"ε is {eps:g}, not the {right:g} of the configuration"
    mend = "Read rms_norm_eps from the configuration."
    yield made(f"norm-eps-{eps:g}", STEPS[name].checkpoint, title, mend, change(**dict.fromkeys(_NORMS, norm)))


def _constant(name: str, one: Introduced) -> Iterator[Mistake]:
    constant = (one.candidate - one.right).mean(0)  # [G, W]
    if not constant.any() or not STEPS[name].weights:
        return
    added = constant if "H" in activation_axes(one.name) or "K" in activation_axes(one.name) else constant[0]
    changes = change(**after(name, lambda x: x + added))
    if name in _SPURIOUS:
        yield dataclasses.replace(CATALOGUE[_SPURIOUS[name]], changes=changes)
        return
    title = f"the same vector is added to {name} at every position, as by a bias"
    mend = "Create the layer without a bias that the model does not have; load strictly."
    yield made(f"{name}-plus-constant", STEPS[name].checkpoint, title, mend, changes)


def _order(name: str, one: Introduced) -> Iterator[Mistake]:
    """The right values in another order: of heads, of the coordinates in every head, or of all of them."""
    count, heads, width = one.right.shape
    if heads * width > 4096:
        return
    for what, moved in (("heads", (1, 0, 2)), ("coordinates of every head", (2, 0, 1)), ("coordinates", None)):
        a, b = (x.reshape(count, -1).T if moved is None else x.transpose(moved) for x in (one.candidate, one.right))
        order = _matching(a.reshape(len(a), -1), b.reshape(len(b), -1))
        if order is None or (heads == 1 and what != "coordinates"):
            continue
        at = int(np.flatnonzero(order != np.arange(len(order)))[0])
        title = f"the {what} of {name} are in another order: {at} holds those of {order[at]}"
        mend = "Lay out the rows of the projection as the model has them, heads as consecutive blocks of D rows."
        id = f"{name}-{what.split()[0]}-in-another-order"

        def reordered(x: np.ndarray, what=what, order=order) -> np.ndarray:
            if what == "heads":
                return x[..., order, :]
            if what != "coordinates":
                return x[..., order]
            flat = x.reshape(*x.shape[:2], -1)
            return flat[..., order].reshape(x.shape)

        yield made(id, STEPS[name].checkpoint, title, mend, change(**after(name, reordered)))
        return


def _matching(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """Which row of b every row of a is; None unless each is one, and a row is moved."""
    if a.shape[0] < 2 or a.shape[1] < _ROWS:
        return None
    squares = (a * a).sum(1)[:, None] - 2 * a @ b.T + (b * b).sum(1)[None]
    order = squares.argmin(1)
    if (order == np.arange(len(order))).all() or len(set(order.tolist())) < len(order):
        return None
    near = _NEAR * np.sqrt(np.mean(b * b))
    return order if np.abs(a - b[order]).max() <= near else None
