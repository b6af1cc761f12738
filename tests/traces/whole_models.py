"""Whole models with a mistake in one layer, traced as far as an engine shows them, and where each first goes wrong.

Two engines carry them: the hand-written Llama (``traced_plain``) and a copy of transformers' (``mounted``). Where a
planted trace goes wrong is told without the code under test: it is the first tensor of the first call whose values
differ from those of the same engine without the mistake.
"""

import math
from functools import cache
from pathlib import Path

import numpy as np
import torch
from plain_llama import Plain
from planted import PLANTED
from small_traces import CONFIG
from traced_plain import Traced

from llama_core import Llama
from llama_core.checkpoints.arithmetic import Arithmetic
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.mistakes import CATALOGUE
from llama_core.checkpoints.random_bits import uniform
from llama_core.checkpoints.steps import evaluate_model
from llama_core.config import RopeScaling
from llama_core.names import activation_axes, activation_names
from llama_core.traces import Trace, record
from llama_core.traces.align import to_rows
from llama_core.traces.format import Manifest
from llama_core.traces.recorder import Plan, plan_prompt
from llama_core.traces.write import TraceWriter

#: name -> what differs from ``CONFIG``. A mistake is planted in a model and on a prompt on which it makes a difference.
SETTINGS = {
    "plain": {},
    "square": dict(num_key_value_heads=4, head_dim=8, intermediate_size=32),
    "biased": dict(attention_bias=True, mlp_bias=True),
    "linear": dict(rope_scaling=RopeScaling("linear", factor=4.0)),
    "llama3": dict(
        rope_scaling=RopeScaling(
            "llama3", factor=8.0, original_max_position_embeddings=64, low_freq_factor=1.0, high_freq_factor=4.0
        )
    ),
    "yarn": dict(rope_scaling=RopeScaling("yarn", factor=4.0, original_max_position_embeddings=32)),
    "tied": dict(tie_word_embeddings=True),
    "padded": {},
    "chunked": {},
    "long": {},
    "theta": dict(rope_theta=500000.0),
    "llama32": dict(
        rope_scaling=RopeScaling(
            "llama3", factor=32.0, original_max_position_embeddings=64, low_freq_factor=1.0, high_freq_factor=4.0
        )
    ),
    "grouped": dict(num_attention_heads=8, head_dim=16),
    "qwen2": dict(qkv_bias=True),
    "window": dict(sliding_window=3),
    "window padded right": dict(sliding_window=3),
    "head norms": dict(qk_norm=True),
}
#: Where the first row of a setting is padded. Between a prompt and its step there are slots that are no positions.
PADDED = {"padded": slice(None, 3), "window padded right": slice(-3, None)}
NEEDED = {
    "square": ("qkv-weight-transposed", "qkv-q-and-k-swapped", "output-projection-transposed")
    + ("output-projection-skipped", "ffn-weight-transposed"),
    "biased": ("qkv-bias-ignored", "output-bias-ignored", "ffn-bias-ignored"),
    "linear": ("rope-linear-scaling-inverted",),
    "llama3": ("rope-scaling-ignored", "rope-llama3-band-divided", "rope-llama3-band-kept"),
    "yarn": ("rope-yarn-without-attention-factor",),
    "tied": ("model-head-not-tied",),
    "padded": ("rope-positions-of-first-row", "attention-padding-ignored", "attention-no-mask-at-all")
    + ("attention-mask-never-applied",)
    + ("attention-lowest-number-for-mask", "attention-nan-for-hidden-row"),
    "chunked": ("rope-positions-restart", "rope-position-zero-when-decoding"),
    "long": ("rope-positions-in-bfloat16",),
    "window": ("attention-window-ignored", "attention-window-one-more", "attention-window-one-less")
    + ("attention-window-in-the-call", "attention-window-of-the-last-query"),
    "window padded right": ("attention-window-counts-padding",),
    "head norms": ("qk-norm-missing", "qk-norm-over-all-heads", "qk-norms-swapped", "qk-norm-after-rotation"),
}
SETTING_OF = {id: name for name, ids in NEEDED.items() for id in ids}
#: Of the whole model, not of a layer.
WHOLE_MODEL = {"cache-length-not-advanced", "cache-start-plus-one"} | {
    m.id for m in CATALOGUE.values() if m.checkpoint == "7"
}
#: What an engine shows. ``boundaries``: the ends of blocks, and what the cache holds.
LEVELS = {
    "full": lambda name: True,
    "boundaries": lambda name: (
        name.split(".")[-1] in ("input_ids", "position_ids", "output", "cache_k", "cache_v", "logits")
    ),
}
#: A tensor differs from this share of its root mean square on; rounding is a hundredth of it.
_DIFFERS = 1e-5


def _drawn(size, fan_in):
    return torch.from_numpy(uniform(size, (size,), (3 * fan_in) ** -0.5))


def _spurious_bias(self, x, name):
    y, weight = Plain.linear(self, x, name), self.parameter(f"{name}.weight")
    return y + _drawn(*weight.shape) if name[-6:-5] in "qkv" and name.startswith("self_attn") else y


def _spurious_output_bias(self, x, name):
    y, weight = Plain.linear(self, x, name), self.parameter(f"{name}.weight")
    return y + _drawn(*weight.shape) if name.endswith("o_proj") else y


def _drawn_head(self, x):
    weight = self.parameter("embed_tokens.weight")
    return x @ torch.from_numpy(uniform(7, tuple(weight.shape), weight.shape[-1] ** -0.5)).T


def _biased_head(self, x):
    y = Plain.head(self, x)
    return y + _drawn(y.shape[-1], x.shape[-1])


def _halved_exponent(self, length):
    d = self.config.head_dim
    return (1.0 / self.config.rope_theta ** (torch.arange(d // 2, dtype=torch.float64) / d)).float()


def _keys_kept(self, past, new, _=None):
    self.keys = Plain.append_k(self, past, new, None)
    return self.keys


def _top_left(self, positions, keys):
    row, column = torch.arange(positions.shape[1])[:, None], torch.arange(keys.shape[1])[None, :]
    return (column <= row) & (keys >= 0)[:, None, None, :]


#: Mistakes of the catalogue that the gates' tests plant in another way, or not.
MORE = {
    "rope-exponent-halved": dict(inverse_wavelengths=_halved_exponent),
    "qkv-spurious-bias": dict(linear=_spurious_bias),
    "output-spurious-bias": dict(linear=_spurious_output_bias),
    "model-head-not-tied": dict(head=_drawn_head),
    "model-spurious-head-bias": dict(head=_biased_head),
    "cache-values-hold-keys": dict(append_k=_keys_kept, append_v=lambda self, past, new: self.keys),
}
#: transformers' mask is a tensor, so there the mistake is made in it.
IN_MASK = {"attention-mask-top-left": dict(visible=_top_left)}


#: Checkpoint -> the projections that its mistakes concern; the others of a whole model stay right.
_PROJECTIONS = {"2": ("q_proj", "k_proj", "v_proj"), "4": ("o_proj",), "5": ("gate_proj", "up_proj", "down_proj")}


def replaced(id):
    """The methods of ``Plain`` that a mistake of the catalogue replaces."""
    methods = MORE[id] if id in MORE else PLANTED[id][1]
    concerned = _PROJECTIONS.get(CATALOGUE[id].checkpoint)
    if "linear" not in methods or concerned is None:
        return methods
    wrong = methods["linear"]

    def linear(self, x, name):
        return (wrong if name.endswith(concerned) else Plain.linear)(self, x, name)

    return methods | dict(linear=linear)


@cache
def config_of(setting):
    return CONFIG.replace(**SETTINGS[setting])


@cache
def model_of(setting):
    return Llama.random(config_of(setting), seed=1, dtype="float32")


def plan_of(setting):
    """Seven tokens and one step of a batch of two; with padding, or in two chunks; or one long prompt."""
    config = config_of(setting)
    length = 300 if setting == "long" else 7
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, config.vocab_size, (1 if setting == "long" else 2, length), generator=generator).numpy()
    mask = np.ones_like(ids)
    if setting in PADDED:
        mask[0, PADDED[setting]] = 0
    return plan_prompt(ids, mask, steps=0 if setting == "long" else 1, chunk=4 if setting == "chunked" else None)


def golden_of(setting, folder: Path, noise=("float32",)) -> Trace:
    """The right trace of a setting; written once."""
    place = folder / f"golden-{setting}"
    if (place / "manifest.json").exists():
        return Trace.open(place)
    plan = plan_of(setting)
    return record(model_of(setting), None, place, plan=Plan(plan.calls, plan.steps), noise=noise)


def run_plain(setting, calls, folder, mistakes, shows, **options) -> Trace:
    """``mistakes``: layer -> replaced methods; ``None`` as a layer is the model's."""
    Traced(mistakes).trace(model_of(setting), calls, folder, shows, **options)
    return Trace.open(folder)


def run_transformers(setting, calls, folder, mistakes, shows, **options) -> Trace:
    from mounted import mount
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    from llama_core.traces.bridges.transformers import record_transformers

    saved = folder.parent / f"model-{setting}"
    if not saved.exists():
        model_of(setting).save_pretrained(saved)
    disable_progress_bar()
    peer = AutoModelForCausalLM.from_pretrained(saved, dtype=torch.float32, attn_implementation="eager").eval()
    weights = dict(model_of(setting).state_dict())
    for layer, methods in mistakes.items():
        mount(peer, config_of(setting), weights, calls, layer, methods)
    names = [name for name in activation_names(config_of(setting).num_hidden_layers) if shows(name)]
    return record_transformers(peer, folder, Plan(list(calls)), names=names, config=config_of(setting), **options)


ENGINES = {"plain": run_plain, "transformers": run_transformers}
#: transformers itself counts a sliding window in slots, padding included.
PEERLESS = {("transformers", "window padded right")}


def mountable(id) -> bool:
    from mounted import MOUNTED

    if ("transformers", SETTING_OF.get(id)) in PEERLESS:
        return False
    return id in IN_MASK or replaced(id).keys() <= MOUNTED


def planted_in(engine, id, layer):
    """layer -> replaced methods, for ``ENGINES[engine]``."""
    methods = IN_MASK.get(id, None) if engine == "transformers" else None
    return {None if id in WHOLE_MODEL else layer: methods or replaced(id)}


def first_difference(right: Trace, wrong: Trace, names) -> tuple[str, int] | None:
    """The first tensor, call by call and in the order of the dataflow, that differs beyond rounding on real tokens."""
    for number, call in enumerate(wrong.calls):
        for name in names:
            if (name, number) not in wrong.records or (name, number) not in right.records:
                continue
            a, b = right.values(name, number), wrong.values(name, number)
            if _differ(name, a, b, call):
                return name, number
    return None


def _differ(name, right, wrong, call) -> bool:
    if right.dtype.kind != "f":
        return not np.array_equal(right, wrong)
    if np.isnan(wrong).any() != np.isnan(right).any():
        return True
    rows = [to_rows(activation_axes(name), x, call, by_slot=True) for x in (right, wrong)]
    a, b = (np.array(r.values, np.float64) for r in rows)
    if name.endswith("scores") and not name.endswith("masked_scores"):
        keys = call.key_positions[[call.sequences.index(n) for n in rows[0].sequence]]
        seen = (keys >= 0) & (keys <= rows[0].position[:, None])
        a, b = (np.where(seen[:, None], x, 0) for x in (a, b))
    if name.endswith("masked_scores"):
        a, b = (np.where(x < -9e3, -np.inf, x) for x in (a, b))
    finite = np.isfinite(a)
    if (np.isfinite(b) != finite).any():
        return True
    scale = math.sqrt(float(np.mean(a[finite] ** 2))) or 1.0
    return float(np.abs(np.where(finite, a, 0) - np.where(finite, b, 0)).max()) > _DIFFERS * scale


def outside():
    """Errors of no known kind in a layer's steps, from the gates' tests: what is wrong -> the change."""
    from outside import OUTSIDE

    kept = [o for o in OUTSIDE if o[0] in ("1", "1B", "2", "3", "4", "5", "6") and o[2].config is None]
    return {f"{checkpoint} {name}": changes for checkpoint, name, changes in kept}


def run_steps(setting, calls, folder, changes) -> Trace:
    """The table of steps in float32, with changes to it."""
    config = config_of(setting)
    weights = {name: p.detach().double().numpy() for name, p in model_of(setting).state_dict().items()}
    arithmetic = Arithmetic("float32", wide="float32", float32_tables=True)
    manifest = Manifest({"name": "steps"}, None, "", "float32", "float32", config.rope_layout, [])
    pasts = {}
    with TraceWriter(folder, manifest) as writer:
        for number, call in enumerate(calls):
            writer.begin_call(call)
            given = {"input_ids": call.input_ids, "attention_mask": (call.key_positions >= 0).astype(np.int64)}
            context = Context(config, weights, given, arithmetic, pasts.get(call.past, {}), call=number)
            with np.errstate(all="ignore"):
                values = evaluate_model(context, changes)
            pasts[number] = {n: x for n, x in values.items() if n == "key_positions" or ".cache_" in n}
            for name in activation_names(config.num_hidden_layers):
                writer.add(name, values[name])
    return Trace.open(folder)
