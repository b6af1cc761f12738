"""Known mistakes in norm and rotary embedding, planted by hand as people write them."""

import math

import torch
import torch.nn.functional as F
from plain_llama import Plain


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
NORM_OTHERWISE = {
    "norm-without-eps": lambda self, x, name: F.rms_norm(x.float(), x.shape[-1:]).to(x.dtype) * self.parameter(name)
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
