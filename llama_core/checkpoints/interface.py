"""What an implementation of a checkpoint is given and must give back, in words and as a function to begin with."""

from __future__ import annotations

import textwrap
from typing import Any

from llama_core.checkpoints.families import ALL, LLAMA, NEIGHBOURS
from llama_core.checkpoints.noise import generic
from llama_core.checkpoints.result import WIDTH, aligned
from llama_core.checkpoints.specification import Checkpoint
from llama_core.names import AXES, PARAMETERS

_MORE_AXES = {"P": "prompt positions", "N": "entries", "W": "bytes of the longest piece"}
#: Inputs that are no activations.
_ABOUT = {
    "attention_mask": "1 for real tokens, 0 for padding",
    "position_ids": "absolute positions; -1 is padding",
    "key_positions": "positions of the keys; -1 is padding, which no query sees",
    "calls": "slots [begin, end) of each pass; an early begin truncates the cache",
    "temperature": "0 is argmax",
    "top_k": "0 keeps all",
    "top_p": "1 keeps all",
    "eos_ids": "any of these ends a row",
    "piece_bytes": "what each id stands for, filled up with zeros",
    "piece_lengths": "how many of those bytes count",
    "cache_k": "keys, rotated, earlier positions included",
    "cache_v": "values, earlier positions included",
}
#: Outputs whose name does not say everything.
_RETURNED = {
    ("8", "position_ids"): "the position of every token",
    ("8", "logits"): "for every slot, from the last call that computed it",
    ("8", "layers.N.cache_k"): "for every layer: all slots after the last call",
    ("8", "layers.N.cache_v"): "for every layer: all slots after the last call",
    ("9", "kept"): "1 for a token that may be drawn, else 0",
    ("9", "probabilities"): "float32 at least, whatever the model's type",
    ("10", "token_ids"): "greedy; the end id included, -1 after it",
    ("10", "position_ids"): "of every new token; -1 after the end",
    ("10", "streamed_bytes"): "bytes of text shown so far; whole characters only; -1 after the end",
    ("3", "attention_context"): "zeros where a query sees nothing",
    ("1B", "v"): "as it came",
}


def interface(checkpoint: Checkpoint, width: int = WIDTH, family: str = LLAMA) -> str:
    """The contract of a checkpoint, as text, for implementations of one family or of all."""
    spec = checkpoint
    weights = _weights(spec, family)
    inputs = [(name, f"[{', '.join(axes.split())}]", _ABOUT.get(name, "")) for name, axes in spec.inputs.items()]
    outputs = [
        (name, f"[{', '.join(axes.split())}]", _RETURNED.get((spec.id, name), ""))
        for name, axes in spec.outputs.items()
    ]
    welcome = [(name, f"[{', '.join(axes.split())}]", "") for name, axes in spec.welcome.items()]
    parts = [
        f"Checkpoint {spec.id}, {spec.title}: {spec.formula}",
        "run(inputs, weights, config) -> {name: array}",
        _section("inputs", inputs),
        _section("weights (rows first: y = x Wᵀ)", [(name, *facts) for name, facts in weights.items()]),
        f"config: {_reads(spec, family)}" if _reads(spec, family) else "",
        _section("outputs, required", outputs),
        _section("outputs, welcome: they help to find a fault", welcome),
        _legend([*spec.inputs.values(), *spec.outputs.values(), *spec.welcome.values()], width),
        textwrap.fill(
            "Arrays are torch tensors, or numpy arrays for a function that works in numpy. Floating-point outputs may "
            "be of a wider type. A tuple in this order will do, and the bare array where there is one output. "
            f"It must hold: {spec.must_hold}.",
            width,
        ),
        _families(spec, family, width),
        _template(spec, weights),
    ]
    return "\n\n".join(part for part in parts if part)


def _neighbours(spec: Checkpoint) -> dict[str, int]:
    """How many cases of each neighbour there are."""
    families = [case.family for case in spec.neighbours]
    return {name: families.count(name) for name in NEIGHBOURS if name in families}


def _reads(spec: Checkpoint, family: str) -> str:
    """The configuration's fields that the formula needs, the family's own step included."""
    own = [NEIGHBOURS[name].reads for name in _neighbours(spec) if family in (name, ALL)]
    return ", ".join(filter(None, [spec.reads, *own]))


def _families(spec: Checkpoint, family: str, width: int) -> str:
    """Which cases are asked, and which others there are."""
    counts = _neighbours(spec)
    if not counts:
        return ""
    asked = spec.of_family(family)
    whose = {LLAMA: "a plain Llama", ALL: "every family"}.get(family, family)
    others = {name: count for name, count in counts.items() if family not in (name, ALL)}
    first = f"Asked: {_cases(len(asked))} of {whose}." + (" Others, with --family NAME:" if others else "")
    rows = [f"    {name:<8} {_cases(count)}: {NEIGHBOURS[name].about}" for name, count in others.items()]
    return "\n".join(textwrap.fill(line, width, subsequent_indent=" " * 13) for line in (first, *rows))


def _cases(count: int) -> str:
    return f"{count} case" if count == 1 else f"{count} cases"


def interface_facts(checkpoint: Checkpoint, family: str = LLAMA) -> dict[str, Any]:
    """The same for machines: names with their axes."""
    return {
        "checkpoint": checkpoint.id,
        "title": checkpoint.title,
        "formula": checkpoint.formula,
        "inputs": checkpoint.inputs,
        "weights": {
            name: {"axes": axes[1:-1], "when": when} for name, (axes, when) in _weights(checkpoint, family).items()
        },
        "outputs": checkpoint.outputs,
        "welcome": checkpoint.welcome,
        "config": _reads(checkpoint, family),
        "family": family,
        "neighbours": _neighbours(checkpoint),
        "must_hold": checkpoint.must_hold,
    }


def _weights(spec: Checkpoint, family: str) -> dict[str, tuple[str, str]]:
    """Name, ``layers.N.`` for every layer -> axes, and when it is there."""
    cases = [case for case in spec.of_family(family) if not case.large]
    given = {generic(name) for case in cases for name in case.values()[1]}
    found = {}
    for p in PARAMETERS:
        whole, within = p.name.format(n="N"), p.name.removeprefix("layers.{n}.")
        name = whole if whole in given else within
        if name in given:
            when = "a tied head is embed_tokens.weight" if p.optional == "untied" else ""
            when = f"where config.{p.optional}" if p.optional.endswith(("bias", "qk_norm")) else when
            when = "where config.attention_bias or .qkv_bias" if p.optional == "qkv_bias" else when
            axes = ", ".join({"HD": "H·D", "KD": "K·D"}.get(a, a) for a in p.axes.split())
            found[name] = (f"[{axes}]", when)
    return found


def _section(title: str, rows: list[tuple[str, str, str]]) -> str:
    return "" if not rows else f"{title}:\n" + aligned([("", "", ""), *rows]).split("\n", 1)[1]


def _legend(axes: list[str], width: int) -> str:
    used = {axis for names in axes for axis in names.split()}
    return textwrap.fill(
        "axes: " + " · ".join(f"{a} {text}" for a, text in (AXES | _MORE_AXES).items() if a in used), width
    )


def _template(spec: Checkpoint, weights: dict[str, tuple[str, str]]) -> str:
    lines = ["def run(inputs, weights, config):"]
    lines += [f'    {_variable(name)} = inputs["{name}"]' for name in spec.inputs]
    for name in weights:
        if "layers.N" not in name:
            read = f'.get("{name}")' if weights[name][1].startswith("where") else f'["{name}"]'
            lines.append(f"    {_variable(name)} = weights{read}")
    if any("layers.N" in name for name in weights):
        lines.append("    for n in range(config.num_hidden_layers):")
        lines.append('        q_proj_weight = weights[f"layers.{n}.self_attn.q_proj.weight"]')
    lines += ["    ...", "    return {"]
    lines += [f'        "{name}": {_variable(name)},' for name in spec.outputs if "layers.N" not in name]
    lines += [f'        # and "{name}" for every layer' for name in spec.outputs if "layers.N" in name]
    return "\n".join([*lines, "    }"])


def _variable(name: str) -> str:
    return name.replace("self_attn.", "").replace("layers.N.", "").replace(".", "_")
