"""Cases: the inputs and weights that a checkpoint is tried on, the same bits in every language.

A case is asymmetric wherever symmetry would hide a mistake: K < H, D ≠ E/H, positions that do not start at 0, rows that
differ, norm weights and biases that are not constant. One case per checkpoint is square (K = H, D = E/H) because some
mistakes fit only there. Every tensor has its own seed, ``case seed · 1000 + number``; see ``random_bits``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from llama_core.checkpoints.arithmetic import round_to
from llama_core.checkpoints.families import family_of
from llama_core.checkpoints.random_bits import uniform, whole_numbers
from llama_core.config import LlamaConfig
from llama_core.names import PARAMETERS

Arrays = dict[str, np.ndarray]


class Stream:
    """Hands out tensors, each with the next seed."""

    def __init__(self, seed: int, dtype: str = "float32"):
        self.seed = seed
        self.dtype = dtype
        self.count = 0

    def _next(self) -> int:
        self.count += 1
        return self.seed * 1000 + self.count

    def uniform(self, *shape: int, std: float = 1.0) -> np.ndarray:
        return uniform(self._next(), shape, std)

    def ids(self, *shape: int, below: int) -> np.ndarray:
        return whole_numbers(self._next(), shape, below)

    def permutation(self, rows: int, count: int) -> np.ndarray:
        """Each row holds 0 … count - 1 in the order of that row's draws."""
        return np.argsort(whole_numbers(self._next(), (rows, count), 1 << 24), axis=-1, kind="stable")


def make_weights(config: LlamaConfig, stream: Stream, names: tuple[str, ...] = ("",), layers: bool = True) -> Arrays:
    """Parameters whose name contains any of ``names``, in the order of ``llama_core.names.PARAMETERS``.

    Matrices have standard deviation 1/√fan_in, embeddings 1/√E, biases 0.5; norm weights are 1 plus a draw of 0.3.
    ``layers=False`` gives one layer's parameters under their names within the layer.
    """
    switches = {
        "": True,
        "attention_bias": config.attention_bias,
        "qkv_bias": config.attention_bias or config.qkv_bias,
        "qk_norm": config.qk_norm,
        "mlp_bias": config.mlp_bias,
        "untied": not config.tie_word_embeddings,
    }
    sizes = {
        "V": config.vocab_size,
        "E": config.hidden_size,
        "F": config.intermediate_size,
        "HD": config.num_attention_heads * config.head_dim,
        "KD": config.num_key_value_heads * config.head_dim,
        "D": config.head_dim,
    }
    weights: Arrays = {}
    for n in range(config.num_hidden_layers if layers else 1):
        for p in PARAMETERS:
            name = p.name.format(n=n) if layers else p.name.removeprefix("layers.{n}.")
            in_layer = p.name.startswith("layers.")
            wanted = any(part in name for part in names) and switches[p.optional]
            if not wanted or name in weights or (not layers and not in_layer):
                continue
            shape = tuple(sizes[axis] for axis in p.axes.split())
            if name.endswith("norm.weight"):
                weights[name] = np.float32(1) + stream.uniform(*shape, std=0.3)
            else:
                weights[name] = stream.uniform(*shape, std=0.5 if len(shape) == 1 else shape[-1] ** -0.5)
    if layers and config.tie_word_embeddings and "embed_tokens.weight" in weights:
        weights["lm_head.weight"] = weights["embed_tokens.weight"]
    return weights


@dataclass(frozen=True)
class Case:
    """One set of inputs and weights.

    Attributes:
        name: unique within the checkpoint.
        about: what it is there to expose.
        config: hyper-parameters.
        seed: of the shipped values; ``reseeded`` gives the same case with other ones.
        make_inputs: from a stream to named inputs.
        weight_names: parts of parameter names that the case needs; empty for none.
        layers: whether weights are a whole model's.
        large: Llama-2 7B sizes; run by the gate, not used to prove the catalogue.
        float16_scale: multiplies the inputs in float16, whose largest number is 65504.
        given: inputs and weights that were not drawn (a real model's), instead of ``make_inputs``.
    """

    name: str
    about: str
    config: LlamaConfig
    seed: int
    make_inputs: Callable[[Stream], Arrays]
    weight_names: tuple[str, ...] = ()
    layers: bool = False
    large: bool = False
    float16_scale: float = 1.0
    given: tuple[Arrays, Arrays] | None = field(default=None, compare=False, repr=False)

    def values(self, dtype: str = "float32") -> tuple[Arrays, Arrays]:
        """Inputs and weights, rounded to a type, held as float64 (ids and positions as int64; a large
        case's weights as float32, which holds every type's values)."""
        # A large case is drawn anew: 7B's feed-forward layer would take half a gigabyte for ever.
        inputs, weights = self.given or (self._draw() if self.large else self._drawn)
        if dtype == "float16" and self.float16_scale != 1:
            inputs = {name: x * np.float32(self.float16_scale) for name, x in inputs.items()}
        return _rounded(inputs, dtype), _rounded(weights, dtype, as_float32=self.large)

    @property
    def family(self) -> str:
        """``llama``, or the neighbour whose step the configuration has."""
        return family_of(self.config)

    def reseeded(self, seed: int) -> Case:
        """The same case with other random values."""
        return replace(self, seed=seed)

    @cached_property
    def _drawn(self) -> tuple[Arrays, Arrays]:
        return self._draw()

    def _draw(self) -> tuple[Arrays, Arrays]:
        stream = Stream(self.seed)
        inputs = self.make_inputs(stream)
        weights = make_weights(self.config, stream, self.weight_names, self.layers) if self.weight_names else {}
        return inputs, weights


def _rounded(arrays: Arrays, dtype: str, as_float32: bool = False) -> Arrays:
    rounded: Arrays = {}
    for name, x in arrays.items():
        if x.dtype.kind != "f":
            rounded[name] = x.astype(np.int64)
        elif as_float32:
            rounded[name] = x if dtype == "float32" else _rounded_float32(x, dtype)
        else:
            rounded[name] = round_to(x.astype(np.float64), dtype)
    return rounded


def _rounded_float32(x: np.ndarray, dtype: str) -> np.ndarray:
    """``round_to`` row by row: a large matrix is never held in float64."""
    out = np.empty_like(x, dtype=np.float32)
    rows, result = x.reshape(-1, x.shape[-1]), out.reshape(-1, x.shape[-1])
    for start in range(0, len(rows), 16):
        result[start : start + 16] = round_to(rows[start : start + 16], dtype)
    return out


def positions_of(mask: np.ndarray, start: int = 0) -> np.ndarray:
    """The position of every real token, counted per row from ``start``; -1 for padding."""
    return np.where(mask != 0, np.cumsum(mask != 0, axis=1) - 1 + start, -1)


def left_padding(rows: int, length: int, *padded: int) -> np.ndarray:
    """An attention mask whose n-th row starts with ``padded[n]`` zeros."""
    mask = np.ones((rows, length), np.int64)
    for row, count in enumerate(padded):
        mask[row, :count] = 0
    return mask
