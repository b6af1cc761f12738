"""A Llama written a third time, in plain torch functions, for mistakes to be planted in by hand.

Every step is a method; a planted program has some of them replaced. It imports nothing of llama_core.
"""

import codecs
from types import MethodType

import torch
import torch.nn.functional as F
from plain_layers import PlainLayers
from plain_sampling import PlainSampling


class Plain(PlainLayers, PlainSampling):
    """``run(inputs, weights, config)`` for one checkpoint, with some methods replaced."""

    def __init__(self, checkpoint_id, **replaced):
        self.checkpoint_id = checkpoint_id
        for name, fn in replaced.items():
            assert hasattr(Plain, name), name
            setattr(self, name, MethodType(fn, self))

    @torch.no_grad()
    def run(self, inputs, weights, config):
        self.config, self.weights, self.prefix, self.call = config, weights, "", 0
        return getattr(self, f"checkpoint_{self.checkpoint_id.lower()}")(**inputs)

    # Block and model

    def join_attention(self, x, normed, attention):
        return x + attention

    def join_ffn(self, h, x, ffn):
        return h + ffn

    def append_k(self, past, new, past_positions):
        return new if past is None else torch.cat([past, new], 2)

    def append_v(self, past, new):
        return new if past is None else torch.cat([past, new], 2)

    def block(self, x, positions, keys, past=(None, None), past_positions=None):
        """Returns h, y and what the cache now holds."""
        normed = self.attention_norm(x)
        q, k, v = self.qkv(normed)
        q, k, v = self.rotate_q(q, positions), self.rotate_k(k, positions), self.rotate_v(v, positions)
        k = self.append_k(past[0], k.transpose(1, 2), past_positions)
        v = self.append_v(past[1], v.transpose(1, 2))
        attention = self.output(self.attend(q, k, v, positions, keys))
        h = self.join_attention(x, normed, attention)
        y = self.join_ffn(h, x, self.ffn(self.ffn_norm(h, x, attention)))
        return h, y, (k, v)

    def embed(self, ids):
        return F.embedding(ids, self.parameter("embed_tokens.weight"))

    def head(self, x):
        return self.linear(x, "lm_head")

    def order(self):
        """The layers whose weights are used, in turn."""
        return range(self.config.num_hidden_layers)

    def skipped(self):
        return ()

    def model(self, ids, positions, keys, caches=None, past_positions=None):
        x, outputs, new = self.embed(ids), {}, []
        for n, source in enumerate(self.order()):
            self.prefix = f"layers.{source}."
            past = caches[n] if caches else (None, None)
            _, y, cache = self.block(x, positions, keys, past, past_positions)
            x = x if n in self.skipped() else y
            new.append(cache)
            outputs[f"layers.{n}.output"] = x
        self.prefix = ""
        return outputs | {"logits": self.head(self.final_norm(x))}, new

    def count(self, mask, new):
        """Positions of the last ``new`` slots."""
        positions = mask.cumsum(-1) - 1
        return positions.masked_fill(mask == 0, -1)[:, -new:]

    def key_positions(self, past, positions):
        return positions if past is None else torch.cat([past, positions], 1)

    # What each checkpoint asks for

    def checkpoint_1(self, layer_input):
        return {"attention_norm": self.attention_norm(layer_input)}

    def checkpoint_1b(self, q, k, v, position_ids):
        return {
            "q_rotated": self.rotate_q(q, position_ids),
            "k_rotated": self.rotate_k(k, position_ids),
            "v": self.rotate_v(v, position_ids),
        }

    def checkpoint_2(self, attention_norm):
        return dict(zip("qkv", self.qkv(attention_norm), strict=True))

    def checkpoint_3(self, q_rotated, cache_k, cache_v, position_ids, key_positions):
        return {"attention_context": self.attend(q_rotated, cache_k, cache_v, position_ids, key_positions)}

    def checkpoint_4(self, attention_context):
        return {"attention_output": self.output(attention_context)}

    def checkpoint_5(self, ffn_norm):
        return {"ffn_output": self.ffn(ffn_norm)}

    def checkpoint_6(self, layer_input, position_ids):
        h, y, _ = self.block(layer_input, position_ids, position_ids)
        return {"attention_residual": h, "output": y}

    def checkpoint_7(self, input_ids, attention_mask):
        positions = self.count(attention_mask, input_ids.shape[1])
        return self.model(input_ids, positions, positions)[0]

    def checkpoint_8(self, input_ids, attention_mask, calls):
        caches, keys = None, None
        logits = position_ids = None
        for self.call, (begin, end) in enumerate(calls.tolist()):
            if caches is not None:
                caches = [(k[:, :, :begin], v[:, :, :begin]) for k, v in caches]
                keys = keys[:, :begin]
            positions = self.count(attention_mask[:, :end], end - begin)
            past, keys = keys, self.key_positions(keys, positions)
            values, caches = self.model(input_ids[:, begin:end], positions, keys, caches, past)
            if logits is None:
                logits = values["logits"].new_zeros(*input_ids.shape, values["logits"].shape[-1])
                position_ids = torch.zeros_like(input_ids)
            logits[:, begin:end], position_ids[:, begin:end] = values["logits"], positions
        outputs = {"logits": logits, "position_ids": position_ids}
        for n, (k, v) in enumerate(caches):
            outputs |= {f"layers.{n}.cache_k": k, f"layers.{n}.cache_v": v}
        return outputs

    # Generation

    def prompt(self, ids, mask):
        return ids, mask

    def ends(self, next_ids, eos):
        return torch.isin(next_ids, eos)

    def whole(self, text):
        """How many bytes of a text may be shown."""
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        decoder.decode(text)
        return len(text) - len(decoder.getstate()[0])

    def checkpoint_10(self, prompt_ids, attention_mask, max_new_tokens, eos_ids, piece_bytes, piece_lengths):
        limit, rows = int(max_new_tokens), len(prompt_ids)
        outputs = {name: torch.full((rows, limit), -1) for name in ("token_ids", "position_ids", "streamed_bytes")}
        texts, running = [b""] * rows, torch.ones(rows, dtype=torch.bool)
        ids, mask = self.prompt(prompt_ids, attention_mask)
        caches = keys = None
        for n in range(limit):
            positions = self.count(mask, ids.shape[1])
            past, keys = keys, self.key_positions(keys, positions)
            values, caches = self.model(ids, positions, keys, caches, past)
            ids = values["logits"][:, -1].float().argmax(-1)[:, None]
            for row in running.nonzero()[:, 0].tolist():
                token = int(ids[row])
                if not torch.isin(ids[row], eos_ids).any():
                    texts[row] += bytes(piece_bytes[token, : int(piece_lengths[token])].tolist())
                for name, value in zip(
                    outputs, (token, int(positions[row, -1]) + 1, self.whole(texts[row])), strict=True
                ):
                    outputs[name][row, n] = value
            running &= ~self.ends(ids[:, 0], eos_ids)
            if not running.any():
                break
            mask = torch.cat([mask, mask.new_ones(rows, 1)], 1)
        return outputs
