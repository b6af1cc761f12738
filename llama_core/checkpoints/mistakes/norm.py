"""Mistakes in RMSNorm (checkpoint 1). Each changes every norm of the model."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, configured, half_rounding
from llama_core.checkpoints.steps import Changes, StepFunction


def _norms(fn: StepFunction) -> Changes:
    return Changes(steps={"attention_norm": fn, "ffn_norm": fn, "final_norm": fn})


def _mean_square(x: np.ndarray) -> np.ndarray:
    return np.mean(x * x, axis=-1, keepdims=True)


def _identity(ctx: Context, x, weight):
    return x


def _mean_subtracted(ctx: Context, x, weight):
    return ctx.right(ctx, x - x.mean(-1, keepdims=True), weight)


def _eps_outside(ctx: Context, x, weight):
    return x / (np.sqrt(_mean_square(x)) + ctx.config.rms_norm_eps) * weight


def _no_eps(ctx: Context, x, weight):
    with np.errstate(divide="ignore", invalid="ignore"):
        return x / np.sqrt(_mean_square(x)) * weight


def _default_eps(ctx: Context, x, weight):
    """What torch's RMSNorm adds when it is given no ε: the distance from 1 to the next float32."""
    return x / np.sqrt(_mean_square(x) + np.finfo(np.float32).eps) * weight


def _no_root(ctx: Context, x, weight):
    return x / (_mean_square(x) + ctx.config.rms_norm_eps) * weight


def _one_less(ctx: Context, x, weight):
    n = x.shape[-1]
    return x / np.sqrt(_mean_square(x) * n / (n - 1) + ctx.config.rms_norm_eps) * weight


def _weight_ignored(ctx: Context, x, weight):
    return ctx.right(ctx, x, np.ones_like(weight))


def _one_plus_weight(ctx: Context, x, weight):
    return ctx.right(ctx, x, 1 + weight)


def _sum_for_mean(ctx: Context, x, weight):
    return x / np.sqrt(_mean_square(x) * x.shape[-1] + ctx.config.rms_norm_eps) * weight


def _over_positions(ctx: Context, x, weight):
    return x / np.sqrt(np.mean(x * x, axis=-2, keepdims=True) + ctx.config.rms_norm_eps) * weight


def _over_everything(ctx: Context, x, weight):
    return x / np.sqrt(np.mean(x * x, axis=(-2, -1), keepdims=True) + ctx.config.rms_norm_eps) * weight


def _in_half_precision(ctx: Context, x, weight):
    half = half_rounding(ctx)
    x = half(x)
    mean = half(np.mean(half(x * x), axis=-1, keepdims=True))
    root = half(1 / half(np.sqrt(half(mean + ctx.config.rms_norm_eps))))
    return half(half(x * root) * half(weight))


MISTAKES = (
    Mistake(
        id="norm-left-out",
        checkpoint="1",
        title="the norm returns its input",
        looks_like="Hidden states grow from layer to layer and the text is noise, or it is repetition of one token.",
        why="A placeholder in a port, or a module that was registered and is never called.",
        mend="Compute x / √(mean(x²) + ε) · w in all three places.",
        notebook="01_rms_norm#formula",
        changes=_norms(_identity),
    ),
    Mistake(
        id="norm-mean-subtracted",
        checkpoint="1",
        title="the mean is subtracted first, as in LayerNorm",
        looks_like="Text is plausible at first and then drifts; the norm's output has mean 0 before its weight.",
        why="LayerNorm is at hand in every framework and takes the same arguments.",
        mend="RMSNorm does not centre: divide by the root mean square only.",
        notebook="01_rms_norm#layernorm",
        changes=_norms(_mean_subtracted),
        equivalent="For a row whose mean is 0.",
    ),
    Mistake(
        id="norm-eps-outside-root",
        checkpoint="1",
        title="ε is added to the root, not under it",
        looks_like="Everything agrees to five digits, except where hidden states are tiny: embeddings of rare or "
        "unused tokens, and the first layers of a small model.",
        why="The formula is remembered as 'divide by rms plus epsilon'.",
        mend="√(mean(x²) + ε), not √mean(x²) + ε.",
        notebook="01_rms_norm#epsilon",
        changes=_norms(_eps_outside),
    ),
    Mistake(
        id="norm-eps-1e-6",
        checkpoint="1",
        title="ε is 1e-6 whatever the configuration says",
        looks_like="Tiny differences in the first layers that only inputs of about 1e-3 make visible.",
        why="1e-6 was the default of the first Llama and of many RMSNorm classes; Llama-2 and 3 use 1e-5.",
        mend="Pass rms_norm_eps from the configuration.",
        notebook="01_rms_norm#epsilon",
        origin="https://github.com/meta-llama/llama/issues/771",
        changes=configured(rms_norm_eps=1e-6),
        equivalent="Where the configuration says 1e-6 (Llama-1 7B).",
    ),
    Mistake(
        id="norm-eps-1e-3",
        checkpoint="1",
        title="ε is 1e-3 whatever the configuration says",
        looks_like="Small embeddings come out of the first norm too small; later layers agree.",
        why="1e-3 is the default of some frameworks' norms, chosen for half precision.",
        mend="Pass rms_norm_eps from the configuration.",
        notebook="01_rms_norm#epsilon",
        changes=configured(rms_norm_eps=1e-3),
    ),
    Mistake(
        id="norm-without-eps",
        checkpoint="1",
        title="ε is left out",
        looks_like="Small rows come out too large; a row of zeros, often padding, becomes NaN if no library mends it.",
        why="Without zeros in the test input nothing shows.",
        mend="Add ε under the root: a row of zeros must give zeros.",
        notebook="01_rms_norm#epsilon",
        changes=_norms(_no_eps),
        also=(_norms(_default_eps),),
    ),
    Mistake(
        id="norm-without-root",
        checkpoint="1",
        title="divided by the mean square instead of its root",
        looks_like="Outputs scale with 1/x: a large input gives a small output, and the text is noise.",
        why="rsqrt is replaced by a plain division while porting.",
        mend="Divide by the square root of mean(x²) + ε.",
        notebook="01_rms_norm#formula",
        changes=_norms(_no_root),
        equivalent="Where the mean square is 1, as in random tests of unit variance: there it nearly agrees.",
    ),
    Mistake(
        id="norm-divides-by-n-minus-1",
        checkpoint="1",
        title="the mean square is divided by N - 1",
        looks_like="Everything is too small by √((N-1)/N): 0.01 % at N = 4096, which a loose tolerance hides.",
        why="A standard deviation from a library has Bessel's correction by default.",
        mend="Take the mean of the squares: divide by N.",
        notebook="01_rms_norm#formula",
        changes=_norms(_one_less),
    ),
    Mistake(
        id="norm-weight-ignored",
        checkpoint="1",
        title="the norm's weight is not applied",
        looks_like="Root mean square of the output is exactly 1; the text is fluent nonsense.",
        why="Tests use weights of one, where nothing is missing; or the file's name for the weight was not mapped.",
        mend="Multiply by the weight, one factor per coordinate.",
        notebook="01_rms_norm#weight",
        changes=_norms(_weight_ignored),
        equivalent="Where every weight is 1, as after initialisation.",
    ),
    Mistake(
        id="norm-one-plus-weight",
        checkpoint="1",
        title="multiplied by 1 + weight, as in Gemma",
        looks_like="Activations about twice too large after each norm; the text degenerates at once.",
        why="Gemma stores weight - 1, and engines share one norm for both families.",
        mend="Llama's weights are stored as they are: multiply by w.",
        notebook="01_rms_norm#weight",
        changes=_norms(_one_plus_weight),
    ),
    Mistake(
        id="norm-sum-for-mean",
        checkpoint="1",
        title="the squares are summed, not averaged",
        looks_like="Outputs too small by √E: 64 times at E = 4096. Attention turns almost uniform.",
        why="L2 normalisation is taken for RMS normalisation.",
        mend="Divide the sum of squares by E.",
        notebook="01_rms_norm#formula",
        changes=_norms(_sum_for_mean),
    ),
    Mistake(
        id="norm-over-positions",
        checkpoint="1",
        title="the mean is taken over positions, not over coordinates",
        looks_like="The output of a token changes when another token is added after it; a single token loses all "
        "differences of size.",
        why="The axes of a transposed layout, or axis 1 written for axis -1.",
        mend="Average over the last axis, one number per token.",
        notebook="01_rms_norm#axis",
        changes=_norms(_over_positions),
    ),
    Mistake(
        id="norm-over-the-whole-sequence",
        checkpoint="1",
        title="one mean square is taken over all positions and coordinates together",
        looks_like="Right for one token at a time and wrong for a prompt: prefill and decode disagree.",
        why="A reduction without an axis, tried on a single token.",
        mend="Average over the last axis only, and keep the others.",
        notebook="01_rms_norm#axis",
        changes=_norms(_over_everything),
        equivalent="For a sequence of one token.",
    ),
    Mistake(
        id="norm-in-half-precision",
        checkpoint="1",
        title="squares, mean and root are computed in half precision",
        looks_like="In float16 large inputs overflow: their squares exceed 65504, the output is 0. In bfloat16 the "
        "last bits are wrong and errors add up over the layers.",
        why="The whole module was cast to half precision, and nothing in it casts back.",
        mend="Compute the norm in float32, cast the normalised value back, then multiply by the weight.",
        notebook="01_rms_norm#precision",
        origin="https://github.com/meta-llama/llama/issues/1048",
        changes=_norms(_in_half_precision),
        equivalent="In bfloat16 it stays within the noise of right implementations, which round twice themselves.",
    ),
)
