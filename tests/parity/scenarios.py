"""What is compared: each function runs one scenario in both implementations and pairs up what came out.

A pair is (name, ours, theirs); padding is cut out before, because there the two differ by right: transformers lets a
padded query see all keys, here it sees none.
"""

from __future__ import annotations

from functools import cache

import torch
from cases import CASES, our_model, peer_model, token_ids
from torch import Tensor
from transformers import DynamicCache

from llama_core import KVCache, capture

Pairs = list[tuple[str, Tensor, Tensor]]

#: Chunks of 1, of several, of 1 after several; the last takes what is left.
CHUNKS = (1, 5, 1, 1, 7)


def activations(name: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Pairs:
    """Every activation that transformers computes in a module of its own: all hidden states and the logits."""
    theirs = _peer_activations(name, dtype)
    model = our_model(name, dtype, device)
    with capture(model, "*") as seen:
        model(token_ids(name).to(device))
    return [(key, seen[key].reshape(value.shape), value) for key, value in theirs.items()]


def fused_logits(name: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu") -> Pairs:
    """Logits of the path that nobody watches."""
    model = our_model(name, dtype, device)
    return [("logits", model(token_ids(name).to(device)), _peer_activations(name, dtype)["logits"])]


def attention_weights(name: str, device: torch.device | str = "cpu") -> Pairs:
    """Weights after the softmax, row 1 padded on the left; padded queries are cut out."""
    mask = padding(name, "left")
    model = our_model(name, device=device)
    with capture(model, "layers.*.attention_weights") as seen:
        model(token_ids(name).to(device), attention_mask=mask.to(device))
    theirs = _peer_attention_weights(name)
    real = mask.bool()
    return [
        (key, ours.transpose(1, 2)[real], weights.transpose(1, 2)[real])
        for (key, ours), weights in zip(seen.items(), theirs, strict=True)
    ]


def keys_and_values(name: str, first: int, device: torch.device | str = "cpu") -> Pairs:
    """What attention reads, for positions that begin at ``first``: rotated keys, and values."""
    model = our_model(name, device=device)
    ids = token_ids(name)
    positions = (torch.arange(ids.shape[1]) + first).expand_as(ids)
    with capture(model, ["layers.*.cache_k", "layers.*.cache_v"]) as seen:
        model(ids.to(device), position_ids=positions.to(device))
    theirs = _peer_keys_and_values(name, first)
    return [(key, seen[key], value) for key, value in theirs.items()]


def padded(name: str, side: str, device: torch.device | str = "cpu") -> Pairs:
    """Row 0 is full, row 1 is padded on one side; positions follow from the mask, and show in the rotated keys."""
    mask = padding(name, side)
    model = our_model(name, device=device)
    with capture(model, "layers.*.k_rotated") as seen:
        logits = model(token_ids(name).to(device), attention_mask=mask.to(device)).cpu()
    theirs, keys = _peer_padded(name, side)
    real = mask.bool()
    return [("logits", logits[real], theirs[real])] + [
        (key, ours.cpu()[real], other.transpose(1, 2)[real])
        for (key, ours), other in zip(seen.items(), keys, strict=True)
    ]


def chunked(name: str, device: torch.device | str = "cpu") -> Pairs:
    """Chunk after chunk through a cache, then what the caches hold."""
    ids, model = token_ids(name), our_model(name, device=device)
    cache = KVCache(model.config, batch_size=len(ids), max_length=ids.shape[1] + 3, device=device)
    ours = torch.cat([model(chunk.to(device), cache=cache) for chunk in ids.split(_chunks(ids), dim=1)], dim=1)
    logits, keys, values = _peer_chunked(name)
    pairs = [("logits", ours, logits)]
    for n, (key, value) in enumerate(zip(keys, values, strict=True)):
        pairs.append((f"layers.{n}.cache_k", cache.keys[n][:, :, : cache.length], key))
        pairs.append((f"layers.{n}.cache_v", cache.values[n][:, :, : cache.length], value))
    return pairs


def padded_decode(name: str, side: str, device: torch.device | str = "cpu") -> Pairs:
    """A padded prefill, then the rest token by token behind it: on the right, padding stays between the two."""
    prefill, steps = _padded_prefill(name, side)
    ids, model = token_ids(name), our_model(name, device=device)
    cache = KVCache(model.config, batch_size=2, max_length=ids.shape[1], device=device)
    outputs = []
    for chunk, mask in ((prefill[0], prefill[1]), *steps):
        outputs.append(model(chunk.to(device), attention_mask=mask.to(device), cache=cache).cpu())
    theirs = _peer_padded_decode(name, side)
    real = prefill[1].bool()
    return [("prefill", outputs[0][real], theirs[0][real])] + [
        (f"step {n}", mine, other) for n, (mine, other) in enumerate(zip(outputs[1:], theirs[1:], strict=True))
    ]


def padding(name: str, side: str, length: int | None = None) -> Tensor:
    """[2, S]: row 0 all real, row 1 with a third of padding on one side."""
    length = length or CASES[name].length
    mask = torch.ones(2, length, dtype=torch.long)
    hidden = length // 3
    mask[1, slice(0, hidden) if side == "left" else slice(length - hidden, None)] = 0
    return mask


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _chunks(ids: Tensor) -> list[int]:
    return [*CHUNKS, ids.shape[1] - sum(CHUNKS)] if ids.shape[1] > sum(CHUNKS) else [1, 5, ids.shape[1] - 6]


def _padded_prefill(name: str, side: str):
    """((ids, mask), [(ids, mask), ...]): all but the last three tokens, then those one by one."""
    ids = token_ids(name)
    mask = torch.cat([padding(name, side, ids.shape[1] - 3), torch.ones(2, 3, dtype=torch.long)], dim=1)
    ends = range(ids.shape[1] - 3, ids.shape[1])
    return (ids[:, :-3], mask[:, :-3]), [(ids[:, end : end + 1], mask[:, : end + 1]) for end in ends]


@cache
def _peer_activations(name: str, dtype: torch.dtype) -> dict[str, Tensor]:
    model, found = peer_model(name, dtype), {}

    def keep(key: str, module, of_input: bool = False):
        def hook(_, args, output):
            found[key] = (args[0] if of_input else output[0] if isinstance(output, tuple) else output).detach()

        return module.register_forward_hook(hook)

    hooks = [keep("embedding", model.model.embed_tokens)]
    for n, layer in enumerate(model.model.layers):
        attention, mlp = layer.self_attn, layer.mlp
        for key, module in {
            "attention_norm": layer.input_layernorm,
            "q": attention.q_proj,
            "k": attention.k_proj,
            "v": attention.v_proj,
            "attention_output": attention.o_proj,
            "ffn_norm": layer.post_attention_layernorm,
            "ffn_gate": mlp.gate_proj,
            "ffn_up": mlp.up_proj,
            "ffn_output": mlp,
            "output": layer,
        }.items():
            hooks.append(keep(f"layers.{n}.{key}", module))
        hooks.append(keep(f"layers.{n}.attention_context", attention.o_proj, of_input=True))
        hooks.append(keep(f"layers.{n}.attention_residual", layer.post_attention_layernorm, of_input=True))
        hooks.append(keep(f"layers.{n}.ffn_hidden", mlp.down_proj, of_input=True))
    hooks += [keep("final_norm", model.model.norm), keep("logits", model.lm_head)]
    model(token_ids(name), use_cache=False)
    for hook in hooks:
        hook.remove()
    return found


@cache
def _peer_attention_weights(name: str) -> tuple[Tensor, ...]:
    mask = padding(name, "left")
    model = peer_model(name, attention="eager")
    out = model(token_ids(name), attention_mask=mask, position_ids=_positions(mask), output_attentions=True)
    return out.attentions


@cache
def _peer_keys_and_values(name: str, first: int) -> dict[str, Tensor]:
    ids, model = token_ids(name), peer_model(name)
    positions = (torch.arange(ids.shape[1]) + first).expand_as(ids)
    cache = DynamicCache(config=model.config)
    model(ids, position_ids=positions, past_key_values=cache)
    found = {}
    for n, layer in enumerate(cache.layers):
        found |= {f"layers.{n}.cache_k": layer.keys, f"layers.{n}.cache_v": layer.values}
    return found


@cache
def _peer_padded(name: str, side: str) -> tuple[Tensor, list[Tensor]]:
    mask, model = padding(name, side), peer_model(name)
    cache = DynamicCache(config=model.config)
    out = model(token_ids(name), attention_mask=mask, position_ids=_positions(mask), past_key_values=cache)
    return out.logits, [layer.keys for layer in cache.layers]


@cache
def _peer_chunked(name: str) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    ids, model = token_ids(name), peer_model(name)
    cache = DynamicCache(config=model.config)
    logits = [model(chunk, past_key_values=cache).logits for chunk in ids.split(_chunks(ids), dim=1)]
    return torch.cat(logits, dim=1), [layer.keys for layer in cache.layers], [layer.values for layer in cache.layers]


@cache
def _peer_padded_decode(name: str, side: str) -> list[Tensor]:
    prefill, steps = _padded_prefill(name, side)
    model = peer_model(name)
    cache, outputs = DynamicCache(config=model.config), []
    for chunk, mask in ((prefill[0], prefill[1]), *steps):
        positions = _positions(mask)[:, -chunk.shape[1] :]
        outputs.append(model(chunk, attention_mask=mask, position_ids=positions, past_key_values=cache).logits)
    return outputs
