"""The rotary part of ``config.json``: ``rope_theta`` and ``rope_scaling`` (transformers 4), ``rope_parameters`` (5)."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

from llama_core.config import ROPE_SCALINGS, LlamaConfig, RopeScaling
from llama_core.errors import ConfigError
from llama_core.weights.config_keys import ROPE_HARMLESS, ROPE_KEYS, ROPE_REQUIRED
from llama_core.weights.json_values import Values
from llama_core.weights.strict_json import describe_value

_SECTIONS = ("rope_parameters", "rope_scaling")


def read_rope(config: Values) -> tuple[float, RopeScaling | None]:
    """``rope_theta`` and the scaling that a configuration states.

    Both spellings may be present if they agree. Unlike transformers, two statements that differ are an error here, and
    so is a section that has a factor but no type (transformers takes the type ``default`` and drops the factor).

    Raises:
        ConfigError: for unknown kinds and keys, missing, mistyped or contradicting values.
    """
    theta: float | None = config.positive("rope_theta", None)
    theta_key = "rope_theta"
    scalings: dict[str, RopeScaling | None] = {}
    for name in _SECTIONS:
        section = config.section(name)
        if section is None:
            continue
        inner = section.positive("rope_theta", None)
        if inner is not None and theta is not None and inner != theta:
            raise section.error(
                "rope_theta",
                f"{name}.rope_theta is {inner}, but {theta_key} is {theta}",
                f"the same in both, or only one of them ({theta})",
            )
        if inner is not None:
            theta, theta_key = inner, f"{name}.rope_theta"
        if set(section.values) - {"rope_theta"}:
            scalings[name] = _read_scaling(section, config)
    if len(set(scalings.values())) > 1:
        raise config.error(
            "rope_scaling",
            "rope_scaling and rope_parameters state different scalings",
            f"the same as rope_parameters: {scalings['rope_parameters']}",
            "delete the wrong one",
            actual=str(scalings["rope_scaling"]),
        )
    scaling = next(iter(scalings.values()), None)
    return 10000.0 if theta is None else theta, scaling


def write_rope(config: LlamaConfig) -> dict[str, Any] | None:
    """The ``rope_scaling`` section that means ``config.rope_scaling``; None for no scaling."""
    scaling = config.rope_scaling
    if scaling is None or scaling.kind == "default":
        return None
    values = {key: getattr(scaling, key) for key, kinds in ROPE_KEYS.items() if scaling.kind in kinds}
    if "original_max_position_embeddings" in values and values["original_max_position_embeddings"] is None:
        values["original_max_position_embeddings"] = config.max_position_embeddings
    optional = {field.name: field.default for field in fields(RopeScaling) if field.name not in ("kind", "factor")}
    required = ROPE_REQUIRED[scaling.kind]
    stated = {k: v for k, v in values.items() if k in required or k not in optional or v != optional[k]}
    return {"rope_type": scaling.kind, **stated}


def _read_scaling(section: Values, config: Values) -> RopeScaling | None:
    kind = _kind(section)
    for key, value in section.values.items():
        _check_key(section, key, value, kind, config)
    if kind == "default":
        return None
    for key in ROPE_REQUIRED[kind]:
        if key not in section:
            raise section.error(key, f"{section.prefix}{key} is missing", f"a value, because the type is {kind}")
    read = {key for key, kinds in ROPE_KEYS.items() if kind in kinds}
    original = section.count("original_max_position_embeddings", None) if kind in ("yarn", "llama3") else None
    values: dict[str, Any] = {"kind": kind, "original_max_position_embeddings": original}
    for key in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow", "attention_factor"):
        if key in read and key in section:
            values[key] = section.positive(key)
    for key in ("mscale", "mscale_all_dim"):  # zero means "not given" to transformers
        if key in read and section.values.get(key) not in (None, 0):
            values[key] = section.positive(key)
    if "truncate" in read:
        values["truncate"] = section.flag("truncate", True)
    if kind == "yarn":
        values["factor"] = _yarn_factor(section, config, original)
    try:
        return RopeScaling(**values)
    except ConfigError as e:
        e.file = str(section.file)
        e.key = section.prefix + str(e.key).removeprefix("rope_scaling.")
        raise


def _kind(section: Values) -> str:
    hint = "only these ways of stretching rotary frequencies are computed here"
    stated = {key: section.choice(key, ROPE_SCALINGS, None, hint) for key in ("rope_type", "type")}
    if None not in stated.values() and stated["rope_type"] != stated["type"]:
        raise section.error(
            "rope_type",
            f"{section.prefix}rope_type is {stated['rope_type']}, but {section.prefix}type is {stated['type']}",
            "the same in both, or only one of them",
        )
    kind = stated["rope_type"] or stated["type"]
    if kind is None:
        raise section.error(
            "rope_type",
            f"{section.prefix}rope_type is missing, so what the other values mean is not said",
            " | ".join(ROPE_SCALINGS),
            "a factor without a type would be dropped in silence",
        )
    return kind


def _check_key(section: Values, key: str, value: Any, kind: str, config: Values) -> None:
    if key in ("rope_type", "type", "rope_theta") or key in ROPE_HARMLESS or value is None:
        return
    name = section.prefix + key[:80]
    if key == "partial_rotary_factor" and value == 1 and not isinstance(value, bool):
        return
    if key not in ROPE_KEYS:
        raise section.error(
            key,
            f"{name} is {describe_value(value)}, which is not supported",
            f"only {', '.join(ROPE_KEYS)}",
            "the model needs a rotary step that this package does not have",
        )
    if kind == "dynamic" and key == "original_max_position_embeddings":
        if value != config.values.get("max_position_embeddings", 2048):
            raise section.error(
                key,
                f"{name} is {describe_value(value)} beside type dynamic, which engines read in different ways",
                "max_position_embeddings, or no such key",
                "transformers takes the length before stretching from max_position_embeddings",
            )
    elif kind == "default" and key == "factor" and value != 1:
        raise section.error(
            key, f"{name} is {describe_value(value)}, but the type is default", "a type, such as linear, or no factor"
        )


def _yarn_factor(section: Values, config: Values, original: int | None) -> float:
    """The factor; where it is null, the ratio of the lengths, as transformers computes it."""
    length = config.count("max_position_embeddings", 2048)
    factor = section.positive("factor", None)
    if factor is None:
        if original is None:
            raise section.error(
                "factor", f"{section.prefix}factor is missing", "a number ≥ 1, or original_max_position_embeddings"
            )
        return length / original
    if original is not None and original != length and length / original != factor:
        warnings.warn(
            f"{section.file}: {section.prefix}factor is {factor}, but max_position_embeddings / "
            f"original_max_position_embeddings is {length / original}; the factor is used (as in transformers 5)",
            UserWarning,
            stacklevel=2,
        )
    return factor
