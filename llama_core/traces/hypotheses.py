"""What else goes wrong in a port, besides the catalogue: layouts, orders, other layers' weights, positions, precision.

Each is a change of the table of steps like a known mistake, so that ``explain`` can hold all of them to the candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change, configured
from llama_core.checkpoints.steps import LAYER_STEPS, OUTPUT_STEPS, Changes, Step
from llama_core.config import LlamaConfig
from llama_core.traces.hypothesis import made
from llama_core.traces.orders import orders
from llama_core.traces.regions import STEPS, Place
from llama_core.traces.rotations import rotations

#: Other layers that are tried on each side.
_NEAR = 6
#: Of published scalings.
_FACTORS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)


def hypotheses(place: Place, config: LlamaConfig, dtype: str, stated: LlamaConfig | None = None) -> list[Mistake]:
    """Those that may concern a place of a model; ``stated`` is the configuration with the candidate's own numbers."""
    found = [*_precisions(place, dtype)]
    if isinstance(place, int):
        found += [*_other_layers(place, config), *orders(config), *rotations(), *_caches()]
        found += [*_numbers(config, stated), *_stated_scaling(config, stated), *_norms(), *_swapped_gate()]
        found.append(
            made(
                "layer-skipped",
                "7",
                "this layer is skipped: its output is its input",
                "Run every layer, in order.",
                change(output=lambda ctx, h, ffn: ctx.value("layer_input")),
            )
        )
    return found


def _other_layers(place: int, config: LlamaConfig) -> Iterator[Mistake]:
    near = range(max(0, place - _NEAR), min(config.num_hidden_layers, place + _NEAR + 1))
    steps = [step for step in LAYER_STEPS if step.weights]
    for other in near:
        if other == place:
            continue
        mend = f"Load layers.{place} from the tensors of that number; names sorted as text put 10 before 2."
        changes = change(**{step.name: _with_weights_of(other, step) for step in steps})
        yield made(f"weights-of-layer-{other}", "7", f"this layer has the weights of layer {other}", mend, changes)
        for step in steps:
            parameter = step.weights[0].removesuffix(".weight")
            yield made(
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


def _norms() -> Iterator[Mistake]:
    """The norm with every operation rounded, as where nothing widens it."""

    def in_float16(ctx: Context, x, weight):
        half = lambda y: round_to(np.asarray(y, np.float64), "float16")  # noqa: E731
        x = half(x)
        mean = half(np.mean(half(x * x), axis=-1, keepdims=True))
        scale = half(1 / half(np.sqrt(half(mean + ctx.config.rms_norm_eps))))
        return half(half(x * scale) * half(weight))

    yield made(
        "norm-in-float16",
        "1",
        "the norm is computed in float16",
        "Widen the hidden states to float32 before they are squared.",
        change(attention_norm=in_float16, ffn_norm=in_float16),
        "01_rms_norm#precision",
    )


def _swapped_gate() -> Iterator[Mistake]:
    yield made(
        "ffn-silu-of-up",
        "5",
        "silu is applied to up and not to gate",
        "hidden = silu(gate) · up.",
        change(
            ffn_activation=lambda ctx, gate: r.silu(ctx, ctx.value("ffn_up")),
            ffn_hidden=lambda ctx, activation, up: r.silu(ctx, up) * ctx.value("ffn_gate"),
        ),
    )


def _caches() -> Iterator[Mistake]:
    yield made(
        "cache-keys-not-rotated",
        "8",
        "the cache holds the keys as they were before rotation",
        "Cache rotated keys, or rotate all of them in every call.",
        change(cache_k=lambda ctx, k: _like_cache(ctx, "cache_k", ctx.value("k"))),
        "08_kv_cache#rotation",
    )
    yield made(
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

    yield made(
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


def _numbers(config: LlamaConfig, stated: LlamaConfig | None) -> Iterator[Mistake]:
    stated = stated or config
    for eps in sorted({1e-4, 1e-5, 1e-8, 1e-12, stated.rms_norm_eps} - {1e-6, 1e-3}):
        if eps != config.rms_norm_eps:
            yield made(
                f"norm-eps-{eps:g}",
                "1",
                f"ε is {eps:g}, not the {config.rms_norm_eps:g} of the configuration",
                "Read rms_norm_eps from the configuration.",
                configured(rms_norm_eps=eps),
                "01_rms_norm#epsilon",
            )
    for theta in sorted({10_000.0, 1_000_000.0, stated.rope_theta} - {500_000.0}):
        if theta != config.rope_theta:
            yield made(
                f"rope-theta-{theta:g}",
                "1B",
                f"rope_theta is {theta:g}, not the {config.rope_theta:g} of the configuration",
                "Read rope_theta from the configuration.",
                configured(rope_theta=theta),
                "01b_rope#frequencies",
            )

    s = config.rope_scaling
    if s is not None and s.kind != "default":
        for factor in _FACTORS:
            if factor != s.factor:
                yield made(
                    f"rope-scaling-factor-{factor:g}",
                    "1B",
                    f"the factor of rope_scaling is {factor:g}, not the {s.factor:g} of the configuration",
                    "Read rope_scaling from the configuration, every field of it.",
                    Changes(config=lambda c, f=factor: c.replace(rope_scaling=replace(c.rope_scaling, factor=f))),
                    "01b_rope#scaling",
                )


def _stated_scaling(config: LlamaConfig, stated: LlamaConfig | None) -> Iterator[Mistake]:
    """The candidate's own, where no other hypothesis has it."""
    mine, theirs = config.rope_scaling, stated.rope_scaling if stated else None
    if theirs is None or theirs.kind == "default" or theirs == mine:
        return
    if mine and theirs.factor in _FACTORS and replace(theirs, factor=mine.factor) == mine:
        return
    right = f"{mine.kind}, factor {mine.factor:g}" if mine else "none"
    title = (
        f"rope_scaling is what the candidate's configuration says ({theirs.kind}, factor {theirs.factor:g}), "
        f"not what the golden's says ({right})"
    )
    mend = "Give both engines the same configuration; take rope_scaling from the model's own, every field of it."
    yield made("rope-scaling-as-stated", "1B", title, mend, configured(rope_scaling=theirs), "01b_rope#scaling")


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
            yield made(f"{step.name}-in-{half}", step.checkpoint, title, mend, change(**{step.name: rounded}))
            title = f"{step.name} is rounded to {half}"
            id = f"{step.name}-rounded-to-{half}"
            yield made(id, step.checkpoint, title, mend, change(**{step.name: only_stored}))
