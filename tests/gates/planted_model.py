"""Known mistakes from the block to the text, planted by hand as people write them."""

import torch
from plain_llama import Plain

INFINITY = float("inf")


def both_norms(first, second):
    return dict(
        attention_norm=lambda self, x: self.norm(x, first),
        ffn_norm=lambda self, h, x, attention: self.norm(h, second),
    )


_FIRST, _SECOND = "input_layernorm.weight", "post_attention_layernorm.weight"

BLOCK = {
    "block-post-norm": dict(
        attention_norm=lambda self, x: x,
        ffn_norm=lambda self, h, x, attention: h,
        join_attention=lambda self, x, normed, attention: self.norm(x + attention, _FIRST),
        join_ffn=lambda self, h, x, ffn: self.norm(h + ffn, _SECOND),
    ),
    "block-first-residual-missing": dict(join_attention=lambda self, x, normed, attention: attention),
    "block-second-residual-missing": dict(join_ffn=lambda self, h, x, ffn: ffn),
    "block-second-residual-from-input": dict(join_ffn=lambda self, h, x, ffn: x + ffn),
    "block-residual-after-norm": dict(join_attention=lambda self, x, normed, attention: normed + attention),
    "block-parallel-residual": dict(ffn_norm=lambda self, h, x, attention: self.norm(x, _SECOND)),
    "block-norms-swapped": both_norms(_SECOND, _FIRST),
    "block-first-norm-twice": both_norms(_FIRST, _FIRST),
    "block-ffn-fed-attention-output": dict(ffn_norm=lambda self, h, x, attention: attention),
    "block-second-norm-missing": dict(ffn_norm=lambda self, h, x, attention: h),
}

MODEL = {
    "model-last-layer-skipped": dict(skipped=lambda self: (self.config.num_hidden_layers - 1,)),
    "model-first-layer-skipped": dict(skipped=lambda self: (0,)),
    "model-layers-reversed": dict(order=lambda self: reversed(range(self.config.num_hidden_layers))),
    "model-layers-sorted-as-text": dict(order=lambda self: (0, 2, 1)),
    "model-first-layer-repeated": dict(order=lambda self: [0] * self.config.num_hidden_layers),
    "model-final-norm-missing": dict(final_norm=lambda self, x: x),
    "model-head-tied": dict(head=lambda self, x: x @ self.parameter("embed_tokens.weight").T),
    "model-embedding-scaled": dict(embed=lambda self, ids: Plain.embed(self, ids) * self.config.hidden_size**0.5),
}


def at_start(past, new):
    if past is None:
        return new
    slots = torch.cat([past, torch.zeros_like(new)], 2)
    slots[:, :, : new.shape[2]] = new
    return slots


def rotated_again(self, past, new, past_positions):
    if past is None:
        return new
    again = self.rotate(past.transpose(1, 2), past_positions).transpose(1, 2)
    return torch.cat([again, new], 2)


def one_early(past, new):
    if past is None or not past.shape[2]:
        return new
    return torch.cat([past[:, :, :-1], new, torch.zeros_like(new[:, :, :1])], 2)


def restarted(self, mask, new):
    return Plain.count(self, mask[:, -new:], new)


def only_new(self, past, positions):
    return positions if past is None else torch.cat([positions, torch.full_like(past, -1)], 1)


CACHE = {
    "cache-length-not-advanced": dict(
        count=restarted,
        key_positions=only_new,
        append_k=lambda self, past, new, p: at_start(past, new),
        append_v=lambda self, past, new: at_start(past, new),
    ),
    "cache-start-plus-one": dict(
        count=lambda self, mask, new: (p := Plain.count(self, mask, new)) + ((p >= 0) & (self.call > 0)).long()
    ),
    "cache-keys-rotated-again": dict(append_k=rotated_again),
    "cache-overwritten-at-start": dict(
        append_k=lambda self, past, new, p: at_start(past, new),
        append_v=lambda self, past, new: at_start(past, new),
    ),
    "cache-last-slot-overwritten": dict(
        append_k=lambda self, past, new, p: one_early(past, new),
        append_v=lambda self, past, new: one_early(past, new),
    ),
    "cache-rows-mixed-up": dict(
        append_k=lambda self, past, new, p: new if past is None else torch.cat([past.roll(1, 0), new], 2),
        append_v=lambda self, past, new: new if past is None else torch.cat([past.roll(1, 0), new], 2),
    ),
}


def dropped_crossing(self, sums, probabilities, p):
    keep = sums <= p
    keep[:, 0] = True
    return keep


def raw_nucleus(self, logits, p, raw):
    hidden = Plain.top_p(self, raw.masked_fill(logits == -INFINITY, -INFINITY), p, raw) == -INFINITY
    return logits.masked_fill(hidden, -INFINITY)


SAMPLING = {
    "sampling-temperature-ignored": dict(cool=lambda self, logits, t: logits),
    "sampling-temperature-multiplied": dict(
        cool=lambda self, logits, t: Plain.cool(self, logits, t) if t == 0 else logits * t
    ),
    "sampling-top-k-one-more": dict(top_k=lambda self, logits, k: Plain.top_k(self, logits, k + (k > 0))),
    "sampling-top-k-one-less": dict(top_k=lambda self, logits, k: Plain.top_k(self, logits, k - (k > 1))),
    "sampling-crossing-token-dropped": dict(inside=dropped_crossing),
    "sampling-top-p-before-temperature": dict(top_p=raw_nucleus),
    "sampling-not-renormalised": dict(
        normalise=lambda self, cut, uncut: uncut.softmax(-1).masked_fill(cut == -INFINITY, 0)
    ),
    "sampling-argmax-over-batch": dict(greedy=lambda self, logits: logits.argmax(0)[: len(logits)]),
}


def begin_twice(self, ids, mask):
    rows = [torch.cat([row[:at], row[at : at + 1], row[at:]]) for row, at in zip(ids, mask.argmax(1), strict=True)]
    mask = torch.cat([mask, mask.new_ones(len(mask), 1)], 1)
    return torch.stack(rows), mask.sort(1).values


def slot_numbers(self, mask, new):
    return torch.arange(mask.shape[1]).expand_as(mask).masked_fill(mask == 0, -1)[:, -new:]


GENERATION = {
    "generation-end-token-ignored": dict(ends=lambda self, ids, eos: torch.zeros_like(ids, dtype=torch.bool)),
    "generation-only-first-end-id": dict(ends=lambda self, ids, eos: ids == eos[0]),
    "generation-batch-ends-together": dict(ends=lambda self, ids, eos: torch.isin(ids, eos).any().expand(len(ids))),
    "generation-begin-token-doubled": dict(prompt=begin_twice),
    "generation-padding-shifts-positions": dict(count=slot_numbers),
    "generation-character-cut": dict(whole=lambda self, text: len(text)),
}
