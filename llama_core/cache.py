"""Checkpoint 8: keys and values of the positions so far, owned by the caller."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from llama_core.config import LlamaConfig
from llama_core.dtypes import as_device, as_torch_dtype, dtype_name
from llama_core.errors import CacheError, check_kind
from llama_core.layers.attention import LayerCache


class KVCache:
    """Rotated keys, and values, of up to ``max_length`` positions for each row of a batch.

    A forward pass with ``cache=`` writes its new positions behind those the cache holds and reads all of them. The
    new length counts only once every layer has written, so an interrupted pass leaves the cache as it was.

    Gradients flow through the pass that is run, not into the passes before it: the cache keeps their values, not what
    they were computed from, which would otherwise grow with every step outside ``torch.no_grad()``.

    Args:
        config: the model's hyper-parameters.
        batch_size: B. max_length: T, the capacity in positions, padding included.
        dtype: of keys and values; None for ``config.dtype``. Give the model's (``model.dtype``) if it was loaded in
            another one than it is stored in.
        device: where they lie; it must be the model's.

    Raises:
        CacheError: a size is no whole number above 0, or there is no memory for it. ConfigError: no such type.
        InputError: no such device.

    Attributes:
        keys, values: one tensor [B, K, T, D] per layer; they start as zeros.
        positions: [B, T], the absolute position in each slot, -1 for padding and for slots not yet written.
        length: how many slots are written, a plain integer on the host.

    Memory: ``2 · L · B · K · T · D`` values.
    """

    def __init__(
        self,
        config: LlamaConfig,
        batch_size: int = 1,
        max_length: int = 256,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ):
        for key, value in (("batch_size", batch_size), ("max_length", max_length)):
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise CacheError(
                    f"{key} is {value!r}, but must be at least 1", key=key, expected="a whole number > 0", actual=value
                )
        self.config, self.batch_size, self.max_length = config, batch_size, max_length
        self.dtype = as_torch_dtype(config.dtype if dtype is None else dtype)
        device = as_device(device)
        shape = (batch_size, config.num_key_value_heads, max_length, config.head_dim)
        layers = range(config.num_hidden_layers)
        try:
            self.keys = [torch.zeros(shape, dtype=self.dtype, device=device) for _ in layers]
            self.values = [torch.zeros(shape, dtype=self.dtype, device=device) for _ in layers]
            self.positions = torch.full((batch_size, max_length), -1, dtype=torch.long, device=device)
        except (RuntimeError, MemoryError, TypeError, OverflowError) as e:  # torch's out-of-memory is a RuntimeError
            needed = config.kv_cache_bytes(max_length, batch_size, self.dtype.itemsize)
            raise CacheError(
                f"there is no memory for a cache of {batch_size} rows of {max_length} positions",
                key="max_length",
                expected=f"{needed:,} bytes on {device}",
                actual=str(e).splitlines()[0][:200] or type(e).__name__,
                hint="ask for fewer positions: the prompt's and the new tokens' are enough",
            ) from e
        self.device = self.positions.device  # "cuda" is by now the one of several that it stands for
        self.length = 0
        self._fixed = False
        #: Whether every row holds positions 0, 1, 2 … without padding: then the mask follows from lengths alone.
        self.contiguous = True

    @property
    def nbytes(self) -> int:
        """Bytes of all keys and values."""
        return sum(t.nbytes for t in (*self.keys, *self.values))

    def next_positions(self) -> Int[Tensor, "B"]:
        """The position that the next real token of each row has."""
        if self.contiguous:
            return torch.full((self.batch_size,), self.length, device=self.device)
        return self.positions[:, : self.length].amax(-1) + 1

    def check_room(self, config: LlamaConfig, batch_size: int, new: int, dtype: torch.dtype, device: torch.device):
        """Raises CacheError, before anything is computed, when ``new`` positions of this batch cannot be added."""
        same = ("num_hidden_layers", "num_key_value_heads", "head_dim")
        for key in same:
            if getattr(self.config, key) != getattr(config, key):
                raise CacheError(
                    "the cache was made for another model",
                    key=key,
                    expected=getattr(config, key),
                    actual=getattr(self.config, key),
                    hint="make it with KVCache(model.config, ...)",
                )
        if batch_size != self.batch_size:
            raise CacheError(
                "the cache holds another number of rows", key="batch_size", expected=self.batch_size, actual=batch_size
            )
        if self.length + new > self.max_length:
            raise CacheError(
                f"{new} new positions do not fit behind {self.length} in a cache of {self.max_length}",
                key="max_length",
                expected=f"at least {self.length + new}",
                actual=self.max_length,
                hint="make a larger cache, or truncate or reset this one",
            )
        if self.dtype != dtype:
            raise CacheError(
                "the cache has another type than the model",
                key="dtype",
                expected=dtype_name(dtype),
                actual=dtype_name(self.dtype),
                hint="make it with KVCache(..., dtype=model.dtype)",
            )
        if self.device != device:
            raise CacheError(
                "the cache lies on another device than the model",
                key="device",
                expected=str(device),
                actual=str(self.device),
                hint="make it with KVCache(..., device=model.device)",
            )
        if self.positions.is_inference() and not torch.is_inference_mode_enabled():
            raise CacheError(
                "the cache was made in torch.inference_mode(), and nothing outside may write to it",
                key="cache",
                expected="a cache that was made outside, or a pass inside",
                actual="a cache of inference tensors",
                hint="make it outside; torch.no_grad() has no such rule",
            )

    def begin(self, positions: Int[Tensor, "B S"], read_all: bool = False) -> tuple[list[LayerCache], Tensor]:
        """Views for one forward pass over new positions, and the positions [B, T] in the slots it reads.

        ``read_all`` reads the whole capacity, whose shape is the same at every step (for compiled graphs).
        Nothing counts as written until ``commit``.
        """
        new = positions.shape[1]
        end = self.length + new
        self.positions[:, self.length : end] = positions
        self.positions[:, end:] = -1
        slots = torch.arange(self.length, end, device=self.device)
        layers = zip(self.keys, self.values, strict=True)
        if read_all:  # the tensors themselves, which a graph may know by their address
            self._fix_addresses()
            return [LayerCache(k, v, slots) for k, v in layers], self.positions
        return [LayerCache(k[:, :, :end], v[:, :, :end], slots) for k, v in layers], self.positions[:, :end]

    def _fix_addresses(self) -> None:
        """Tell the compiler that keys and values stay where they are, so that a CUDA graph may write to them."""
        if self.device.type == "cuda" and not self._fixed:
            for tensor in (*self.keys, *self.values):
                torch._dynamo.mark_static_address(tensor, guard=False)
            self._fixed = True

    def commit(self, new: int, contiguous: bool) -> None:
        """Count ``new`` more slots as written; called once every layer has written them."""
        self.contiguous = self.contiguous and contiguous  # first: an interrupt between the two lines does no harm
        self.length += new
        for tensor in (*self.keys, *self.values):
            if tensor.requires_grad:
                tensor.detach_()

    def truncate(self, length: int) -> None:
        """Forget all but the first ``length`` slots, e.g. to try another continuation."""
        if not isinstance(length, int) or isinstance(length, bool) or not 0 <= length <= self.length:
            raise CacheError(
                f"cannot truncate {self.length} slots to {length!r}",
                key="length",
                expected=f"0 to {self.length}",
                actual=length,
            )
        self.length = length
        self.contiguous = self.contiguous or length == 0

    def reset(self) -> None:
        """Forget everything; the memory is kept."""
        self.truncate(0)

    def __repr__(self) -> str:
        return f"KVCache({self.length} of {self.max_length} positions, batch {self.batch_size}, {self.nbytes:,} bytes)"


def check_is_cache(cache: object) -> None:
    """Raises CacheError for anything but a cache or None."""
    check_kind(cache, KVCache, "cache", CacheError, "make it with KVCache(model.config, ...)")
