"""A Llama written a third time, in plain torch functions, for mistakes to be planted in by hand.

Every step is a method; a planted program has some of them replaced. It imports nothing of llama_core.
"""

import codecs
import math
from types import MethodType

import torch
import torch.nn.functional as F


class Plain:
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

    def parameter(self, name):
        return self.weights.get(self.prefix + name)

    def linear(self, x, name):
        return F.linear(x, self.parameter(f"{name}.weight"), self.parameter(f"{name}.bias"))

    # Norm

    def norm(self, x, name):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
        return wide.to(x.dtype) * self.parameter(name)

    def attention_norm(self, x):
        return self.norm(x, "input_layernorm.weight")

    def ffn_norm(self, h, x, attention):
        return self.norm(h, "post_attention_layernorm.weight")

    def final_norm(self, x):
        return self.norm(x, "norm.weight")

    # Rotary embedding

    def theta(self, length):
        scaling = self.config.rope_scaling
        if scaling is None or scaling.kind != "dynamic":
            return self.config.rope_theta
        limit, d = self.config.max_position_embeddings, self.config.head_dim
        stretch = scaling.factor * max(length, limit) / limit - scaling.factor + 1
        return self.config.rope_theta * stretch ** (d / (d - 2))

    def inverse_wavelengths(self, length):
        d = self.config.head_dim
        base = 1.0 / self.theta(length) ** (torch.arange(0, d, 2, dtype=torch.float64) / d)
        scaling = self.config.rope_scaling
        kind = scaling.kind if scaling else "default"
        if kind == "linear":
            base = base / scaling.factor
        if kind == "llama3":
            base = self.llama3(base, scaling)
        if kind == "yarn":
            original = scaling.original_max_position_embeddings or self.config.max_position_embeddings

            def border(turns):
                return d * math.log(original / (2 * math.pi * turns)) / (2 * math.log(self.theta(length)))

            low, high = max(math.floor(border(scaling.beta_fast)), 0), min(math.ceil(border(scaling.beta_slow)), d - 1)
            ramp = ((torch.arange(d // 2) - low) / max(high - low, 0.001)).clamp(0, 1)
            base = base / scaling.factor * ramp + base * (1 - ramp)
        return base.float()

    def llama3(self, base, scaling):
        original = scaling.original_max_position_embeddings
        turns = original * base / (2 * math.pi)
        blend = ((turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)).clamp(0, 1)
        return blend * base + (1 - blend) * base / scaling.factor

    def attention_factor(self):
        scaling = self.config.rope_scaling
        return 0.1 * math.log(scaling.factor) + 1 if scaling is not None and scaling.kind == "yarn" else 1.0

    def tables(self, positions):
        """Cosines and sines [B, S, 1, D/2]."""
        rows = [row.clamp(min=0).float()[:, None] * self.inverse_wavelengths(int(row.max()) + 1) for row in positions]
        angles = torch.stack(rows)[:, :, None, :]
        return angles.cos() * self.attention_factor(), angles.sin() * self.attention_factor()

    def layout(self):
        return self.config.rope_layout

    def turn(self, x, cos, sin):
        wide = x.float()
        a, b = wide.chunk(2, -1) if self.layout() == "half" else (wide[..., 0::2], wide[..., 1::2])
        turned = a * cos - b * sin, b * cos + a * sin
        out = torch.cat(turned, -1) if self.layout() == "half" else torch.stack(turned, -1).flatten(-2)
        return out.to(x.dtype)

    def rope_positions(self, positions):
        return positions

    def rotate(self, x, positions):
        return self.turn(x, *self.tables(self.rope_positions(positions)))

    def rotate_q(self, q, positions):
        return self.rotate(q, positions)

    def rotate_k(self, k, positions):
        return self.rotate(k, positions)

    def rotate_v(self, v, positions):
        return v

    # Attention

    def split(self, y):
        return y.unflatten(-1, (-1, self.config.head_dim))

    def qkv(self, x):
        return tuple(self.split(self.linear(x, f"self_attn.{name}_proj")) for name in "qkv")

    def expand(self, x, heads):
        """[B, K, T, D] -> [B, H, T, D]."""
        return x.repeat_interleave(heads // x.shape[1], dim=1)

    def scale(self, q):
        return 1 / math.sqrt(q.shape[-1])

    def scores(self, q, k):
        return q @ k.transpose(-1, -2) * self.scale(q)

    def visible(self, positions, keys):
        return (keys[:, None, None, :] >= 0) & (keys[:, None, None, :] <= positions[:, None, :, None])

    def weigh(self, scores, visible):
        masked = scores.float().masked_fill(~visible, float("-inf"))
        return masked.softmax(-1).masked_fill(~visible.any(-1, keepdim=True), 0).to(scores.dtype)

    def merge(self, context):
        """[B, H, S, D] -> [B, S, H, D]."""
        return context.transpose(1, 2)

    def attend(self, q, k, v, positions, keys):
        """q [B, S, H, D], k and v [B, K, T, D]."""
        q = q.transpose(1, 2)
        k, v = self.expand(k, q.shape[1]), self.expand(v, q.shape[1])
        return self.merge(self.weigh(self.scores(q, k), self.visible(positions, keys)) @ v)

    def output(self, context):
        return self.linear(context.flatten(-2), "self_attn.o_proj")

    # Feed-forward

    def gate(self, x):
        return self.linear(x, "mlp.gate_proj")

    def up(self, x):
        return self.linear(x, "mlp.up_proj")

    def activation(self, z):
        return F.silu(z)

    def hidden(self, gate, up):
        return self.activation(gate) * up

    def down(self, hidden):
        return self.linear(hidden, "mlp.down_proj")

    def ffn(self, x):
        return self.down(self.hidden(self.gate(x), self.up(x)))

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

    # Sampling

    def cool(self, logits, temperature):
        if temperature == 0:
            return torch.full_like(logits, float("-inf")).scatter(-1, logits.argmax(-1, keepdim=True), 0.0)
        return logits / temperature

    def top_k(self, logits, k):
        return logits if k == 0 else logits.masked_fill(logits < logits.topk(k).values[:, -1:], float("-inf"))

    def inside(self, sums, probabilities, p):
        return sums - probabilities < p

    def top_p(self, logits, p, raw):
        if p >= 1:
            return logits
        ordered, order = logits.softmax(-1).sort(-1, descending=True)
        keep = self.inside(ordered.cumsum(-1), ordered, p)
        return logits.masked_fill(~keep.scatter(-1, order, keep), float("-inf"))

    def normalise(self, cut, uncut):
        return cut.softmax(-1)

    def greedy(self, logits):
        return logits.argmax(-1)

    def checkpoint_9(self, logits, temperature, top_k, top_p):
        raw = logits.float()
        cooled = self.cool(raw, float(temperature))
        cut = self.top_p(self.top_k(cooled, int(top_k)), float(top_p), raw)
        kept = (cut > float("-inf")).long()
        return {"greedy_ids": self.greedy(raw), "kept": kept, "probabilities": self.normalise(cut, cooled)}

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
