"""``params.json`` of a Meta folder: hyper-parameters under Meta's names, and what they leave to be derived.

Source of names and defaults: ``ModelArgs`` in Meta's repositories llama (``llama/model.py``) and llama-models
(``models/llama3/args.py``).
"""

from __future__ import annotations

import difflib
import json
import warnings
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from llama_core.config import LlamaConfig, RopeScaling
from llama_core.errors import ConfigError
from llama_core.presets import preset
from llama_core.weights.folder import read_small_file
from llama_core.weights.json_values import Values
from llama_core.weights.strict_json import describe_value, parse_object

PARAMS = "params.json"
MAX_BYTES = 2_000_000

_READ = frozenset(
    """
    dim n_layers n_heads n_kv_heads head_dim hidden_dim vocab_size multiple_of ffn_dim_multiplier norm_eps rope_theta
    use_scaled_rope rope_scaling_factor rope_high_freq_factor max_seq_len
    """.split()
)
_HARMLESS = frozenset({"max_batch_size", "model_parallel_size", "dropout"})
#: Keys that change the result, with the values that switch them off. Vision and mixture models, quantised weights.
_REFUSED_UNLESS: dict[str, tuple[Any, ...]] = {
    "quantization_args": (None,),
    "lora_args": (None,),
    "vision_chunk_size": (None, -1),
    "vision_num_cross_attention_layers": (None, -1),
    "vision_args": (None,),
    "moe": (None,),
    "moe_args": (None,),
    "num_experts": (None, 0),
    "sliding_window": (None,),
    "use_qk_norm": (None, False),
    "attention_chunk_size": (None,),
    "nope_layer_interval": (None,),
}

#: Llama 3's own ids; every vocabulary before it begins with 1 and ends with 2.
_LLAMA_3_VOCABULARY = 128256
_LLAMA_3_IDS = dict(bos_token_id=128000, eos_token_ids=(128001, 128008, 128009))


@dataclass(frozen=True)
class MetaParams:
    """``params.json``, read.

    Attributes:
        fields: what ``LlamaConfig`` takes, but for ``vocab_size`` and the token ids.
        vocab_size: as stated; None for -1, where the embedding says it.
        file: where it was read.
    """

    fields: dict[str, Any]
    vocab_size: int | None
    file: Path

    def config(self, vocab_size: int, dtype: str) -> LlamaConfig:
        """The configuration, once the weights have told the vocabulary's size and the type that they have."""
        ids: dict[str, Any] = _LLAMA_3_IDS if vocab_size == _LLAMA_3_VOCABULARY else {}
        if vocab_size <= 2:
            ids = dict(bos_token_id=None, eos_token_ids=())
        try:
            return LlamaConfig(**self.fields, vocab_size=vocab_size, dtype=dtype, **ids)
        except ConfigError as e:
            e.file = str(self.file)
            e.actual = "nothing" if e.actual is None else e.actual
            raise


def read_params(folder: str | PathLike[str]) -> MetaParams:
    """The hyper-parameters that ``params.json`` states, with what follows from them.

    - Feed-forward size: ``F = ⌈⌊m ⌊8E/3⌋⌋ / multiple_of⌉ · multiple_of`` with m = ``ffn_dim_multiplier`` (1).
    - K is H where ``n_kv_heads`` is absent.
    - ``use_scaled_rope`` means the scaling of Llama 3.1, a factor of 8; of Llama 3.2, 32, for a model of its sizes.
    - The context length is not part of Meta's format. ``max_seq_len`` is read where it stands. Otherwise it is that of
      the family which the other values tell: 131072 with scaled rotary frequencies, 8192 for theta 500000, 16384 for
      theta 1000000 (Code Llama), 2048 for an epsilon of 1e-6 (the first Llama), else 4096.
    - Token ids are those of Llama 3 for its vocabulary of 128256, else begin 1 and end 2.

    Raises:
        ConfigError: with file, key, expected and actual value.
    """
    file = Path(folder) / PARAMS
    params = Values(
        parse_object(read_small_file(Path(folder), PARAMS, MAX_BYTES, ConfigError), file, ConfigError), file
    )
    _check_keys(params)
    dim, heads = params.count("dim"), params.count("n_heads")
    eps = params.positive("norm_eps")
    theta = params.positive("rope_theta", 10000.0)
    layers = params.count("n_layers")
    scaling = _scaling(params, dim, layers)
    vocab_size = None if params.values.get("vocab_size", -1) == -1 else params.count("vocab_size")
    return MetaParams(
        dict(
            hidden_size=dim,
            intermediate_size=_feed_forward_size(params, dim),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=params.count("n_kv_heads", None),
            head_dim=params.count("head_dim", None),
            max_position_embeddings=params.count("max_seq_len", family_context(scaling, theta, eps)),
            rms_norm_eps=eps,
            rope_theta=theta,
            rope_scaling=scaling,
            rope_layout="half",
        ),
        vocab_size,
        file,
    )


def feed_forward_size(dim: int, multiple_of: int, multiplier: float | None = None) -> int:
    """F as Meta's feed-forward layer computes it; the multiplication is in floating point there too."""
    size = int(2 * 4 * dim / 3)
    if multiplier is not None:
        size = int(multiplier * size)
    return multiple_of * ((size + multiple_of - 1) // multiple_of)


def family_context(scaling: RopeScaling | None, theta: float, eps: float) -> int:
    """The context length of the published models with these values; see `read_params`."""
    if scaling is not None:
        return 131072
    if theta != 10000.0:
        return {500000.0: 8192, 1000000.0: 16384}.get(theta, 4096)
    return 2048 if eps == 1e-6 else 4096


def write_params(config: LlamaConfig, folder: Path) -> list[str]:
    """Write ``params.json``; returns what it cannot say, in sentences.

    Raises:
        ConfigError: when the model computes something that Meta's format has no word for.
        OSError: when it cannot be written.
    """
    _check_expressible(config)
    values: dict[str, Any] = dict(
        dim=config.hidden_size,
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        n_kv_heads=config.num_key_value_heads,
        vocab_size=config.vocab_size,
        **_feed_forward_params(config),
        norm_eps=config.rms_norm_eps,
        rope_theta=config.rope_theta,
    )
    scaling = _plain(config.rope_scaling)
    if scaling is not None:
        values["use_scaled_rope"] = True
        if scaling.factor != _scaled(None, config.hidden_size, config.num_hidden_layers).factor:
            values["rope_scaling_factor"] = scaling.factor
        if scaling.high_freq_factor != 4.0:
            values["rope_high_freq_factor"] = scaling.high_freq_factor
    lost = []
    if config.max_position_embeddings != family_context(scaling, config.rope_theta, config.rms_norm_eps):
        values["max_seq_len"] = config.max_position_embeddings
        lost.append(
            f"the context of {config.max_position_embeddings} tokens stands in params.json as max_seq_len, which is no "
            "part of Meta's format: engines that do not know it take their own"
        )
    (folder / PARAMS).write_text(json.dumps(values, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    back = read_params(folder).config(config.vocab_size, config.dtype)
    ids = [
        key for key in ("bos_token_id", "eos_token_ids", "pad_token_id") if getattr(back, key) != getattr(config, key)
    ]
    return lost + [
        f"{key} {_shown(getattr(config, key))} is not stated: it reads back as {_shown(getattr(back, key))}"
        for key in ids
    ]


def _check_expressible(config: LlamaConfig) -> None:
    def refuse(key: str, expected: str, actual: Any) -> ConfigError:
        return ConfigError(
            f"{key} is {actual}, which a Meta folder cannot say: other engines would compute something else",
            key=key,
            expected=expected,
            actual=actual,
            hint="keep the Hugging Face form of this model",
        )

    for key in ("attention_bias", "mlp_bias", "qkv_bias", "qk_norm"):
        if getattr(config, key):
            raise refuse(key, "false", "true")
    if config.sliding_window is not None:
        raise refuse("sliding_window", "none", config.sliding_window)
    if config.head_dim * config.num_attention_heads != config.hidden_size:
        raise refuse("head_dim", f"{config.hidden_size} / {config.num_attention_heads}", config.head_dim)
    scaling = _plain(config.rope_scaling)
    if scaling is None:
        return
    fixed = (scaling.kind, scaling.low_freq_factor, scaling.original_max_position_embeddings)
    if fixed != ("llama3", 1.0, 8192):
        raise refuse(
            "rope_scaling",
            "none, or llama3 with low_freq_factor 1 and original_max_position_embeddings 8192",
            f"{scaling.kind} with low_freq_factor {scaling.low_freq_factor:g} and "
            f"original_max_position_embeddings {scaling.original_max_position_embeddings}",
        )


def _feed_forward_params(config: LlamaConfig) -> dict[str, Any]:
    """``multiple_of``, and ``ffn_dim_multiplier`` if it takes one, that give F: the simplest that do."""
    dim, wanted = config.hidden_size, config.intermediate_size
    powers = [1 << n for n in range(12, -1, -1) if wanted % (1 << n) == 0]
    for multiple in [256, *powers]:
        if feed_forward_size(dim, multiple) == wanted:
            return {"multiple_of": multiple}
    exact = wanted / int(2 * 4 * dim / 3)
    for digits in range(1, 17):
        for multiple in powers:
            if feed_forward_size(dim, multiple, round(exact, digits)) == wanted:
                return {"multiple_of": multiple, "ffn_dim_multiplier": round(exact, digits)}
    # Half of F rounds up to F whatever the last digits do.
    return {"multiple_of": wanted, "ffn_dim_multiplier": exact / 2}


def _feed_forward_size(params: Values, dim: int) -> int:
    stated = params.count("hidden_dim", None)
    if stated is not None:  # as Mistral's files have it
        return stated
    multiple, multiplier = params.count("multiple_of"), params.positive("ffn_dim_multiplier", None)
    if multiplier is not None and multiplier > 1000:
        raise params.error(
            "ffn_dim_multiplier", f"ffn_dim_multiplier is {multiplier:g}", "a number near 1, such as 1.3"
        )
    return feed_forward_size(dim, multiple, multiplier)


def _scaling(params: Values, dim: int, layers: int) -> RopeScaling | None:
    if not params.flag("use_scaled_rope", False):
        for key in ("rope_scaling_factor", "rope_high_freq_factor"):
            if key in params:
                raise params.error(key, f"{key} is given, but use_scaled_rope is not true", "use_scaled_rope: true")
        return None
    try:
        return _scaled(
            params.positive("rope_scaling_factor", None), dim, layers, params.positive("rope_high_freq_factor", 4.0)
        )
    except ConfigError as e:
        e.file = str(params.file)
        raise


def _scaled(factor: float | None, dim: int, layers: int, high: float = 4.0) -> RopeScaling:
    small = [preset(name) for name in ("llama-3.2-1b", "llama-3.2-3b")]
    published = 32.0 if any((p.hidden_size, p.num_hidden_layers) == (dim, layers) for p in small) else 8.0
    return RopeScaling("llama3", factor or published, 8192, low_freq_factor=1.0, high_freq_factor=high)


def _plain(scaling: RopeScaling | None) -> RopeScaling | None:
    return None if scaling is None or scaling.kind == "default" else scaling


def _check_keys(params: Values) -> None:
    for key, value in params.values.items():
        if key in _READ or key in _HARMLESS or (key == "vision_max_num_chunks" and value in (None, 4)):
            continue
        if key in _REFUSED_UNLESS:
            if value not in _REFUSED_UNLESS[key]:
                raise params.error(
                    key,
                    f"{key} is {describe_value(value)}: it changes what the model computes and is not supported",
                    " or ".join(describe_value(n) for n in _REFUSED_UNLESS[key]),
                    "the model needs a step that this package does not have",
                )
            continue
        similar = difflib.get_close_matches(key[:80], sorted(_READ), n=1, cutoff=0.85)
        if similar:
            raise params.error(key, f"{key[:80]} is no known key, but much like {similar[0]}", similar[0])
        warnings.warn(f"{params.file}: {key[:80]} is not used", UserWarning, stacklevel=3)


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
