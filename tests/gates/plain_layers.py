"""The layers of a Llama written a third time: norm, rotary embedding, attention, feed-forward; each step a method."""

import math

import torch
import torch.nn.functional as F


class PlainLayers:
    """Steps of one layer, on ``self.weights`` with ``self.config``; names start with ``self.prefix``."""

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

    def head_norm(self, heads, name):
        """Over the last axis, where the model has such a norm."""
        weight = f"self_attn.{name}_norm.weight"
        return heads if self.parameter(weight) is None else PlainLayers.norm(self, heads, weight)

    def norm_heads(self, q, k):
        return self.head_norm(q, "q"), self.head_norm(k, "k")

    def qkv(self, x):
        q, k, v = (self.split(self.linear(x, f"self_attn.{name}_proj")) for name in "qkv")
        return *self.norm_heads(q, k), v

    def expand(self, x, heads):
        """[B, K, T, D] -> [B, H, T, D]."""
        return x.repeat_interleave(heads // x.shape[1], dim=1)

    def scale(self, q):
        return 1 / math.sqrt(q.shape[-1])

    def scores(self, q, k):
        return q @ k.transpose(-1, -2) * self.scale(q)

    def within(self, back):
        """Whether the window, if there is one, reaches as far back."""
        window = self.config.sliding_window
        return back < window if window else torch.ones_like(back, dtype=torch.bool)

    def visible(self, positions, keys):
        back = positions[:, None, :, None] - keys[:, None, None, :]
        return (keys[:, None, None, :] >= 0) & (back >= 0) & self.within(back)

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
