"""What a checkpoint's page says besides its results: the steps, their neighbours, the sizes of published models."""

from __future__ import annotations

from collections.abc import Callable

from llama_core.checkpoints.noise import DTYPES, FACTOR, generic, shipped_floors
from llama_core.checkpoints.procedures import FOUNDATION_STEPS
from llama_core.checkpoints.sampling_steps import SAMPLING_STEPS
from llama_core.checkpoints.specification import CHECKPOINTS, Checkpoint
from llama_core.checkpoints.steps import INPUT_STEPS, LAYER_STEPS, OUTPUT_STEPS, Step
from llama_core.config import LlamaConfig
from llama_core.presets import preset, preset_names

MODEL_STEPS = (*INPUT_STEPS, *LAYER_STEPS, *OUTPUT_STEPS)
#: Names under which a step reads what another step gives.
_SAME = {"layer_input": "output", "layer_output": "output"}


def _scale(config: LlamaConfig) -> str:
    return f"{config.head_dim**-0.5:.6f}"


def _last_frequency(config: LlamaConfig) -> str:
    return f"{config.rope_theta ** (2 / config.head_dim - 1):.4e}"


#: Checkpoint -> what of a configuration it is about: the column's title and what stands in it.
_SIZES: dict[str, dict[str, Callable[[LlamaConfig], object]]] = {
    "0": {
        "E": lambda c: c.hidden_size,
        "H": lambda c: c.num_attention_heads,
        "K": lambda c: c.num_key_value_heads,
        "D": lambda c: c.head_dim,
        "parameters": lambda c: f"{c.num_parameters:,}",
    },
    "1": {"E": lambda c: c.hidden_size, "ε": lambda c: f"{c.rms_norm_eps:g}"},
    "1B": {
        "D": lambda c: c.head_dim,
        "theta": lambda c: f"{c.rope_theta:,.0f}",
        "slowest pair, radians a position": _last_frequency,
        "scaling": lambda c: f"{c.rope_scaling.kind}, factor {c.rope_scaling.factor:g}" if c.rope_scaling else "none",
    },
    "2": {
        "E": lambda c: c.hidden_size,
        "rows of q_proj, H·D": lambda c: c.num_attention_heads * c.head_dim,
        "rows of k_proj and v_proj, K·D": lambda c: c.num_key_value_heads * c.head_dim,
    },
    "3": {
        "H": lambda c: c.num_attention_heads,
        "K": lambda c: c.num_key_value_heads,
        "query heads to a key/value head": lambda c: c.num_attention_heads // c.num_key_value_heads,
        "D": lambda c: c.head_dim,
        "√D": lambda c: f"{c.head_dim**0.5:.6f}",
        "scale 1/√D": _scale,
    },
    "4": {
        "H·D": lambda c: c.num_attention_heads * c.head_dim,
        "E": lambda c: c.hidden_size,
        "weights of o_proj": lambda c: f"{c.num_attention_heads * c.head_dim * c.hidden_size:,}",
    },
    "5": {
        "E": lambda c: c.hidden_size,
        "F": lambda c: c.intermediate_size,
        "weights of the three matrices": lambda c: f"{3 * c.hidden_size * c.intermediate_size:,}",
    },
    "7": {
        "L": lambda c: c.num_hidden_layers,
        "V": lambda c: c.vocab_size,
        "head": lambda c: "tied" if c.tie_word_embeddings else "its own",
        "parameters": lambda c: f"{c.num_parameters:,}",
    },
    "8": {
        "context": lambda c: f"{c.max_position_embeddings:,}",
        "bytes a token, half precision": lambda c: f"{c.kv_cache_bytes(1, bytes_per_value=2):,}",
    },
}


def published_sizes(checkpoint_id: str) -> tuple[list[str], list[list[str]]]:
    """Header and rows, a published model each; empty where the checkpoint depends on no size."""
    columns = _SIZES.get(checkpoint_id, {})
    if not columns:
        return [], []
    rows = [[name, *(str(value(preset(name))) for value in columns.values())] for name in preset_names()]
    return ["model", *columns], rows


def steps_of(spec: Checkpoint) -> list[Step]:
    """The steps that a checkpoint teaches, in the order of the dataflow."""
    if spec.id in ("0", "9"):
        return list(FOUNDATION_STEPS if spec.id == "0" else SAMPLING_STEPS)
    return [step for step in MODEL_STEPS if step.checkpoint == spec.id]


def computes(step: Step) -> str:
    """The first line of the reference's own words for a step."""
    words = (step.fn.__doc__ or "").strip().splitlines()
    return words[0].rstrip(".") if words else ""


def read_from(spec: Checkpoint) -> list[tuple[str, str, str]]:
    """Every input: name, axes, and the checkpoint whose step gives it ("" for what comes from outside)."""
    givers = {step.name: step.checkpoint for step in MODEL_STEPS}
    return [
        (name, axes, giver if (giver := givers.get(_SAME.get(name, name), "")) != spec.id else "")
        for name, axes in spec.inputs.items()
    ]


def read_by(spec: Checkpoint) -> list[tuple[str, str, list[str]]]:
    """Every required output: name, axes, and the steps of other checkpoints that read it, as "name (checkpoint)"."""
    found = []
    for name, axes in spec.outputs.items():
        short = generic(name).removeprefix("layers.N.")
        readers = [
            f"{step.name} ({step.checkpoint})"
            for step in MODEL_STEPS
            if short in [_SAME.get(read, read) for read in step.inputs] and step.checkpoint != spec.id
        ]
        found.append((name, axes, list(dict.fromkeys(readers))))
    return found


def tolerances_by_dtype(spec: Checkpoint) -> list[list[str]]:
    """Rows: an output, and its largest tolerance over all shipped cases in each type."""
    rows = []
    for output in [*spec.outputs, *spec.welcome]:
        floors = [
            [
                floor
                for case in shipped_floors()[dtype][spec.id].values()
                for name, floor in case.items()
                if generic(name) == output
            ]
            for dtype in DTYPES
        ]
        if any(any(of_dtype) for of_dtype in floors):
            rows.append([f"`{output}`", *(f"{FACTOR * max(of_dtype, default=0):.2g}" for of_dtype in floors)])
    return rows


def next_to(checkpoint_id: str) -> tuple[str | None, str | None]:
    """The checkpoints before and after."""
    ids = list(CHECKPOINTS)
    n = ids.index(checkpoint_id)
    return (ids[n - 1] if n else None, ids[n + 1] if n + 1 < len(ids) else None)
