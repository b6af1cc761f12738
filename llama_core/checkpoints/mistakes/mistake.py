"""What a known mistake is, and the small tools that several of them share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.families import LLAMA
from llama_core.checkpoints.steps import Changes, StepFunction


@dataclass(frozen=True)
class Mistake:
    """One way in which people get a Llama wrong: a small, named change of the table of steps.

    Attributes:
        id: in words joined by hyphens, the step first.
        checkpoint: the checkpoint that teaches the step and catches the mistake.
        title: completes the sentence "it looks as if ...".
        looks_like: what an engineer sees who has made it.
        why: how people come to make it.
        mend: what to do.
        notebook: where it is taught, ``notebook#section``.
        changes: what it does to the table.
        origin: a public thread of people who met it; empty where none was found.
        equivalent: where it makes no difference, and why; empty where it always does.
        also: other ways to make it, which give other values and have the same cure.
        family: ``llama``, or the neighbour whose own step it gets wrong; a plain Llama cannot have it.
    """

    id: str
    checkpoint: str
    title: str
    looks_like: str
    why: str
    mend: str
    notebook: str
    changes: Changes
    origin: str = ""
    equivalent: str = ""
    also: tuple[Changes, ...] = ()
    family: str = LLAMA

    @property
    def ways(self) -> tuple[Changes, ...]:
        """Every way to make it, the usual one first."""
        return (self.changes, *self.also)


def change(**steps: StepFunction) -> Changes:
    """The table with these steps computed by other functions."""
    return Changes(steps=steps)


def configured(**values) -> Changes:
    """The table with other hyper-parameters; a function is given the configuration and returns the value."""

    def config(right):
        return right.replace(**{key: value(right) if callable(value) else value for key, value in values.items()})

    return Changes(config=config)


def half_type(ctx: Context) -> str:
    """The half precision a mistake computes in: the model's own, or bfloat16 in a wider model."""
    return ctx.arithmetic.dtype if ctx.arithmetic.dtype in ("bfloat16", "float16") else "bfloat16"


def half_rounding(ctx: Context) -> Callable[[np.ndarray], np.ndarray]:
    """Rounds to ``half_type``."""
    dtype = half_type(ctx)
    return lambda x: round_to(np.asarray(x, np.float64), dtype)


def combine(first: Changes, second: Changes) -> Changes:
    """Both at once; where both replace a step, the second is given the first's function as the right one."""
    steps = dict(first.steps)
    for name, fn in second.steps.items():
        steps[name] = _after(first.steps[name], fn) if name in first.steps else fn
    return Changes(
        steps=steps,
        weights=_chain_weights(first.weights, second.weights),
        config=_chain_config(first.config, second.config),
    )


def _after(first: StepFunction, second: StepFunction) -> StepFunction:
    def both(ctx: Context, *arguments):
        table_function = ctx.right

        def right(ctx: Context, *arguments):
            ctx.right = table_function
            return first(ctx, *arguments)

        ctx.right = right
        return second(ctx, *arguments)

    return both


def _chain_config(first: Callable | None, second: Callable | None) -> Callable | None:
    if first is None or second is None:
        return first or second
    return lambda config: second(first(config))


def _chain_weights(first: Callable | None, second: Callable | None) -> Callable | None:
    if first is None or second is None:
        return first or second
    return lambda weights, config: second(first(weights, config), config)
