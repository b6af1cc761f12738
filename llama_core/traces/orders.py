"""Rows of the projections in another order: another rotary layout, heads regrouped, a converter's mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change
from llama_core.config import LlamaConfig
from llama_core.layers.rope import layout_permutation
from llama_core.traces.hypothesis import after, made


def orders(config: LlamaConfig) -> Iterator[Mistake]:
    """Hypotheses about the order of rows and heads."""
    yield from _layouts()
    yield from _heads()
    yield from _conversions(config)


def _layouts() -> Iterator[Mistake]:
    for source, target in (("half", "interleaved"), ("interleaved", "half")):

        def permuted(x: np.ndarray, source=source, target=target) -> np.ndarray:
            return x[..., layout_permutation(x.shape[-1], source, target)]

        title = f"the coordinates of every q and k head are in the {target} layout, those of the model in {source}"
        mend = "Permute the rows of q_proj and k_proj (each with its own head count), or rotate in their layout."
        steps = after("q", permuted) | after("k", permuted)
        yield made(f"rows-in-{target}-layout", "1B", title, mend, change(**steps), "01b_rope#layouts")
        for one in "qk":
            yield made(
                f"{one}-rows-in-{target}-layout",
                "1B",
                f"the coordinates of every {one} head are in the {target} layout, those of the model in {source}",
                mend,
                change(**after(one, permuted)),
                "01b_rope#layouts",
            )


def _heads() -> Iterator[Mistake]:
    for name, title in (("q", "query"), ("k", "key"), ("v", "value"), ("attention_context", "context")):
        mend = "Heads are consecutive blocks of D rows; query heads h·G to (h+1)·G belong to key/value head h."
        yield made(
            f"{name}-heads-reversed",
            "2",
            f"the {title} heads are in reverse order",
            mend,
            change(**after(name, lambda x: x[..., ::-1, :])),
        )
    yield made(
        "q-heads-by-rank",
        "2",
        "the query heads are in the order of their rank within a group, not group by group",
        "Query head h reads key/value head h // (H / K).",
        change(q=_by_rank(False)),
    )
    yield made(
        "q-heads-by-group",
        "2",
        "the query heads were regrouped although they are group by group already",
        "Query head h reads key/value head h // (H / K).",
        change(q=_by_rank(True)),
    )


def _conversions(config: LlamaConfig) -> Iterator[Mistake]:
    """Rows of q_proj and k_proj that a converter reordered, from halves to pairs or back, with a wrong head count."""
    own = {"q": config.num_attention_heads, "k": config.num_key_value_heads}
    counts = {*own.values(), config.num_attention_heads // own["k"]}
    for name, right in own.items():
        for wrong in sorted(counts - {right}):
            rows = right * config.head_dim
            if rows % (2 * wrong):
                continue
            for to_pairs, suffix in ((True, ""), (False, "-back")):

                def converted(x: np.ndarray, wrong=wrong, right=right, to_pairs=to_pairs) -> np.ndarray:
                    flat = x.reshape(*x.shape[:2], -1)
                    there = rows_converted(flat, wrong, to_pairs)
                    return rows_converted(there, right, not to_pairs).reshape(x.shape)

                yield made(
                    f"{name}-rows-converted{suffix}-with-{wrong}-heads",
                    "1B",
                    f"the rows of {name}_proj were converted as if it had {wrong} heads; it has {right}",
                    "q_proj has H heads and k_proj has K: reorder each with its own count.",
                    change(**after(name, converted)),
                    "01b_rope#layouts",
                )


def rows_converted(x: np.ndarray, heads: int, to_pairs: bool) -> np.ndarray:
    """The last axis, rows of a projection, from halves to pairs head by head, or back."""
    shape = (heads, 2, -1) if to_pairs else (heads, -1, 2)
    return x.reshape(*x.shape[:-1], *shape).swapaxes(-1, -2).reshape(x.shape)


def _by_rank(inverse: bool) -> Callable:
    def fn(ctx: Context, *arguments):
        q = ctx.right(ctx, *arguments)
        shape = (ctx.config.num_key_value_heads, -1) if not inverse else (-1, ctx.config.num_key_value_heads)
        return q[..., np.arange(q.shape[-2]).reshape(shape).T.reshape(-1), :]

    return fn
