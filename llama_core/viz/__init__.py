"""Figures: a function takes tensors and token strings and returns a matplotlib figure; it never runs a model."""

from importlib import import_module

#: Public name -> the module it lives in. Imported on first use: matplotlib is part of the extra "workbook".
_EXPORTS = {
    "show": "display",
    "png": "display",
    "alternative_text": "display",
    "score_pipeline": "attention_steps",
    "causal_masks": "masks",
    "head_sheet": "heads",
    "head_patterns": "heads",
    "rotary_pairs": "rotary",
    "frequency_map": "rotary",
    "rotary_layouts": "rotary",
    "rms_norm_distribution": "norms",
    "rms_norm_epsilon": "norms",
    "rms_norm_precision": "norms",
    "swiglu": "feed_forward",
    "residual_stream": "residual",
    "logit_lens": "lens",
    "next_token": "sampling",
    "cache_filling": "cache",
    "cache_bytes": "cache",
    "fingerprint": "differences",
    "error_map": "differences",
    "error_ladder": "ladder",
    "checkpoint_strip": "strip",
    "gate_checks": "gate",
    "noise_ladder": "ladder",
    "head_vectors": "projections",
    "attention_maps": "chosen_heads",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'llama_core.viz' has no attribute {name!r}")
    value = getattr(import_module(f"llama_core.viz.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])
