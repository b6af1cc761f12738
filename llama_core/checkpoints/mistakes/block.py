"""Mistakes in how a block joins its parts (checkpoint 6)."""

from __future__ import annotations

from llama_core.checkpoints import reference as r
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change

_FIRST_NORM = "input_layernorm.weight"
_SECOND_NORM = "post_attention_layernorm.weight"


def _as_is(ctx: Context, x, weight):
    return x


def _post_norm(name: str):
    """x + F(x), then the norm."""

    def joined(ctx: Context, x, change):
        return r.rms_norm(ctx, x + change, ctx.weight(name))

    return joined


def _with_norm(name: str):
    return lambda ctx, x, weight: ctx.right(ctx, x, ctx.weight(name))


MISTAKES = (
    Mistake(
        id="block-post-norm",
        checkpoint="6",
        title="the norms come after the residual sums, as in the original transformer",
        looks_like="Every layer's output has root mean square 1 times the weight; text is noise.",
        why="Figure 1 of the 2017 paper shows it so; Llama normalises the inputs of its parts.",
        mend="h = x + attention(norm(x)); y = h + ffn(norm(h)).",
        notebook="06_transformer_block#norms",
        changes=change(
            attention_norm=_as_is,
            ffn_norm=_as_is,
            attention_residual=_post_norm(_FIRST_NORM),
            output=_post_norm(_SECOND_NORM),
        ),
    ),
    Mistake(
        id="block-first-residual-missing",
        checkpoint="6",
        title="the residual around attention is missing",
        looks_like="The token itself is forgotten after the first layer; text is noise.",
        why="The sum is written for the feed-forward part only, or the result of an in-place addition is dropped.",
        mend="h = x + attention(norm(x)).",
        notebook="06_transformer_block#residuals",
        changes=change(attention_residual=lambda ctx, x, attention: attention),
    ),
    Mistake(
        id="block-second-residual-missing",
        checkpoint="6",
        title="the residual around the feed-forward network is missing",
        looks_like="Each layer's output is only what its feed-forward network adds; text is noise.",
        why="The sum is written for the attention part only.",
        mend="y = h + ffn(norm(h)).",
        notebook="06_transformer_block#residuals",
        changes=change(output=lambda ctx, h, ffn: ffn),
    ),
    Mistake(
        id="block-second-residual-from-input",
        checkpoint="6",
        title="the second residual adds the block's input instead of the sum after attention",
        looks_like="Attention acts through the feed-forward network only; text is noise.",
        why="`residual` is set at the top of the block and not set again after attention.",
        mend="Set the residual again before the second norm: y = h + ffn(norm(h)).",
        notebook="06_transformer_block#residuals",
        changes=change(output=lambda ctx, h, ffn: ctx.value("layer_input") + ffn),
    ),
    Mistake(
        id="block-residual-after-norm",
        checkpoint="6",
        title="the first residual adds the normalised input",
        looks_like="Hidden states lose their size in every layer; text degenerates.",
        why="x = norm(x) overwrites the input before the sum.",
        mend="Keep the input: h = x + attention(norm(x)).",
        notebook="06_transformer_block#residuals",
        changes=change(attention_residual=lambda ctx, x, attention: ctx.value("attention_norm") + attention),
    ),
    Mistake(
        id="block-parallel-residual",
        checkpoint="6",
        title="attention and feed-forward run side by side on the same input",
        looks_like="Text is broken; the feed-forward network does not see what attention found.",
        why="GPT-J and GPT-NeoX are built so, and engines share the block.",
        mend="In Llama the feed-forward network reads the sum after attention.",
        notebook="06_transformer_block#order",
        changes=change(ffn_norm=lambda ctx, h, weight: ctx.right(ctx, ctx.value("layer_input"), weight)),
    ),
    Mistake(
        id="block-norms-swapped",
        checkpoint="6",
        title="the two norms' weights are swapped",
        looks_like="Text is somewhat worse than it should be: both weights are of one kind and size.",
        why="Names such as ln_1, norm2 or ffn_norm were mapped by guess.",
        mend="input_layernorm belongs to attention, post_attention_layernorm to the feed-forward network.",
        notebook="06_transformer_block#norms",
        changes=change(attention_norm=_with_norm(_SECOND_NORM), ffn_norm=_with_norm(_FIRST_NORM)),
    ),
    Mistake(
        id="block-first-norm-twice",
        checkpoint="6",
        title="the first norm's weight is used for both",
        looks_like="Attention is right, the feed-forward network is a little off.",
        why="One module is called in both places; the second is loaded and never used.",
        mend="The feed-forward network has a norm of its own, post_attention_layernorm.",
        notebook="06_transformer_block#norms",
        changes=change(ffn_norm=_with_norm(_FIRST_NORM)),
    ),
    Mistake(
        id="block-ffn-fed-attention-output",
        checkpoint="6",
        title="the feed-forward network reads the raw attention output",
        looks_like="Text is noise; the second norm has no effect.",
        why="A diagram that leaves out residuals and norms is taken literally.",
        mend="Feed it norm(x + attention).",
        notebook="06_transformer_block#order",
        changes=change(ffn_norm=lambda ctx, h, weight: ctx.value("attention_output")),
    ),
    Mistake(
        id="block-second-norm-missing",
        checkpoint="6",
        title="the feed-forward network reads the residual without its norm",
        looks_like="Values grow in deeper layers, where the residual is large.",
        why="The second norm is registered and never called.",
        mend="y = h + ffn(norm(h)).",
        notebook="06_transformer_block#norms",
        changes=change(ffn_norm=_as_is),
    ),
)
