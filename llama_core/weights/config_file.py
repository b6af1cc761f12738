"""``config.json`` and ``generation_config.json`` of a Hugging Face folder, read strictly and written for transformers.

What a key of ``config.json`` may hold is decided by the tables of ``config_keys``:

- keys that become fields of ``LlamaConfig`` are read and checked;
- keys that are known to change nothing are passed over;
- keys that are known to change the result are refused by name, unless their value switches them off;
- a key that looks like a misspelt one is refused;
- for any other key a ``UserWarning`` says that it is not used. It is no error, because the reference implementation
  (transformers, ``model_type: llama``) does not know it either, and people put notes of their own into this file;
  code of their own (``auto_map``) is refused.
"""

from __future__ import annotations

import difflib
import json
import warnings
from os import PathLike
from pathlib import Path
from typing import Any

from llama_core.config import DTYPES, LlamaConfig
from llama_core.errors import ConfigError
from llama_core.weights import config_keys as keys
from llama_core.weights.folder import model_folder, read_small_file
from llama_core.weights.json_values import Values
from llama_core.weights.rope_section import read_rope, write_rope
from llama_core.weights.strict_json import describe_value, parse_object

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
MAX_BYTES = 2_000_000


def read_config(folder: str | PathLike[str]) -> LlamaConfig:
    """The hyper-parameters that a Hugging Face folder states.

    ``config.json`` may be spelt as transformers 4 or 5 write it, and be a Llama's, a Mistral's, a Qwen2's or a Qwen3's.
    Where a key is absent, the default of transformers holds, if it has one that is right for every such model: for a
    Llama ``max_position_embeddings`` 2048, ``rope_theta`` 10000, no biases, untied head, begin token 1, end token 2.
    Sizes and ``rms_norm_eps`` must be given. End, begin and padding
    ids in ``generation_config.json`` take precedence, as in transformers.

    Args:
        folder: a model folder, or ``"stories"``.

    Raises:
        ConfigError: with file, key, expected and actual value.
        WeightsError: when there is no such folder.
    """
    folder = model_folder(folder)
    config = Values(_read_object(folder, CONFIG, required=True), folder / CONFIG)
    generation = Values(_read_object(folder, GENERATION_CONFIG, required=False), folder / GENERATION_CONFIG)
    kind = _kind(config)
    _check_keys(config, kind)
    default: dict[str, Any] = dict(max_position_embeddings=2048, head_dim=None, bos_token_id=1, eos_token_id=(2,))
    default |= kind.defaults
    rope_theta, rope_scaling = read_rope(config)
    fields: dict[str, Any] = {
        key: config.count(key)
        for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    }
    for key in kind.required:
        config.count(key)
    bos = config.token_id("bos_token_id") if "bos_token_id" in config.values else default["bos_token_id"]
    fields |= dict(
        num_key_value_heads=config.count("num_key_value_heads", None),
        head_dim=config.count("head_dim", default["head_dim"]),
        max_position_embeddings=config.count("max_position_embeddings", default["max_position_embeddings"]),
        rms_norm_eps=config.positive("rms_norm_eps"),
        rope_theta=rope_theta,
        rope_scaling=rope_scaling,
        rope_layout="half",
        **{key: config.flag(key, False) for key in kind.biases},
        **kind.fields,
        sliding_window=_sliding_window(config, kind),
        tie_word_embeddings=config.flag("tie_word_embeddings", False),
        dtype=_dtype(config),
        bos_token_id=generation.token_id("bos_token_id", bos),
        eos_token_ids=(generation if "eos_token_id" in generation else config).token_ids(
            "eos_token_id", default["eos_token_id"]
        ),
        pad_token_id=generation.token_id("pad_token_id", config.token_id("pad_token_id")),
    )
    _check_token_ids(fields, config, generation)
    try:
        return LlamaConfig(**fields)
    except ConfigError as e:
        e.file = str(folder / CONFIG)
        e.actual = "nothing" if e.actual is None else e.actual
        raise


def read_architecture(folder: str | PathLike[str]) -> str:
    """The class of transformers that computes a folder's model: ``LlamaForCausalLM``, ``MistralForCausalLM``, ..."""
    folder = model_folder(folder)
    return _kind(Values(_read_object(folder, CONFIG, required=True), folder / CONFIG)).architectures[0]


def write_config(config: LlamaConfig, folder: Path) -> None:
    """Write both files in the older spelling (``rope_scaling``, ``torch_dtype``), which transformers 4 and 5 both read.

    Raises:
        ConfigError: when the rotary layout is not the one that such a folder means.
        OSError: when they cannot be written.
    """
    if config.rope_layout != "half":
        raise ConfigError(
            f"rope_layout is {config.rope_layout!r}, which a Hugging Face folder cannot state",
            key="rope_layout",
            expected="half",
            actual=config.rope_layout,
            hint="permute the rows of q_proj and k_proj, and set rope_layout='half'",
        )
    eos = config.eos_token_ids
    ids = dict(
        bos_token_id=config.bos_token_id,
        eos_token_id=None if not eos else eos[0] if len(eos) == 1 else list(eos),
        pad_token_id=config.pad_token_id,
    )
    model_type = _model_type(config)
    kind = keys.KINDS[model_type]
    content: dict[str, Any] = dict(
        architectures=[kind.architectures[0]],
        model_type=model_type,
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        hidden_act="silu",
        max_position_embeddings=config.max_position_embeddings,
        rms_norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
        rope_scaling=write_rope(config),
        **{key: getattr(config, key) for key in kind.biases},
        tie_word_embeddings=config.tie_word_embeddings,
        torch_dtype=config.dtype,
        **ids,
    )
    if model_type == "mistral":
        content["sliding_window"] = config.sliding_window
    elif kind.harmless:
        content["use_sliding_window"] = False
    for name, values in ((CONFIG, content), (GENERATION_CONFIG, ids)):
        (folder / name).write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def _read_object(folder: Path, name: str, required: bool) -> dict[str, Any]:
    if not required and not (folder / name).exists() and not (folder / name).is_symlink():
        return {}
    if required and not (folder / name).exists() and (folder / "params.json").exists():
        raise ConfigError(
            "config.json is missing, but params.json is there: this is a folder in Meta's format",
            file=folder / name,
            expected="a Hugging Face folder",
            actual="a Meta folder",
            hint="convert it first, or download the Hugging Face form of the model",
        )
    return parse_object(read_small_file(folder, name, MAX_BYTES, ConfigError), folder / name, ConfigError)


def _kind(config: Values) -> keys.Kind:
    """What kind of model it is, by the model_type and, where it is given, the architecture; refuse all others."""
    hint = f"only {', '.join(keys.KINDS)} models are computed here"
    architectures = config.values.get("architectures")
    model_type = None
    if "model_type" in config or not architectures:
        model_type = config.choice("model_type", tuple(keys.KINDS), hint=hint)
    if architectures is not None:
        named = isinstance(architectures, list) and all(isinstance(name, str) for name in architectures)
        fits = {
            name: kind
            for name, kind in keys.KINDS.items()
            if named and model_type in (None, name) and set(architectures) <= set(kind.architectures)
        }
        if not fits:
            found = json.dumps(architectures)[:200]
            expected = f'["{keys.KINDS[model_type or "llama"].architectures[0]}"]'
            raise config.error("architectures", f"architectures is {found}", expected, hint, actual=found)
        model_type = model_type or next(iter(fits))
    config.choice("hidden_act", keys.ACTIVATION_NAMES, "silu")
    return keys.KINDS[str(model_type)]


def _sliding_window(config: Values, kind: keys.Kind) -> int | None:
    """The window where the kind has one; an absent key stands for transformers' default, null for none."""
    if "sliding_window" not in kind.defaults:
        return None
    if "sliding_window" in config.values and config.values["sliding_window"] is None:
        return None
    return config.count("sliding_window", kind.defaults["sliding_window"])


def _model_type(config: LlamaConfig) -> str:
    """The kind whose file can say what this configuration computes.

    Raises:
        ConfigError: when there is none.
    """
    extra = {key: getattr(config, key) for key in ("qkv_bias", "qk_norm", "sliding_window") if getattr(config, key)}
    biases = {key for key in ("attention_bias", "mlp_bias") if getattr(config, key)}
    for name, kind in keys.KINDS.items():
        says = dict(kind.fields) | ({"sliding_window": config.sliding_window} if name == "mistral" else {})
        if says == extra and biases <= set(kind.biases):
            return name
    raise ConfigError(
        f"no model_type stands for {', '.join(sorted({*extra, *biases}))} together",
        key=", ".join(extra),
        expected="the steps of one of: " + ", ".join(keys.KINDS),
        actual=", ".join(sorted({*extra, *biases})),
    )


def _check_keys(config: Values, kind: keys.Kind) -> None:
    """Refuse or report every key that is neither read nor known to be harmless."""
    for key, value in config.values.items():
        if key in ("attention_bias", "mlp_bias") and key not in kind.biases:
            _check_switched_off(config, key, value, (None, False))
        if key == "layer_types" and "sliding_window" in kind.defaults:
            _check_switched_off(config, key, value, (None,))  # there every layer has the window, or none
        if key in keys.READ or key in keys.HARMLESS or key in kind.harmless:
            continue
        if key == "sliding_window" and key in kind.defaults:
            continue
        if key in keys.REFUSED_UNLESS:
            _check_switched_off(config, key, value, keys.REFUSED_UNLESS[key])
            continue
        similar = difflib.get_close_matches(key[:80], sorted(keys.READ), n=1, cutoff=0.9)
        if similar:
            raise config.error(
                key,
                f"{key[:80]} is no known key, but much like {similar[0]}",
                similar[0],
                f"rename it to {similar[0]}, or remove it",
            )
        if value not in (None, False, [], {}, ""):
            warnings.warn(
                f"{config.file}: {key[:80]} is not used (it is {describe_value(value)}); "
                "no Llama of transformers reads it either",
                UserWarning,
                stacklevel=4,
            )


def _check_switched_off(config: Values, key: str, value: Any, neutral: tuple[Any, ...]) -> None:
    if keys.ALL_FULL_ATTENTION in neutral and isinstance(value, list) and set(map(str, value)) <= {"full_attention"}:
        return
    if not any(type(value) is type(n) and value == n or _both_numbers(value, n) for n in neutral):
        allowed = " or ".join(
            "every entry full_attention" if n == keys.ALL_FULL_ATTENTION else describe_value(n) for n in neutral
        )
        raise config.error(
            key,
            f"{key} is {describe_value(value)}: it changes what the model computes and is not supported",
            f"{allowed}, or no such key",
            "the model needs a step that this package does not have",
        )


def _both_numbers(a: Any, b: Any) -> bool:
    return all(isinstance(x, int | float) and not isinstance(x, bool) for x in (a, b)) and a == b


def _dtype(config: Values) -> str:
    """What the weights are stored in: ``torch_dtype`` (transformers 4) or ``dtype`` (5), float32 if neither."""
    found = {}
    for key in ("torch_dtype", "dtype"):
        value = config.values.get(key)
        name = value.removeprefix("torch.") if isinstance(value, str) else value
        found[key] = Values({key: name}, config.file).choice(key, DTYPES, None)
    if None not in found.values() and found["torch_dtype"] != found["dtype"]:
        raise config.error(
            "dtype",
            f"dtype is {found['dtype']}, torch_dtype is {found['torch_dtype']}",
            "the same in both",
            "delete one of the two",
        )
    return found["dtype"] or found["torch_dtype"] or "float32"


def _check_token_ids(fields: dict[str, Any], config: Values, generation: Values) -> None:
    """Ids must lie in the vocabulary. The error names the file that states the id; a default that does not fit goes."""
    for key, field in (
        ("bos_token_id", "bos_token_id"),
        ("eos_token_id", "eos_token_ids"),
        ("pad_token_id", "pad_token_id"),
    ):
        ids = fields[field] if field == "eos_token_ids" else (fields[field],)
        beyond = [i for i in ids if i is not None and i >= fields["vocab_size"]]
        source = generation if key in generation else config
        if beyond and key in source:
            raise source.error(
                key,
                f"{key} is {beyond[0]}, beyond the vocabulary",
                f"a token id below vocab_size ({fields['vocab_size']})",
                actual=str(beyond[0]),
            )
        if beyond:
            fields[field] = () if field == "eos_token_ids" else None
