"""Known mistakes in norm, rotary embedding, attention and feed-forward, planted by hand as people write them."""

import math

import torch
import torch.nn.functional as F
from plain_llama import Plain

INFINITY = float("inf")


def normed(scale):
    """A norm that multiplies float32 x by ``scale(x, eps)``, then by its weight."""

    def norm(self, x, name):
        return (x.float() * scale(x.float(), self.config.rms_norm_eps)).to(x.dtype) * self.parameter(name)

    return norm


def squares(x):
    return x.pow(2).mean(-1, keepdim=True)


def half_norm(self, x, name):
    half = x.dtype if x.dtype != torch.float32 else torch.bfloat16
    y = x.to(half)
    y = y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps) * self.parameter(name).to(half)
    return y.to(x.dtype)


NORM = {
    "norm-left-out": lambda self, x, name: x,
    "norm-mean-subtracted": lambda self, x, name: Plain.norm(self, x.float() - x.float().mean(-1, keepdim=True), name),
    "norm-eps-outside-root": normed(lambda x, eps: 1 / (squares(x).sqrt() + eps)),
    "norm-eps-1e-6": normed(lambda x, eps: torch.rsqrt(squares(x) + 1e-6)),
    "norm-eps-1e-3": normed(lambda x, eps: torch.rsqrt(squares(x) + 1e-3)),
    "norm-without-eps": normed(lambda x, eps: torch.rsqrt(squares(x))),
    "norm-without-root": normed(lambda x, eps: 1 / (squares(x) + eps)),
    "norm-divides-by-n-minus-1": normed(
        lambda x, eps: torch.rsqrt(x.pow(2).sum(-1, keepdim=True) / (x.shape[-1] - 1) + eps)
    ),
    "norm-weight-ignored": lambda self, x, name: F.rms_norm(x.float(), x.shape[-1:], eps=self.config.rms_norm_eps).to(
        x.dtype
    ),
    "norm-one-plus-weight": lambda self, x, name: F.rms_norm(
        x.float(), x.shape[-1:], 1 + self.parameter(name).float(), self.config.rms_norm_eps
    ).to(x.dtype),
    "norm-sum-for-mean": normed(lambda x, eps: torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + eps)),
    "norm-over-positions": normed(lambda x, eps: torch.rsqrt(x.pow(2).mean(1, keepdim=True) + eps)),
    "norm-over-the-whole-sequence": normed(lambda x, eps: torch.rsqrt(x.pow(2).mean((1, 2), keepdim=True) + eps)),
    "norm-in-half-precision": half_norm,
}


def rotate_half_with_interleaved_tables(self, x, cos, sin):
    wide = x.float()
    if self.config.rope_layout == "half":
        cos, sin = cos.repeat_interleave(2, -1), sin.repeat_interleave(2, -1)
        a, b = wide.chunk(2, -1)
        partner = torch.cat((-b, a), -1)
    else:
        cos, sin = torch.cat((cos, cos), -1), torch.cat((sin, sin), -1)
        partner = torch.stack((-wide[..., 1::2], wide[..., 0::2]), -1).flatten(-2)
    return (wide * cos + partner * sin).to(x.dtype)


def rotate_along_heads(self, x, positions):
    start = positions[:, :1].clamp(min=0)
    cos, sin = self.tables(start + torch.arange(x.shape[2]))
    return self.turn(x, cos.transpose(1, 2), sin.transpose(1, 2))


def without_scaling(self, length):
    d = self.config.head_dim
    return 1.0 / self.config.rope_theta ** (torch.arange(0, d, 2).float() / d)


def multiplied(self, length):
    scaling = self.config.rope_scaling
    base = Plain.inverse_wavelengths(self, length)
    return base * scaling.factor**2 if scaling and scaling.kind == "linear" else base


ROPE = {
    "rope-pairs-swapped": dict(layout=lambda self: "interleaved" if self.config.rope_layout == "half" else "half"),
    "rope-tables-of-other-layout": dict(turn=rotate_half_with_interleaved_tables),
    "rope-sign-flipped": dict(turn=lambda self, x, cos, sin: Plain.turn(self, x, cos, -sin)),
    "rope-theta-500000": dict(
        theta=lambda self, length: Plain.theta(self, length) / self.config.rope_theta * 500000.0,
    ),
    "rope-position-plus-one": dict(rope_positions=lambda self, p: p + (p >= 0).long()),
    "rope-position-zero-when-decoding": dict(rope_positions=lambda self, p: p * 0 if p.shape[1] == 1 else p),
    "rope-positions-restart": dict(rope_positions=lambda self, p: torch.arange(p.shape[1]).expand_as(p)),
    "rope-positions-of-first-row": dict(rope_positions=lambda self, p: p[:1].expand_as(p)),
    "rope-values-rotated": dict(rotate_v=lambda self, v, p: self.rotate(v, p)),
    "rope-keys-not-rotated": dict(rotate_k=lambda self, k, p: k),
    "rope-queries-not-rotated": dict(rotate_q=lambda self, q, p: q),
    "rope-scaling-ignored": dict(inverse_wavelengths=without_scaling, attention_factor=lambda self: 1.0),
    "rope-linear-scaling-inverted": dict(inverse_wavelengths=multiplied),
    "rope-llama3-band-divided": dict(
        llama3=lambda self, base, s: torch.where(
            2 * math.pi / base < s.original_max_position_embeddings / s.high_freq_factor, base, base / s.factor
        )
    ),
    "rope-llama3-band-kept": dict(
        llama3=lambda self, base, s: torch.where(
            2 * math.pi / base > s.original_max_position_embeddings / s.low_freq_factor, base / s.factor, base
        )
    ),
    "rope-yarn-without-attention-factor": dict(attention_factor=lambda self: 1.0),
    "rope-frequencies-in-bfloat16": dict(
        inverse_wavelengths=lambda self, length: Plain.inverse_wavelengths(self, length).bfloat16().float()
    ),
    "rope-positions-in-bfloat16": dict(rope_positions=lambda self, p: p.bfloat16().long()),
    "rope-heads-for-positions": dict(rotate=rotate_along_heads),
}


def transposed(self, x, name):
    weight, bias = self.parameter(f"{name}.weight"), self.parameter(f"{name}.bias")
    if weight.shape[0] != weight.shape[1]:
        return F.linear(x, weight, bias)
    y = x @ weight
    return y if bias is None else y + bias


def swapped(first, second):
    def linear(self, x, name):
        other = {first: second, second: first}.get(name, name)
        fits = self.parameter(f"{other}.weight").shape == self.parameter(f"{name}.weight").shape
        return Plain.linear(self, x, other if fits else name)

    return linear


def fused_by_group(self, x):
    names = [f"self_attn.{p}_proj" for p in "qkv"]
    y = torch.cat([Plain.linear(self, x, name) for name in names], -1)
    groups, per_group = (
        self.config.num_key_value_heads,
        self.config.num_attention_heads // self.config.num_key_value_heads,
    )
    y = y.view(*x.shape[:2], groups, per_group + 2, self.config.head_dim)
    q, k = self.norm_heads(y[..., :per_group, :].flatten(2, 3), y[..., per_group, :])
    return q, k, y[..., per_group + 1, :]


def v_from_k(self, x):
    q, k, _ = Plain.qkv(self, x)
    return q, k, self.split(self.linear(x, "self_attn.k_proj"))


def no_bias(self, x, name):
    return x @ self.parameter(f"{name}.weight").T


QKV = {
    "qkv-weight-transposed": dict(linear=transposed),
    "qkv-coordinates-before-heads": dict(
        split=lambda self, y: y.unflatten(-1, (self.config.head_dim, -1)).transpose(-1, -2)
    ),
    "qkv-q-and-k-swapped": dict(linear=swapped("self_attn.q_proj", "self_attn.k_proj")),
    "qkv-k-and-v-swapped": dict(linear=swapped("self_attn.k_proj", "self_attn.v_proj")),
    "qkv-v-from-k": dict(qkv=v_from_k),
    "qkv-bias-ignored": dict(linear=no_bias),
    "qkv-fused-split-by-group": dict(qkv=fused_by_group),
}


def slots(positions, keys):
    return torch.arange(positions.shape[1])[:, None], torch.arange(keys.shape[1])[None, :]


def top_left(self, q, k, v, positions, keys):
    """is_causal as PyTorch has it, with the padding hidden besides."""
    q = q.transpose(1, 2)
    k, v = self.expand(k, q.shape[1]), self.expand(v, q.shape[1])
    row, column = slots(positions, keys)
    mask = (column <= row) & self.within(row - column) & (keys >= 0)[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def padding_seen(self, positions, keys):
    row, column = slots(positions, keys)
    back = row + keys.shape[1] - positions.shape[1] - column
    return ((back >= 0) & self.within(back)).expand(len(positions), 1, -1, -1)


def after_softmax(self, scores, visible):
    return scores.float().softmax(-1).to(scores.dtype) * visible


def over_queries(self, scores, visible):
    weights = scores.float().masked_fill(~visible, -INFINITY).softmax(2)
    return weights.masked_fill(~visible.any(2, keepdim=True), 0).to(scores.dtype)


def half_softmax(self, scores, visible):
    half = scores.dtype if scores.dtype != torch.float32 else torch.bfloat16
    x = scores.to(half).masked_fill(~visible, -INFINITY)
    e = torch.exp(x - x.amax(-1, keepdim=True).clamp(min=-1e4))
    total = e.sum(-1, keepdim=True)
    return (e / total.masked_fill(total == 0, 1)).to(scores.dtype)


def lowest_number(self, scores, visible):
    lowest = torch.finfo(torch.float32).min
    return scores.float().masked_fill(~visible, lowest).softmax(-1).to(scores.dtype)


def unmended(self, scores, visible):
    return scores.float().masked_fill(~visible, -INFINITY).softmax(-1).to(scores.dtype)


def scores_transposed(self, q, k):
    scores = k @ q.transpose(-1, -2) * self.scale(q)
    return scores if scores.shape[-1] == scores.shape[-2] else scores.transpose(-1, -2)


def keys_against(comparison):
    def visible(self, positions, keys):
        key, query = keys[:, None, None, :], positions[:, None, :, None]
        return (key >= 0) & comparison(key, query) & self.within(query - key)

    return visible


ATTENTION = {
    "attention-no-scale": dict(scale=lambda self, q: 1.0),
    "attention-scale-d": dict(scale=lambda self, q: 1 / q.shape[-1]),
    "attention-scale-hidden-size": dict(scale=lambda self, q: self.config.hidden_size**-0.5),
    "attention-scores-transposed": dict(scores=scores_transposed),
    "attention-mask-never-applied": dict(
        visible=lambda self, p, keys: (keys >= 0)[:, None, None, :].expand(-1, 1, p.shape[1], -1)
    ),
    "attention-no-mask-at-all": dict(
        visible=lambda self, p, keys: torch.ones(len(p), 1, p.shape[1], keys.shape[1], dtype=torch.bool)
    ),
    "attention-mask-hides-diagonal": dict(visible=keys_against(lambda key, query: key < query)),
    "attention-mask-shows-one-future-token": dict(visible=keys_against(lambda key, query: key <= query + 1)),
    "attention-mask-inverted": dict(visible=keys_against(lambda key, query: key > query)),
    "attention-mask-top-left": dict(attend=top_left),
    "attention-mask-after-softmax": dict(weigh=after_softmax),
    "attention-softmax-over-queries": dict(weigh=over_queries),
    "attention-heads-tiled": dict(expand=lambda self, x, heads: x.repeat(1, heads // x.shape[1], 1, 1)),
    "attention-first-head-for-all": dict(expand=lambda self, x, heads: x[:, :1].expand(-1, heads, -1, -1)),
    "attention-heads-merged-untransposed": dict(
        merge=lambda self, c: c.contiguous().view(c.shape[0], c.shape[2], c.shape[1], c.shape[3])
    ),
    "attention-padding-ignored": dict(visible=padding_seen),
    "attention-softmax-in-half-precision": dict(weigh=half_softmax),
    "attention-lowest-number-for-mask": dict(weigh=lowest_number),
    "attention-nan-for-hidden-row": dict(weigh=unmended),
}

#: Padding is position -1, and the comparison with the query's position lets it through.
ATTENTION_OTHERWISE = {
    "attention-padding-ignored": dict(
        visible=lambda self, p, keys: (
            (keys[:, None, None, :] <= p[:, None, :, None]) & self.within(p[:, None, :, None] - keys[:, None, None, :])
        )
    )
}


def skipped_output(self, context):
    y = context.flatten(-2)
    return y if y.shape[-1] == self.config.hidden_size else Plain.output(self, context)


def by_rank(self, context):
    groups = self.config.num_key_value_heads
    return Plain.output(self, context.unflatten(2, (groups, -1)).transpose(2, 3).flatten(2, 3))


OUTPUT = {
    "output-projection-skipped": dict(output=skipped_output),
    "output-projection-transposed": dict(linear=transposed),
    "output-heads-by-rank": dict(output=by_rank),
    "output-heads-reversed": dict(output=lambda self, c: Plain.output(self, c.flip(2))),
    "output-coordinates-before-heads": dict(output=lambda self, c: Plain.output(self, c.transpose(2, 3))),
    "output-bias-ignored": dict(linear=no_bias),
}

FEED_FORWARD = {
    "ffn-gate-and-up-swapped": dict(linear=swapped("mlp.gate_proj", "mlp.up_proj")),
    "ffn-gelu": dict(activation=lambda self, z: F.gelu(z)),
    "ffn-gelu-tanh": dict(activation=lambda self, z: F.gelu(z, approximate="tanh")),
    "ffn-relu": dict(activation=lambda self, z: F.relu(z)),
    "ffn-sigmoid": dict(activation=lambda self, z: z.sigmoid()),
    "ffn-no-gate": dict(hidden=lambda self, gate, up: self.activation(gate)),
    "ffn-no-activation": dict(activation=lambda self, z: z),
    "ffn-silu-of-product": dict(hidden=lambda self, gate, up: F.silu(gate * up)),
    "ffn-weight-transposed": dict(linear=transposed),
    "ffn-bias-ignored": dict(linear=no_bias),
}


def weights_of(first, second):
    """Each projection has the other's weight and its own bias."""

    def linear(self, x, name):
        other = {first: second, second: first}.get(name, name)
        return F.linear(x, self.parameter(f"{other}.weight"), self.parameter(f"{name}.bias"))

    return linear


FEED_FORWARD_OTHERWISE = {"ffn-gate-and-up-swapped": dict(linear=weights_of("mlp.gate_proj", "mlp.up_proj"))}
