"""Known mistakes in projections, attention and feed-forward, planted by hand as people write them."""

import torch
import torch.nn.functional as F
from plain_llama import Plain

INFINITY = float("inf")


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


def top_left_in_chunks(self, q, k, v, positions, keys):
    """is_causal where there are several queries; a single one sees all that is no padding."""
    return Plain.attend(self, q, k, v, positions, keys) if q.shape[1] == 1 else top_left(self, q, k, v, positions, keys)


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
    ),
    "attention-mask-top-left": dict(attend=top_left_in_chunks),
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


QKV_OTHERWISE = {"qkv-k-and-v-swapped": dict(linear=weights_of("self_attn.k_proj", "self_attn.v_proj"))}
FEED_FORWARD_OTHERWISE = {
    "ffn-gate-and-up-swapped": dict(linear=weights_of("mlp.gate_proj", "mlp.up_proj")),
    "ffn-gelu": dict(activation=lambda self, z: z * torch.sigmoid(1.702 * z)),
}
