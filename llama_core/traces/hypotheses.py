"""What else goes wrong in a port, besides the catalogue: layouts, orders, other layers' weights, positions, precision.

Each is a change of the table of steps like a known mistake, so that ``explain`` can hold all of them to the candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change, configured
from llama_core.checkpoints.steps import LAYER_STEPS, OUTPUT_STEPS, Changes, Step
from llama_core.config import LlamaConfig
from llama_core.layers.rope import layout_permutation
from llama_core.traces.regions import STEPS, Place

#: Other layers that are tried on each side.
_NEAR = 6
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


def hypotheses(place: Place, config: LlamaConfig, dtype: str) -> list[Mistake]:
    """Those that may concern a place of a model."""
    found = [*_precisions(place, dtype)]
    if isinstance(place, int):
        found += [*_other_layers(place, config), *_orders(), *_positions(), *_caches(), *_numbers(config)]
        found.append(
            _made(
                "layer-skipped",
                "7",
                "this layer is skipped: its output is its input",
                "Run every layer, in order.",
                change(output=lambda ctx, h, ffn: ctx.value("layer_input")),
            )
        )
    return found


def _made(id: str, checkpoint: str, title: str, mend: str, changes: Changes, notebook: str = "") -> Mistake:
    return Mistake(id, checkpoint, title, "", "", mend, notebook or _LESSONS[checkpoint], changes)


def _other_layers(place: int, config: LlamaConfig) -> Iterator[Mistake]:
    near = range(max(0, place - _NEAR), min(config.num_hidden_layers, place + _NEAR + 1))
    steps = [step for step in LAYER_STEPS if step.weights]
    for other in near:
        if other == place:
            continue
        mend = f"Load layers.{place} from the tensors of that number; names sorted as text put 10 before 2."
        changes = change(**{step.name: _with_weights_of(other, step) for step in steps})
        yield _made(f"weights-of-layer-{other}", "7", f"this layer has the weights of layer {other}", mend, changes)
        for step in steps:
            parameter = step.weights[0].removesuffix(".weight")
            yield _made(
                f"{parameter}-of-layer-{other}",
                "7",
                f"{parameter} is that of layer {other}",
                mend,
                change(**{step.name: _with_weights_of(other, step)}),
            )


def _with_weights_of(other: int, step: Step) -> Callable:
    def fn(ctx: Context, *arguments):
        given = arguments[: len(step.inputs)]
        return ctx.right(ctx, *given, *(ctx.weight(f"layers.{other}.{name}") for name in step.weights))

    return fn


def _after(step: str, then: Callable[[np.ndarray], np.ndarray]) -> dict[str, Callable]:
    """The right value, and then something done to it."""
    return {step: lambda ctx, *arguments: then(ctx.right(ctx, *arguments))}


def _orders() -> Iterator[Mistake]:
    """Rows of the projections in another layout or order."""
    for source, target in (("half", "interleaved"), ("interleaved", "half")):

        def permuted(x: np.ndarray, source=source, target=target) -> np.ndarray:
            return x[..., layout_permutation(x.shape[-1], source, target)]

        title = f"the coordinates of every q and k head are in the {target} layout, those of the model in {source}"
        mend = "Permute the rows of q_proj and k_proj (each with its own head count), or rotate in their layout."
        steps = _after("q", permuted) | _after("k", permuted)
        yield _made(f"rows-in-{target}-layout", "1B", title, mend, change(**steps), "01b_rope#layouts")
        for one in "qk":
            yield _made(
                f"{one}-rows-in-{target}-layout",
                "1B",
                f"the coordinates of every {one} head are in the {target} layout, those of the model in {source}",
                mend,
                change(**_after(one, permuted)),
                "01b_rope#layouts",
            )
    for name, title in (("q", "query"), ("k", "key"), ("v", "value"), ("attention_context", "context")):
        mend = "Heads are consecutive blocks of D rows; query heads h·G to (h+1)·G belong to key/value head h."
        yield _made(
            f"{name}-heads-reversed",
            "2",
            f"the {title} heads are in reverse order",
            mend,
            change(**_after(name, lambda x: x[..., ::-1, :])),
        )
    yield _made(
        "q-heads-by-rank",
        "2",
        "the query heads are in the order of their rank within a group, not group by group",
        "Query head h reads key/value head h // (H / K).",
        change(q=_by_rank(False)),
    )
    yield _made(
        "q-heads-by-group",
        "2",
        "the query heads were regrouped although they are group by group already",
        "Query head h reads key/value head h // (H / K).",
        change(q=_by_rank(True)),
    )


def _by_rank(inverse: bool) -> Callable:
    def fn(ctx: Context, *arguments):
        q = ctx.right(ctx, *arguments)
        shape = (ctx.config.num_key_value_heads, -1) if not inverse else (-1, ctx.config.num_key_value_heads)
        return q[..., np.arange(q.shape[-2]).reshape(shape).T.reshape(-1), :]

    return fn


def _positions() -> Iterator[Mistake]:
    mend = "The first token of a sequence has position 0, and padding has none."
    for by in (-2, -1, 2):

        def moved(ctx: Context, x, position_ids, by=by):
            return ctx.right(ctx, x, np.where(position_ids >= 0, np.maximum(position_ids + by, 0), position_ids))

        yield _made(
            f"positions-{by:+d}",
            "1B",
            f"positions are off by {by:+d}",
            mend,
            change(q_rotated=moved, k_rotated=moved),
            "01b_rope#positions",
        )

    def slots(ctx: Context, x, position_ids):
        first = ctx.value("key_positions").shape[1] - position_ids.shape[1]
        return ctx.right(ctx, x, first + np.zeros_like(position_ids) + np.arange(position_ids.shape[1]))

    yield _made(
        "positions-count-padding",
        "8",
        "positions are slot numbers: padding is counted",
        mend,
        change(q_rotated=slots, k_rotated=slots),
        "08_kv_cache#positions",
    )


def _caches() -> Iterator[Mistake]:
    yield _made(
        "cache-keys-not-rotated",
        "8",
        "the cache holds the keys as they were before rotation",
        "Cache rotated keys, or rotate all of them in every call.",
        change(cache_k=lambda ctx, k: _like_cache(ctx, "cache_k", ctx.value("k"))),
        "08_kv_cache#rotation",
    )
    yield _made(
        "cache-values-rotated",
        "1B",
        "the values are rotated before they are cached",
        "Rotate q and k only.",
        change(cache_v=lambda ctx, v: _like_cache(ctx, "cache_v", r.rotated(ctx, v, ctx.value("position_ids")))),
        "01b_rope#what-turns",
    )

    def stale(name: str):
        def fn(ctx: Context, new):
            made = ctx.right(ctx, new)
            count = new.shape[1]
            if ctx.past:
                made = made.copy()
                made[:, :, -count:] = 0
            return made

        return {name: fn}

    yield _made(
        "cache-not-written",
        "8",
        "new keys and values are not written to the cache",
        "Write at [length : length + S], in every layer, before attention reads.",
        change(**stale("cache_k"), **stale("cache_v")),
    )


def _like_cache(ctx: Context, name: str, new: np.ndarray) -> np.ndarray:
    new = new.transpose(0, 2, 1, 3)
    past = ctx.past.get(name)
    return new if past is None else np.concatenate([past, new], axis=2)


def _numbers(config: LlamaConfig) -> Iterator[Mistake]:
    for eps in (1e-4, 1e-5, 1e-8, 1e-12):
        if eps != config.rms_norm_eps:
            yield _made(
                f"norm-eps-{eps:g}",
                "1",
                f"ε is {eps:g}, not the {config.rms_norm_eps:g} of the configuration",
                "Read rms_norm_eps from the configuration.",
                configured(rms_norm_eps=eps),
                "01_rms_norm#epsilon",
            )
    for theta in (10_000.0, 1_000_000.0):
        if theta != config.rope_theta:
            yield _made(
                f"rope-theta-{theta:g}",
                "1B",
                f"rope_theta is {theta:g}, not the {config.rope_theta:g} of the configuration",
                "Read rope_theta from the configuration.",
                configured(rope_theta=theta),
                "01b_rope#frequencies",
            )


def _precisions(place: Place, dtype: str) -> Iterator[Mistake]:
    """One step in a coarser type than the candidate says it computes in."""
    coarser = {"float64": ("float32", "bfloat16", "float16"), "float32": ("bfloat16", "float16")}.get(dtype, ())
    steps = LAYER_STEPS if isinstance(place, int) else OUTPUT_STEPS if place == "output" else (STEPS["embedding"],)
    for step in steps:
        for half in coarser:

            def rounded(ctx: Context, *arguments, half=half, step=step):
                inputs = [round_to(np.asarray(x), half) for x in arguments[: len(step.inputs)]]
                return round_to(ctx.right(ctx, *inputs, *arguments[len(step.inputs) :]), half)

            def only_stored(ctx: Context, *arguments, half=half):
                return round_to(ctx.right(ctx, *arguments), half)

            mend = f"Keep {step.name} in {dtype}, or state the coarser type as the trace's compute_dtype."
            title = f"{step.name} is computed in {half}"
            yield _made(f"{step.name}-in-{half}", step.checkpoint, title, mend, change(**{step.name: rounded}))
            title = f"{step.name} is rounded to {half}"
            id = f"{step.name}-rounded-to-{half}"
            yield _made(id, step.checkpoint, title, mend, change(**{step.name: only_stored}))
