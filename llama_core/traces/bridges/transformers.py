"""Traces of transformers' Llama, Mistral, Qwen2 and Qwen3: its code is not touched.

Rotated queries, what the cache holds, scores and weights come from an attention function that is registered together
with its mask function (with the first alone there would be no mask); rotated keys as they are handed to the cache;
everything else from hooks on modules.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from llama_core.checkpoints.compare import HIDDEN
from llama_core.dtypes import as_torch_dtype, dtype_name
from llama_core.errors import TraceError
from llama_core.traces.format import Call, Manifest, fingerprint, parse_rows
from llama_core.traces.read import Trace
from llama_core.traces.recorder import Plan, next_call, selected_rows, wanted_names
from llama_core.traces.write import TraceWriter
from llama_core.weights import model_folder, read_architecture, read_config

_NAME = "llama_core_trace_"
_ATTENTION = ("q_rotated", "k_rotated", "cache_k", "cache_v", "scores", "masked_scores", "attention_weights")


def record_transformers(
    model: str | PathLike[str] | Any,
    folder: str | PathLike[str],
    plan: Plan,
    *,
    dtype: str | None = None,
    attention: str = "eager",
    rows: str | None = None,
    names: str | Sequence[str] = "*",
    storage_dtype: str | None = None,
    statistics_only: bool = False,
    config=None,
) -> Trace:
    """Write a trace of transformers' own model.

    Args:
        model: a model folder, or a ``LlamaForCausalLM``, ``MistralForCausalLM``, ``Qwen2ForCausalLM`` or
            ``Qwen3ForCausalLM`` (then with ``config``, its ``LlamaConfig`` of ours).
        plan: the calls to make (``recorder.plan_like``, ``plan_prompt``).
        dtype: to compute in; float32 unless given. attention: ``eager``, or ``fused`` for its sdpa, which shows no
            scores. The others as in ``record``.

    Raises:
        TraceError: transformers is not installed, or the folder is not all that the model needs.
    """
    library = _import()
    if isinstance(model, str | PathLike):
        config = read_config(model_folder(model))
        model = _load(library, model, dtype or "float32")
    own = dtype_name(next(model.parameters()).dtype)
    parameters = ((name.removeprefix("model."), p) for name, p in model.named_parameters())
    manifest = Manifest(
        {"name": "transformers", "version": library.__version__, "detail": f"attention: {attention}"},
        dataclasses.asdict(config.replace(dtype=own)),
        fingerprint(parameters),
        own,
        storage_dtype or own,
        "half",
        [],
        not_provided={} if attention == "eager" else dict.fromkeys(_HIDDEN, "sdpa does not show it"),
    )
    wanted = wanted_names(names, config.num_hidden_layers)
    chosen = parse_rows(rows, plan.calls[0].positions.shape[1])
    with TraceWriter(folder, manifest, statistics_only) as writer, _watched(model, attention) as taps:
        _run(model, plan, writer, set(wanted), chosen, taps)
    return Trace.open(folder)


_HIDDEN = ("layers.*.scores", "layers.*.masked_scores", "layers.*.attention_weights")


def _import():
    try:
        import transformers
    except ImportError as e:
        raise TraceError(
            "transformers is not installed",
            key="--engine",
            expected="transformers 5 or newer",
            actual=str(e),
            hint="pip install 'llama-core[test]', or pip install 'transformers>=5'",
        ) from e
    return transformers


def _load(library, folder: str | PathLike[str], dtype: str):
    """Every tensor has to come from the folder: transformers fills what is missing with random numbers.

    The class is that of the folder's kind: another one would load many of them, and leave out a step.
    """
    place = model_folder(folder)
    model, found = getattr(library, read_architecture(place)).from_pretrained(
        place, dtype=as_torch_dtype(dtype), local_files_only=True, output_loading_info=True
    )
    lost = {key: sorted(map(str, found[key])) for key in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    lost = {key: names for key, names in lost.items() if names}
    if lost:
        raise TraceError(
            "transformers does not find in the folder exactly what it needs",
            file=place,
            key=next(iter(lost)),
            expected="every tensor, and no other",
            actual=str(next(iter(lost.values()))[:4]),
        )
    return model.eval()


class _Taps:
    """Hands what hooks see to the writer of the call that is running."""

    def __init__(self):
        self.keep = lambda name, value: None


@contextmanager
def _watched(model, attention: str) -> Iterator[_Taps]:
    """Hooks and functions in place; afterwards the model is as it was."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    taps = _Taps()
    kind = "eager" if attention == "eager" else "sdpa"
    AttentionInterface.register(_NAME + kind, _attention(_modeling(model), taps, kind))
    AttentionMaskInterface.register(_NAME + kind, AttentionMaskInterface()[kind])
    before = model.config._attn_implementation
    handles = list(_hooks(model, taps))
    model.config._attn_implementation = _NAME + kind
    try:
        yield taps
    finally:
        model.config._attn_implementation = before
        for handle in handles:
            handle.remove()


def _modeling(model) -> Any:
    """The module that defines the model, or what it is a kind of."""
    places = (sys.modules[one.__module__] for one in type(model).__mro__)
    return next(place for place in places if hasattr(place, "eager_attention_forward"))


def _attention(modeling: Any, taps: _Taps, kind: str):
    """transformers' own attention, from the module that defines the model; its inputs and what is on the way shown."""

    def attend(module, query, key, value, attention_mask, scaling=None, **options):
        from transformers import AttentionInterface

        def keep(name: str, x: Tensor) -> None:
            taps.keep(f"layers.{module.layer_idx}.{name}", x)

        keep("q_rotated", query.transpose(1, 2))
        keep("cache_k", key)
        keep("cache_v", value)
        if kind == "sdpa":
            return AttentionInterface()["sdpa"](module, query, key, value, attention_mask, scaling=scaling, **options)
        keys = modeling.repeat_kv(key, module.num_key_value_groups)
        scores = torch.matmul(query, keys.transpose(2, 3)) * scaling
        keep("scores", scores)
        # What it adds is the lowest number of the type, which would swamp the sum and the extremes of the whole.
        hidden = attention_mask is not None and attention_mask <= HIDDEN
        keep("masked_scores", scores if attention_mask is None else scores.masked_fill(hidden, -torch.inf))
        output, weights = modeling.eager_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **options
        )
        keep("attention_weights", weights)
        return output, weights

    return attend


def _cache(taps: _Taps):
    """A cache that shows what it is given. Without a configuration: one that is told of a sliding window forgets what
    lies behind it."""
    from transformers.cache_utils import DynamicCache

    class Shown(DynamicCache):
        def update(self, key_states, value_states, layer_idx, *others, **options):
            taps.keep(f"layers.{layer_idx}.k_rotated", key_states.transpose(1, 2))
            return super().update(key_states, value_states, layer_idx, *others, **options)

    return Shown()


def _hooks(model, taps: _Taps) -> Iterator[Any]:
    config = model.config
    heads = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads

    def after(module, name: str, split: bool = False):
        def hook(_, arguments, output):
            value = output[0] if isinstance(output, tuple) else output
            taps.keep(name, value.unflatten(-1, (-1, heads)) if split else value)

        return module.register_forward_hook(hook)

    def before(module, name: str, split: bool = False):
        def hook(_, arguments):
            taps.keep(name, arguments[0].unflatten(-1, (-1, heads)) if split else arguments[0])

        return module.register_forward_pre_hook(hook)

    def positions(_, arguments, options):
        taps.keep("position_ids", options.get("position_ids", arguments[1] if len(arguments) > 1 else None))

    yield after(model.model.embed_tokens, "embedding")
    yield model.model.rotary_emb.register_forward_pre_hook(positions, with_kwargs=True)
    for n, layer in enumerate(model.model.layers):
        attention, mlp, prefix = layer.self_attn, layer.mlp, f"layers.{n}."
        yield after(layer.input_layernorm, prefix + "attention_norm")
        for name in "qkv":
            normed = getattr(attention, f"{name}_norm", None)  # Qwen3's, of every head of q and k
            yield after(normed or getattr(attention, f"{name}_proj"), prefix + name, split=normed is None)
        yield before(attention.o_proj, prefix + "attention_context", split=True)
        yield after(attention.o_proj, prefix + "attention_output")
        yield before(layer.post_attention_layernorm, prefix + "attention_residual")
        yield after(layer.post_attention_layernorm, prefix + "ffn_norm")
        yield after(mlp.gate_proj, prefix + "ffn_gate")
        yield after(mlp.up_proj, prefix + "ffn_up")
        yield after(mlp.act_fn, prefix + "ffn_activation")
        yield before(mlp.down_proj, prefix + "ffn_hidden")
        yield after(mlp, prefix + "ffn_output")
        yield after(layer, prefix + "output")
    yield after(model.model.norm, "final_norm")
    yield after(model.lm_head, "logits")


@torch.no_grad()
def _run(model, plan: Plan, writer: TraceWriter, wanted: set[str], rows, taps: _Taps) -> None:
    caches: dict[tuple[int, ...], Any] = {}
    calls = list(plan.calls)
    logits: Tensor | None = None
    for number in range(len(calls) + plan.steps):
        if logits is not None and number >= len(calls):
            calls.append(next_call(calls, logits))
        call = calls[number]
        if call.past is None:
            caches[call.sequences] = _cache(taps)
        writer.begin_call(call)
        taps.keep = _keeper(writer, call, wanted, rows if number == 0 else None)
        device = next(model.parameters()).device
        ids = torch.from_numpy(call.input_ids).to(device)
        taps.keep("input_ids", ids)
        logits = model(
            ids,
            attention_mask=torch.from_numpy((call.key_positions >= 0).astype("int64")).to(device),
            position_ids=torch.from_numpy(call.positions.clip(min=0)).to(device),
            past_key_values=caches[call.sequences],
            use_cache=True,
        ).logits


def _keeper(writer: TraceWriter, call: Call, wanted: set[str], rows):
    def keep(name: str, value: Tensor) -> None:
        if name not in wanted:
            return
        if name == "position_ids":
            value = value.expand(*call.positions.shape)
            value = value.masked_fill(torch.from_numpy(call.positions < 0).to(value.device), -1)
        shown, chosen = selected_rows(name, value, rows)
        writer.add(name, shown, chosen)

    return keep
