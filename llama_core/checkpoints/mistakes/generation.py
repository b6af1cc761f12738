"""Mistakes between ids and text (checkpoint 10)."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes.mistake import Mistake, change

_BEGIN = 1


def _begin_doubled(ctx: Context, prompt_ids):
    """The first begin token of every row, which is behind its padding, comes twice."""
    rows = []
    for row in prompt_ids:
        at = int(np.argmax(row == (ctx.config.bos_token_id or _BEGIN)))
        rows.append(np.concatenate([row[: at + 1], row[at:]]))
    return np.stack(rows)


def _begin_missing(ctx: Context, prompt_ids):
    """The begin token is fed as padding would be: another token stands in its place."""
    begin = ctx.config.bos_token_id or _BEGIN
    return np.where(prompt_ids == begin, 0, prompt_ids)


def _by_slot(ctx: Context, attention_mask):
    """Positions count padding: the number of the slot."""
    new = ctx.values["input_ids"].shape[1]
    slots = np.broadcast_to(np.arange(attention_mask.shape[1]), attention_mask.shape)
    return np.where(attention_mask != 0, slots, -1)[:, -new:]


MISTAKES = (
    Mistake(
        id="generation-end-token-ignored",
        checkpoint="10",
        title="the end token does not end the text",
        looks_like="After a good answer the model goes on: it answers itself, or starts another text.",
        why="The id of another vocabulary, or one of several end ids: Llama-3 chat ends with <|eot_id|>.",
        mend="Stop a row at any of eos_token_ids.",
        notebook="10_generation#stopping",
        origin="https://github.com/ollama/ollama/issues/3759",
        changes=change(stops=lambda ctx, next_ids, eos_ids: np.zeros(len(next_ids), bool)),
        equivalent="Where no end id comes up before the limit.",
    ),
    Mistake(
        id="generation-only-first-end-id",
        checkpoint="10",
        title="only the first of several end ids ends the text",
        looks_like="Some answers end, others run on.",
        why="eos_token_id may be a list, and code takes its first entry.",
        mend="Stop a row at any of eos_token_ids.",
        notebook="10_generation#stopping",
        origin="https://github.com/vllm-project/vllm/issues/4180",
        changes=change(stops=lambda ctx, next_ids, eos_ids: next_ids == eos_ids[0]),
        equivalent="Where there is only one end id.",
    ),
    Mistake(
        id="generation-batch-ends-together",
        checkpoint="10",
        title="the whole batch ends with the first row that ends",
        looks_like="In a batch answers are cut off; alone they are complete.",
        why="any() is written where every row should have ended.",
        mend="Keep a flag per row and go on until all have ended.",
        notebook="10_generation#batches",
        changes=change(stops=lambda ctx, next_ids, eos_ids: np.full(len(next_ids), np.isin(next_ids, eos_ids).any())),
        equivalent="With a batch of one.",
    ),
    Mistake(
        id="generation-begin-token-doubled",
        checkpoint="10",
        title="the begin token comes twice",
        looks_like="Text is fine but not the reference's; all positions are one further.",
        why="The tokenizer adds it, and the chat template or the caller has added it already.",
        mend="Add it in one place: encode a rendered template without special tokens.",
        notebook="10_generation#begin-token",
        origin="https://github.com/OpenRLHF/OpenRLHF/issues/393",
        changes=change(fed_ids=_begin_doubled),
    ),
    Mistake(
        id="generation-begin-token-missing",
        checkpoint="10",
        title="the prompt does not start with the begin token",
        looks_like="The first tokens are odd and the text is often worse throughout.",
        why="Encoding for training leaves it out, or another token was taken for it.",
        mend="Llama expects its begin token at position 0.",
        notebook="10_generation#begin-token",
        changes=change(fed_ids=_begin_missing),
    ),
    Mistake(
        id="generation-padding-shifts-positions",
        checkpoint="10",
        title="positions count the padding on the left",
        looks_like="The caches and positions of a padded row differ from those of the row alone; text is the same "
        "until the context ends too early, or with a model that knows absolute positions.",
        why="Positions are the numbers of slots, arange(S), whatever the attention mask says.",
        mend="Count real tokens: cumsum(attention_mask) - 1.",
        notebook="10_generation#batches",
        origin="https://github.com/huggingface/transformers/issues/33095",
        changes=change(position_ids=_by_slot),
        equivalent="Without padding on the left; rotation is relative, so attention is the same in any case.",
    ),
    Mistake(
        id="generation-character-cut",
        checkpoint="10",
        title="a character of several bytes is cut while streaming",
        looks_like="Replacement characters (�) in accents, emoji and Chinese, which the final text does not have.",
        why="Every token is decoded by itself, but a token may end within a character.",
        mend="Hold back the bytes of an unfinished character.",
        notebook="10_generation#streaming",
        origin="https://github.com/exo-explore/exo/pull/1691",
        changes=change(streamed_length=lambda ctx, text: len(text)),
        equivalent="Where every token ends with a whole character.",
    ),
)
