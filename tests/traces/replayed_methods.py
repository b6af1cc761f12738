"""Methods of the hand-written Llama gone wrong as public threads tell it; those of the catalogue are elsewhere."""

import torch
from plain_llama import Plain


def _permuted(x, heads, inverse=False):
    """The rows of a projection [B, S, R] from halves to pairs, as converters do it with ``heads`` heads, or back."""
    shape = (heads, 2, -1) if not inverse else (heads, -1, 2)
    return x.unflatten(-1, (heads, -1)).unflatten(-1, shape[1:]).transpose(-1, -2).flatten(-3)


def keys_converted_with(heads):
    """The engine turns pairs, so that keys converted with the right number of heads would come out right."""

    def qkv(self, x):
        q, k, v = Plain.qkv(self, x)
        rows = _permuted(k.flatten(-2), heads(self.config))
        return q, self.split(_permuted(rows, self.config.num_key_value_heads, inverse=True)), v

    return dict(qkv=qkv)


def pairs_kept(self, x):
    q, k, v = Plain.qkv(self, x)
    q, k = (self.split(_permuted(y.flatten(-2), y.shape[-2])) for y in (q, k))
    return q, k, v


def half_norm(self, x, name):
    half = x.half()
    scale = torch.rsqrt(half.pow(2).mean(-1, keepdim=True) + self.config.rms_norm_eps)
    return (half * scale * self.parameter(name).half()).to(x.dtype)


def eps(value):
    def norm(self, x, name):
        wide = x.float()
        return wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + value) * self.parameter(name)

    return dict(norm=norm)


def angles_in_bfloat16(self, positions):
    rows = [row.clamp(min=0).float()[:, None] * self.inverse_wavelengths(int(row.max()) + 1) for row in positions]
    angles = torch.stack(rows)[:, :, None, :].bfloat16().float()
    return angles.cos(), angles.sin()


def factor_of_8(self, base, scaling):
    return Plain.llama3(self, base, scaling.__class__(**vars(scaling) | {"factor": 8.0}))


def one_late(self, positions):
    return positions + (positions >= 0).long() if self.call else positions


def queries_restart(self, q, positions):
    return self.rotate(q, torch.arange(positions.shape[1]).expand_as(positions))


def drawn_biases(self, x, name):
    y = Plain.linear(self, x, name)
    if not name.startswith("self_attn.") or name.endswith("o_proj"):
        return y
    generator = torch.Generator().manual_seed(len(name) + ord(name[10]) + 7 * len(self.prefix))
    return y + 0.05 * torch.randn(y.shape[-1], generator=generator)


def random_head(self, x):
    weight = self.parameter("embed_tokens.weight")
    drawn = torch.randn(weight.shape, generator=torch.Generator().manual_seed(99)) * weight.shape[-1] ** -0.5
    return x @ drawn.T
