"""Mistakes that people make, planted in the model to see whether the parity tests notice them.

Each plant replaces one function of ``llama_core`` and is taken out again afterwards. ``tools/test_the_tests.py`` plants
one after the other; ``pytest tests/parity --plant NAME`` plants one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import torch
import torch.nn.functional as F

import llama_core.model
from llama_core import KVCache, Llama, RopeScaling
from llama_core.layers import Attention, Block, FeedForward, RMSNorm, RoPE, SelfAttention, rope

#: Replaces ``owner.name`` by what ``make(original)`` returns.
Patch = Callable[[object, str, Callable], None]
PLANTS: dict[str, Callable[[Patch], None]] = {}


def plant(name: str):
    def register(function: Callable[[Patch], None]):
        PLANTS[name] = function
        return function

    return register


@contextmanager
def planted(name: str) -> Iterator[None]:
    """Inside the ``with`` block every model has the mistake."""
    with ExitStack() as stack:

        def patch(owner: object, attribute: str, make: Callable) -> None:
            original = getattr(owner, attribute)
            stack.enter_context(mock.patch.object(owner, attribute, make(original)))

        PLANTS[name](patch)
        yield


@plant("attention scale dropped")
def _(patch: Patch) -> None:
    def make(original):
        def init(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self.scale = 1.0

        return init

    patch(Attention, "__init__", make)


@plant("rotary scaling dropped")
def _(patch: Patch) -> None:
    def make(original):
        def init(self, head_dim, theta, layout, scaling, max_position_embeddings):
            original(self, head_dim, theta, layout, None, max_position_embeddings)

        return init

    patch(RoPE, "__init__", make)


@plant("yarn attention factor dropped")
def _(patch: Patch) -> None:
    patch(rope, "yarn_attention_factor", lambda original: lambda scaling: 1.0)


@plant("llama3 band not smoothed")
def _(patch: Patch) -> None:
    def frequencies(plain, scaling: RopeScaling, length):
        return plain / [[1.0, scaling.factor][length * f / (2 * torch.pi) < scaling.low_freq_factor] for f in plain]

    patch(rope, "llama3_frequencies", lambda original: frequencies)


@plant("rotary layout swapped")
def _(patch: Patch) -> None:
    patch(rope, "_ROTATIONS", lambda original: original | {"half": original["interleaved"]})


@plant("rotary sign flipped")
def _(patch: Patch) -> None:
    patch(RoPE, "rotate", lambda original: lambda self, x, cos, sin: original(self, x, cos, -sin))


@plant("rotary theta always 10000")
def _(patch: Patch) -> None:
    patch(rope, "default_frequencies", lambda original: lambda head_dim, theta: original(head_dim, 10000.0))


@plant("rotary angles in bfloat16")
def _(patch: Patch) -> None:
    def make(original):
        def cos_sin(self, position_ids):
            cos, sin = original(self, position_ids)
            return cos.bfloat16().float(), sin.bfloat16().float()

        return cos_sin

    patch(RoPE, "cos_sin", make)


@plant("positions restart in every chunk")
def _(patch: Patch) -> None:
    patch(KVCache, "next_positions", lambda original: lambda self: torch.zeros_like(original(self)))


@plant("positions count padding")
def _(patch: Patch) -> None:
    def positions(attention_mask, start):
        counted = start[:, None] + torch.arange(attention_mask.shape[1], device=start.device)
        return counted.masked_fill(~attention_mask, -1)

    patch(llama_core.model, "token_positions", lambda original: positions)


@plant("mask shifted by one")
def _(patch: Patch) -> None:
    def shifted(queries, keys):
        keys = keys[:, None, None, :]
        return (keys >= 0) & (keys <= queries[:, None, :, None] + 1)

    _replace_causal_mask(
        patch, lambda queries, keys: torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries + 1)
    )
    patch(llama_core.model, "visible_positions", lambda original: shifted)


@plant("mask of a chunk aligned top left")
def _(patch: Patch) -> None:
    _replace_causal_mask(patch, lambda queries, keys: torch.ones(queries, keys, dtype=torch.bool).tril())


def _replace_causal_mask(patch: Patch, make_mask: Callable[[int, int], torch.Tensor]) -> None:
    def make(original):
        def forward(self, q, k, v, use_causal_mask=True, mask=None, **tap):
            mask = make_mask(q.shape[1], k.shape[1]).to(q.device) if mask is None else mask
            return original(self, q, k, v, mask=mask, **tap)

        return forward

    patch(Attention, "forward", make)


@plant("padding ignored")
def _(patch: Patch) -> None:
    patch(Llama, "_check_mask", lambda original: lambda self, *args: None)


@plant("GQA tiled")
def _(patch: Patch) -> None:
    def make(original):
        def forward(self, q, k, v, *args, **kwargs):
            times = q.shape[2] // k.shape[2]
            return original(self, q, k.repeat(1, 1, times, 1), v.repeat(1, 1, times, 1), *args, **kwargs)

        return forward

    patch(Attention, "forward", make)


@plant("softmax over the queries")
def _(patch: Patch) -> None:
    def make(original):
        def softmax(self, scores):
            return original(self, scores.transpose(-1, -2)).transpose(-1, -2)

        return softmax

    patch(Attention, "softmax", make)


@plant("v rotated like k")
def _(patch: Patch) -> None:
    def make(original):
        def forward(self, x, rope, cos_sin, *args, **kwargs):
            with mock.patch.object(self.v_proj, "forward", rotated(self.v_proj.forward, self.head_dim, rope, cos_sin)):
                return original(self, x, rope, cos_sin, *args, **kwargs)

        return forward

    def rotated(project, head_dim, rope, cos_sin):
        return lambda x: rope.rotate(project(x).unflatten(-1, (-1, head_dim)), *cos_sin).flatten(-2)

    patch(SelfAttention, "forward", make)


@plant("o_proj skipped")
def _(patch: Patch) -> None:
    def make(original):
        def init(self, *args, **kwargs):
            original(self, *args, **kwargs)
            # Where H·D is not E something must give: the context is cut or filled up with zeros.
            self.o_proj.register_forward_hook(lambda o_proj, x, out: F.pad(x[0], (0, out.shape[-1] - x[0].shape[-1])))

        return init

    patch(SelfAttention, "__init__", make)


@plant("attention bias dropped")
def _(patch: Patch) -> None:
    _drop_biases(patch, "self_attn")


@plant("mlp bias dropped")
def _(patch: Patch) -> None:
    _drop_biases(patch, "mlp")


def _drop_biases(patch: Patch, part: str) -> None:
    def make(original):
        def load(self, tensors, **options):
            wrong = {k: v * 0 if part in k and k.endswith("bias") else v for k, v in tensors.items()}
            return original(self, wrong, **options)

        return load

    patch(Llama, "load_state_dict", make)


@plant("gate and up swapped")
def _(patch: Patch) -> None:
    def make(original):
        def init(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self.register_forward_pre_hook(_swap(self, "gate_proj", "up_proj"))
            self.register_forward_hook(_swap(self, "gate_proj", "up_proj"))

        return init

    patch(FeedForward, "__init__", make)


@plant("norms of a block swapped")
def _(patch: Patch) -> None:
    def make(original):
        def init(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self.register_forward_pre_hook(_swap(self, "input_layernorm", "post_attention_layernorm"))
            self.register_forward_hook(_swap(self, "input_layernorm", "post_attention_layernorm"))

        return init

    patch(Block, "__init__", make)


def _swap(module: torch.nn.Module, first: str, second: str) -> Callable[..., None]:
    """A hook that swaps two submodules: before the forward pass, and back after it."""

    def hook(*_):
        modules = module._modules
        modules[first], modules[second] = modules[second], modules[first]

    return hook


@plant("epsilon ten times too small")
def _(patch: Patch) -> None:
    patch(RMSNorm, "__init__", lambda original: lambda self, size, eps=1e-5: original(self, size, eps / 10))


@plant("epsilon outside the root")
def _(patch: Patch) -> None:
    def forward(self, x):
        return x / (x.float().square().mean(-1, keepdim=True).sqrt() + self.eps).to(x.dtype) * self.weight

    patch(RMSNorm, "forward", lambda original: forward)


@plant("final norm skipped")
def _(patch: Patch) -> None:
    def make(original):
        def init(self, *args, **kwargs):
            original(self, *args, **kwargs)
            self.norm.register_forward_hook(lambda norm, x, out: x[0])

        return init

    patch(Llama, "__init__", make)


@plant("head always tied")
def _(patch: Patch) -> None:
    def tie(self):
        self.lm_head.weight = self.embed_tokens.weight

    patch(Llama, "_tie", lambda original: tie)
