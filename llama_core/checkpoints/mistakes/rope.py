"""Mistakes in rotary embedding (checkpoint 1B). Each changes every layer."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change, configured
from llama_core.checkpoints.steps import Changes, StepFunction
from llama_core.config import LlamaConfig

_OTHER_LAYOUT = {"half": "interleaved", "interleaved": "half"}


def _rotations(fn: StepFunction) -> Changes:
    return change(q_rotated=fn, k_rotated=fn)


def _at(positions) -> Changes:
    """Rotation at other positions: ``positions(position_ids)``, which keeps the shape."""
    return _rotations(lambda ctx, x, position_ids: ctx.right(ctx, x, positions(position_ids)))


def _with_frequencies(frequencies) -> Changes:
    """Rotation with other frequencies: ``frequencies(ctx, right ones)``."""

    def rotate(ctx: Context, x, position_ids):
        right = r.pair_frequencies(ctx, int(position_ids.max()) + 1)
        return r.rotate(ctx, x, r.angles(ctx, position_ids, frequencies(ctx, right)))

    return _rotations(rotate)


def _with_scaling(kind: str, **values) -> Changes:
    """Other parameters of one kind of scaling."""

    def config(right: LlamaConfig) -> LlamaConfig:
        scaling = right.rope_scaling
        if scaling is None or scaling.kind != kind:
            return right
        return right.replace(rope_scaling=dataclasses.replace(scaling, **values))

    return Changes(config=config)


def _other_pairs(ctx: Context, x, position_ids):
    return r.rotate(ctx, x, r.angles(ctx, position_ids), _OTHER_LAYOUT[ctx.config.rope_layout])


def _other_tables(ctx: Context, x, position_ids):
    """The pairs are right, but coordinate c is turned by the angle that the other layout has for it."""
    d, layout = x.shape[-1], ctx.config.rope_layout
    pair_of = np.empty(d, np.int64)
    for members in r.pair_members(d, _OTHER_LAYOUT[layout]):
        pair_of[members] = np.arange(d // 2)
    phi = r.angles(ctx, position_ids)[..., pair_of]
    cos, sin = (table * r.attention_factor(ctx) for table in (np.cos(phi), np.sin(phi)))
    a, b = r.pair_members(d, layout)
    out = np.empty_like(x)
    out[..., a] = x[..., a] * cos[..., a] - x[..., b] * sin[..., a]
    out[..., b] = x[..., b] * cos[..., b] + x[..., a] * sin[..., b]
    return out


def _backwards(ctx: Context, x, position_ids):
    return r.rotate(ctx, x, -r.angles(ctx, position_ids))


def _by_head(ctx: Context, x, position_ids):
    """The axis of heads is taken for the axis of positions."""
    positions = np.maximum(position_ids[:, :1], 0) + np.arange(x.shape[2])
    return r.rotate(ctx, x, r.angles(ctx, positions).swapaxes(1, 2))


def _value_rotated(ctx: Context, *arguments):
    v = ctx.right(ctx, *arguments)
    return r.rotated(ctx, v, ctx.value("position_ids"))


def _unrotated(ctx: Context, x, position_ids):
    return x


def _zero_when_alone(position_ids):
    return np.zeros_like(position_ids) if position_ids.shape[1] == 1 else position_ids


def _restarted(position_ids):
    return np.zeros_like(position_ids) + np.arange(position_ids.shape[1])


def _llama3_hard_edge(keep_band: bool):
    """llama3 scaling with one threshold instead of two: the blended pairs are kept whole, or divided whole."""

    def frequencies(ctx: Context, right):
        s = ctx.config.rope_scaling
        if s is None or s.kind != "llama3":
            return right
        d = ctx.config.head_dim
        original = s.original_max_position_embeddings or ctx.config.max_position_embeddings
        base = ctx.config.rope_theta ** (-2 * np.arange(d // 2) / d)
        edge = original / (s.low_freq_factor if keep_band else s.high_freq_factor)
        return np.where(2 * math.pi / base > edge, base / s.factor, base)

    return frequencies


def _linear_multiplied(ctx: Context, right):
    s = ctx.config.rope_scaling
    return right * s.factor**2 if s is not None and s.kind == "linear" else right


MISTAKES = (
    Mistake(
        id="rope-pairs-swapped",
        checkpoint="1B",
        title="rotary pairs are those of the other layout",
        looks_like="Position 0 is right, scores fall apart with distance: fluent text for some tokens, then gibberish.",
        why="Meta's files pair neighbours (2i, 2i + 1), Hugging Face's pair halves (i, i + D/2); nothing in the shapes "
        "tells them apart.",
        mend="Rotate in the layout that the weights are in, or permute the rows of q_proj and k_proj once, at load.",
        notebook="01b_rope#layouts",
        origin="https://github.com/jzhang38/TinyLlama/issues/24",
        changes=_rotations(_other_pairs),
        equivalent="At position 0, and for D = 2.",
    ),
    Mistake(
        id="rope-tables-of-other-layout",
        checkpoint="1B",
        title="the tables of cosines are laid out for one layout, the pairs for the other",
        looks_like="The norm of a vector changes when it is rotated; quality falls with distance.",
        why="cat((freqs, freqs)) belongs to halves and repeat_interleave(2) to neighbours; two sources were mixed.",
        mend="Both members of a pair must be turned by the same angle: take table and pairs from one layout.",
        notebook="01b_rope#layouts",
        origin="https://github.com/rasbt/LLMs-from-scratch/issues/838",
        changes=_rotations(_other_tables),
    ),
    Mistake(
        id="rope-sign-flipped",
        checkpoint="1B",
        title="the rotation goes backwards",
        looks_like="q_rotated and k_rotated are wrong, yet lengths are kept. With keys turned rightly by another "
        "library, scores are nonsense.",
        why="The minus sign stands at the wrong member of the pair, or the sine of a complex product was conjugated.",
        mend="(a, b) becomes (a cos φ - b sin φ, b cos φ + a sin φ).",
        notebook="01b_rope#rotation",
        changes=_rotations(_backwards),
    ),
    Mistake(
        id="rope-theta-500000",
        checkpoint="1B",
        title="rope_theta is 500000 instead of the configuration's (10000 where that says 500000)",
        looks_like="Short prompts look right; text decays as the distance between tokens grows.",
        why="The constant of another generation was left in: 10000 for Llama-2, 500000 for Llama-3.",
        mend="Read rope_theta from the configuration of the model that is loaded.",
        notebook="01b_rope#frequencies",
        origin="https://github.com/karpathy/llama2.c/issues/356",
        changes=configured(rope_theta=lambda c: 10000.0 if c.rope_theta == 500000 else 500000.0),
    ),
    Mistake(
        id="rope-exponent-halved",
        checkpoint="1B",
        title="the exponent is -i/D instead of -2i/D",
        looks_like="The first pair is right and the last ones turn much too fast.",
        why="The paper counts pairs, code counts coordinates; the 2 is lost on the way.",
        mend="Pair i turns by theta^(-2i/D): arange(0, D, 2) / D.",
        notebook="01b_rope#frequencies",
        changes=configured(rope_theta=lambda c: math.sqrt(c.rope_theta)),
    ),
    Mistake(
        id="rope-position-plus-one",
        checkpoint="1B",
        title="positions start at 1",
        looks_like="Nothing at all in the text: rotation is relative. The caches of two engines differ, and mixing "
        "their keys goes wrong.",
        why="Positions are taken from a length that already counts the new token.",
        mend="The first token of a sequence has position 0.",
        notebook="01b_rope#positions",
        changes=_at(lambda p: np.where(p >= 0, p + 1, p)),
        equivalent="In attention scores and everything after them: only q_rotated and k_rotated show it.",
    ),
    Mistake(
        id="rope-position-zero-when-decoding",
        checkpoint="1B",
        title="every single-token step is rotated at position 0",
        looks_like="The prompt is understood; from the second generated token on the text repeats or wanders.",
        why="Positions come from arange(S), and S is 1 while decoding.",
        mend="Start positions at the number of tokens already in the cache.",
        notebook="01b_rope#positions",
        origin="https://github.com/Blaizzy/mlx-vlm/issues/1983",
        changes=_at(_zero_when_alone),
        equivalent="Without a cache.",
    ),
    Mistake(
        id="rope-positions-restart",
        checkpoint="1B",
        title="positions start at 0 in every call",
        looks_like="A prompt fed in one piece is right; in chunks, or token by token, it is not.",
        why="Positions come from arange(S) and the length of the cache is not added.",
        mend="Start positions at the number of tokens already in the cache.",
        notebook="01b_rope#positions",
        origin="https://github.com/ml-explore/mlx-lm/pull/93",
        changes=_at(_restarted),
        equivalent="Without a cache and without padding: a shift of all positions is invisible after the scores.",
    ),
    Mistake(
        id="rope-positions-of-first-row",
        checkpoint="1B",
        title="every row of the batch is rotated at the first row's positions",
        looks_like="A batch of prompts of different lengths is right in its first row only.",
        why="The table is cut for one sequence and broadcast over the batch.",
        mend="Gather cosines and sines by position_ids, row by row.",
        notebook="01b_rope#positions",
        origin="https://github.com/unslothai/unsloth/pull/3795",
        changes=_at(lambda p: np.broadcast_to(p[:1], p.shape)),
        equivalent="Where all rows have the same positions.",
    ),
    Mistake(
        id="rope-values-rotated",
        checkpoint="1B",
        title="the values are rotated too",
        looks_like="Scores and attention weights are right, the context vectors are not.",
        why="q, k and v come out of one fused projection, and the rotation is applied to all of it.",
        mend="Rotate q and k only.",
        notebook="01b_rope#what-turns",
        changes=change(v=_value_rotated),
    ),
    Mistake(
        id="rope-keys-not-rotated",
        checkpoint="1B",
        title="the keys are not rotated",
        looks_like="Scores depend on the absolute position of the query; attention looks at the wrong places.",
        why="The rotated keys are assigned to a variable that is never used, or keys reach the cache before rotation.",
        mend="Rotate keys with the same tables as queries, and cache them rotated.",
        notebook="01b_rope#what-turns",
        changes=change(k_rotated=_unrotated),
    ),
    Mistake(
        id="rope-queries-not-rotated",
        checkpoint="1B",
        title="the queries are not rotated",
        looks_like="Scores depend on the absolute position of the key; attention looks at the wrong places.",
        why="The result of the rotation is dropped for one of the two.",
        mend="Rotate queries with the same tables as keys.",
        notebook="01b_rope#what-turns",
        changes=change(q_rotated=_unrotated),
    ),
    Mistake(
        id="rope-scaling-ignored",
        checkpoint="1B",
        title="rope_scaling in the configuration is ignored",
        looks_like="Short prompts are nearly right; Llama-3.1 loses the thread beyond some thousand tokens.",
        why="An engine older than the model reads the fields that it knows and drops the rest in silence.",
        mend="Apply rope_scaling, and refuse a kind that is not known.",
        notebook="01b_rope#scaling",
        origin="https://github.com/lablup/mlxcel/issues/1355",
        changes=configured(rope_scaling=None),
        equivalent="Where the configuration has no rope_scaling.",
    ),
    Mistake(
        id="rope-linear-scaling-inverted",
        checkpoint="1B",
        title="linear scaling multiplies the frequencies instead of dividing them",
        looks_like="The longer context makes everything worse at once.",
        why="One file states a factor of 4, another a scale of 0.25; the two conventions were confused.",
        mend="Divide frequencies (or positions) by the factor.",
        notebook="01b_rope#scaling",
        changes=_with_frequencies(_linear_multiplied),
        equivalent="Where the scaling is not linear.",
    ),
    Mistake(
        id="rope-llama3-band-divided",
        checkpoint="1B",
        title="llama3 scaling has no smooth band: every pair slower than the upper edge is divided",
        looks_like="Almost right; a few pairs in the middle turn at the wrong speed, long prompts suffer.",
        why="The blend between the two edges is left out as a detail.",
        mend="Between the edges, blend divided and original frequency by (original/wavelength - low) / (high - low).",
        notebook="01b_rope#scaling",
        changes=_with_frequencies(_llama3_hard_edge(keep_band=False)),
        equivalent="Where the scaling is not llama3.",
    ),
    Mistake(
        id="rope-llama3-band-kept",
        checkpoint="1B",
        title="llama3 scaling has no smooth band: every pair faster than the lower edge is kept",
        looks_like="Almost right; a few pairs in the middle turn at the wrong speed, long prompts suffer.",
        why="The blend between the two edges is left out as a detail.",
        mend="Between the edges, blend divided and original frequency by (original/wavelength - low) / (high - low).",
        notebook="01b_rope#scaling",
        changes=_with_frequencies(_llama3_hard_edge(keep_band=True)),
        equivalent="Where the scaling is not llama3.",
    ),
    Mistake(
        id="rope-yarn-without-attention-factor",
        checkpoint="1B",
        title="yarn without its attention factor",
        looks_like="Scores are a few per cent too small: the text is right for a while, long contexts are blurred.",
        why="The frequencies are the visible part of yarn; the factor hides in cosines and sines.",
        mend="Multiply cosines and sines by 0.1·ln(factor) + 1, or by the factor that the configuration states.",
        notebook="01b_rope#scaling",
        origin="https://github.com/turboderp-org/exllamav3/issues/259",
        changes=_with_scaling("yarn", attention_factor=1.0),
        equivalent="Where the scaling is not yarn.",
    ),
    Mistake(
        id="rope-frequencies-in-bfloat16",
        checkpoint="1B",
        title="the frequencies are kept in bfloat16",
        looks_like="Right near the start; a cosine is off by as much as 1.7 at position 4095.",
        why="model.to(torch.bfloat16) converts buffers too, inv_freq among them.",
        mend="Keep frequencies and angles in float32 whatever the model's type.",
        notebook="01b_rope#precision",
        origin="https://github.com/huggingface/transformers/issues/25681",
        changes=_with_frequencies(lambda ctx, right: round_to(right, "bfloat16")),
    ),
    Mistake(
        id="rope-positions-in-bfloat16",
        checkpoint="1B",
        title="the positions are kept in bfloat16",
        looks_like="Right up to position 256; beyond it neighbouring tokens share a position.",
        why="arange(..., dtype=model.dtype): bfloat16 has 8 significant bits and no whole number between 256 and 258.",
        mend="Keep positions as integers and multiply in float32.",
        notebook="01b_rope#precision",
        origin="https://github.com/nkalyanv99/UNI-D2/pull/6",
        changes=_at(lambda p: round_to(p.astype(np.float64), "bfloat16").astype(np.int64)),
        equivalent="Below position 257.",
    ),
    Mistake(
        id="rope-heads-for-positions",
        checkpoint="1B",
        title="the axis of heads is taken for the axis of positions",
        looks_like="Every head is turned by its own number; the order of words makes no difference.",
        why="[B, S, H, D] and [B, H, S, D] are mixed up, and tables broadcast over either.",
        mend="Line up the tables with the axis of positions, and test with S ≠ H.",
        notebook="01b_rope#axes",
        changes=_rotations(_by_head),
    ),
)
