"""A copy of transformers' Llama with a mistake in one of its layers.

The mistakes are those of the hand-written Llama (``planted.py``): the methods that a mistake replaces take the place of
the modules of one layer, and everything else stays transformers' own.
"""

import sys
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from plain_llama import Plain

ROTARY = {"layout", "turn", "theta", "rope_positions", "rotate", "rotate_q", "rotate_k", "rotate_v"} | {
    "inverse_wavelengths",
    "attention_factor",
    "llama3",
}
PROJECTIONS = {"linear", "split", "qkv"}
ATTENTION = {"scale", "visible", "weigh", "merge", "expand", "append_k", "append_v"}
BLOCK = {"norm", "attention_norm", "ffn_norm", "join_attention", "join_ffn"}
FEED_FORWARD = {"activation", "hidden", "down"}
MODEL = {"embed", "head", "final_norm", "order", "skipped"}
#: What can be mounted: scores as such are out of reach, transformers computes them in the middle of a function.
MOUNTED = ROTARY | PROJECTIONS | ATTENTION | BLOCK | FEED_FORWARD | MODEL | {"output"}


def mount(peer, config, weights, calls, layer, replaced):
    """Plant replaced methods of ``Plain`` in a layer of a ``LlamaForCausalLM`` (``None``: in the model)."""
    assert replaced.keys() <= MOUNTED, replaced
    plain = Plain("7", **replaced)
    plain.config, plain.weights, plain.call = config, weights, 0
    if replaced.keys() & MODEL:
        _mount_model(peer, plain, replaced.keys())
        return
    plain.prefix = f"layers.{layer}."
    block = peer.model.layers[layer]
    if replaced.keys() & PROJECTIONS:
        _mount_projections(block.self_attn, plain)
    if "output" in replaced or "linear" in replaced:
        block.self_attn.o_proj.forward = lambda c: plain.output(plain_heads(c, config))
    if replaced.keys() & (ROTARY | ATTENTION):
        _mount_attention(block.self_attn, plain, calls, replaced.keys())
    if replaced.keys() & BLOCK:
        _mount_block(block, plain, replaced.keys())
    if replaced.keys() & (FEED_FORWARD | {"linear"}):
        _mount_feed_forward(block.mlp, plain, replaced.keys())


def plain_heads(x, config):
    return x.unflatten(-1, (-1, config.head_dim))


def _mount_model(peer, plain, names):
    plain.prefix = ""
    if "embed" in names:
        peer.model.embed_tokens.forward = plain.embed
    if "final_norm" in names:
        peer.model.norm.forward = plain.final_norm
    if "head" in names:
        peer.lm_head.forward = plain.head
    if "order" in names:
        own = [{name: p.clone() for name, p in layer.state_dict().items()} for layer in peer.model.layers]
        for layer, source in zip(peer.model.layers, plain.order(), strict=True):
            layer.load_state_dict(own[source])
    for number in plain.skipped():
        peer.model.layers[number].forward = lambda hidden_states, *_, **__: hidden_states


def _mount_projections(attention, plain):
    for number, name in enumerate("qkv"):

        def forward(x, number=number):
            return plain.qkv(x)[number].flatten(-2)

        getattr(attention, f"{name}_proj").forward = forward


def _mount_block(block, plain, names):
    seen = SimpleNamespace()
    if names & {"norm", "attention_norm"}:
        block.input_layernorm.forward = plain.attention_norm
    if names & {"norm", "ffn_norm"}:
        block.post_attention_layernorm.forward = lambda h: plain.ffn_norm(h, seen.x, seen.attention)

    def forward(hidden_states, *_, **options):
        seen.x = hidden_states
        normed = block.input_layernorm(hidden_states)
        seen.attention, _ = block.self_attn(hidden_states=normed, **options)
        h = plain.join_attention(hidden_states, normed, seen.attention)
        return plain.join_ffn(h, hidden_states, block.mlp(block.post_attention_layernorm(h)))

    block.forward = forward


def _mount_feed_forward(mlp, plain, names):
    if "linear" in names:
        mlp.gate_proj.forward, mlp.up_proj.forward = plain.gate, plain.up
    if names & {"linear", "down"}:
        mlp.down_proj.forward = plain.down
    if "activation" in names:
        mlp.act_fn = _Activation(plain)

    def forward(x):
        gate, up = mlp.gate_proj(x), mlp.up_proj(x)
        activated = mlp.act_fn(gate)  # shown, whatever becomes of it
        return mlp.down_proj(plain.hidden(gate, up) if "hidden" in names else activated * up)

    mlp.forward = forward


class _Activation(torch.nn.Module):
    def __init__(self, plain):
        super().__init__()
        self.plain = plain

    def forward(self, x):
        return self.plain.activation(x)


@contextmanager
def _patched(module, **functions):
    before = {name: getattr(module, name) for name in functions}
    try:
        for name, fn in functions.items():
            setattr(module, name, fn)
        yield
    finally:
        for name, fn in before.items():
            setattr(module, name, fn)


def _mount_attention(attention, plain, calls, names):
    modeling = sys.modules[type(attention).__module__]
    right, numbers = attention.forward, iter(range(len(calls)))
    if "scale" in names:
        attention.scaling = plain.scale(torch.zeros(attention.head_dim))
    if "rotate_v" in names:
        projected = attention.v_proj.forward
        attention.v_proj.forward = lambda x: plain.rotate_v(
            plain_heads(projected(x), plain.config), torch.from_numpy(calls[plain.call].positions)
        ).flatten(-2)

    def forward(hidden_states, position_embeddings=None, attention_mask=None, past_key_values=None, **options):
        plain.call = next(numbers)
        call = calls[plain.call]
        positions, keys = torch.from_numpy(call.positions), torch.from_numpy(call.key_positions)

        def rotate(q, k, cos, sin, **_):
            turned = plain.rotate_q(q.transpose(1, 2), positions), plain.rotate_k(k.transpose(1, 2), positions)
            return tuple(x.transpose(1, 2) for x in turned)

        def attend(module, query, key, value, mask, scaling, **_):
            k, v = (plain.expand(x, query.shape[1]) for x in (key, value))
            visible = plain.visible(positions, keys).expand(len(query), 1, query.shape[2], k.shape[2])
            weights = plain.weigh(query @ k.transpose(2, 3) * scaling, visible)
            return plain.merge(weights @ v), weights

        functions = {}
        if names & ROTARY:
            functions["apply_rotary_pos_emb"] = rotate
        if "expand" in names:
            functions["repeat_kv"] = lambda x, groups: plain.expand(x, x.shape[1] * groups)
        if names & {"weigh", "merge"}:
            functions["eager_attention_forward"] = attend
        if "visible" in names:
            visible = plain.visible(positions, keys).expand(len(positions), 1, *attention_mask.shape[2:])
            attention_mask = torch.zeros(visible.shape).masked_fill(~visible, torch.finfo(torch.float32).min)
        if names & {"append_k", "append_v"}:
            past_key_values = _Cache(past_key_values, plain, calls)
        with _patched(modeling, **functions):
            return right(
                hidden_states,
                position_embeddings=position_embeddings,
                attention_mask=attention_mask,
                past_key_values=past_key_values,
                **options,
            )

    attention.forward = forward


class _Cache:
    """A cache that keeps what the mistake makes of it."""

    def __init__(self, cache, plain, calls):
        self.cache, self.plain, self.calls = cache, plain, calls

    def update(self, k, v, layer):
        count = k.shape[2]
        all_k, all_v = self.cache.update(k, v, layer)
        past = self.calls[self.plain.call].past
        before = None if past is None else torch.from_numpy(self.calls[past].key_positions)
        k_past, v_past = (None if before is None else x[:, :, :-count] for x in (all_k, all_v))
        k, v = self.plain.append_k(k_past, k, before), self.plain.append_v(v_past, v)
        self.cache.layers[layer].keys, self.cache.layers[layer].values = k, v
        return k, v
