"""Checkpoint 7: the full model, from token ids to logits."""

from __future__ import annotations

from os import PathLike
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from llama_core.cache import KVCache, check_is_cache
from llama_core.capture import NO_TAP, NoTap, Tap
from llama_core.config import LlamaConfig
from llama_core.dtypes import as_torch_dtype
from llama_core.errors import InputError
from llama_core.layers.attention import IMPLEMENTATIONS, LayerCache, token_positions, visible_positions
from llama_core.layers.block import Block
from llama_core.layers.linear import Embedding, Linear
from llama_core.layers.rms_norm import RMSNorm
from llama_core.layers.rope import RoPE


class Llama(nn.Module):
    """Embedding, L blocks, final norm, head: ids [B, S] -> logits [B, S, V].

    Parameters carry the names of Hugging Face files without the leading ``model.``. ``Llama(config)`` has no weights
    yet: its parameters are on the meta device, good for counting and shapes. Weights come from ``from_pretrained``,
    ``load_state_dict(tensors, assign=True)`` or, for tests and benchmarks, ``Llama.random``.

    Args:
        config: hyper-parameters.
        attention: ``fused`` (fast) or ``eager`` (one visible step after the other).
    """

    def __init__(self, config: LlamaConfig, attention: str = "fused"):
        super().__init__()
        self.config = config
        self.captures: tuple = ()
        self._decode_graph = None
        with torch.device("meta"):
            self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
            self.layers = nn.ModuleList(Block(config, attention) for _ in range(config.num_hidden_layers))
            self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
            self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        with torch.device("cpu"):
            self.rope = RoPE(
                config.head_dim,
                config.rope_theta,
                config.rope_layout,
                config.rope_scaling,
                config.max_position_embeddings,
            )
        self._tie()

    @classmethod
    def from_pretrained(
        cls, folder: str | PathLike, dtype: str | torch.dtype | None = None, device: str | torch.device = "cpu"
    ) -> Llama:
        """A trained model from a model folder, or the embedded one under the name ``"stories"``.

        Args:
            folder: a Llama folder, Hugging Face's (config.json, safetensors) or Meta's (params.json,
                consolidated.00.pth), or ``"stories"``.
            dtype: convert the weights to this type; None keeps the type of the files.
            device: where the weights go.

        Raises:
            ConfigError, WeightsError: naming the file, the key, what was expected and what was found.
        """
        from llama_core.weights import load_model

        return load_model(folder, dtype=dtype, device=device)

    @classmethod
    def random(
        cls,
        config: LlamaConfig,
        seed: int = 0,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "cpu",
    ) -> Llama:
        """A model with random weights, for tests and benchmarks.

        Matrices have standard deviation 1/√fan_in and embeddings 1/√E, so that activations keep their size; norms are
        uniform in [0.5, 1.5] and biases have standard deviation 0.1, so that no mistake hides behind a constant.
        """
        model = cls(config)
        # The same numbers wherever they go, and whatever torch's default type and device are.
        drawn: dict[str, Any] = dict(generator=torch.Generator().manual_seed(seed), dtype=torch.float32, device="cpu")
        dtype = as_torch_dtype(dtype or config.dtype)
        tensors = {}
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                value = torch.rand(parameter.shape, **drawn) + 0.5
            else:
                std = 0.1 if name.endswith("bias") else parameter.shape[-1] ** -0.5
                value = torch.randn(parameter.shape, **drawn) * std
            tensors[name] = value.to(device=device, dtype=dtype)
        if config.tie_word_embeddings:
            tensors["lm_head.weight"] = tensors["embed_tokens.weight"]
        model.load_state_dict(tensors, assign=True)
        return model.to(device)

    def save_pretrained(self, folder: str | PathLike) -> None:
        """Write a Hugging Face folder (config.json, generation_config.json, safetensors), whole or not at all."""
        from llama_core.weights import save_model

        save_model(self, folder)

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed_tokens.weight.dtype

    @property
    def attention(self) -> str:
        """``fused`` or ``eager``; may be set at any time."""
        return self.layers[0].self_attn.attention.implementation

    @attention.setter
    def attention(self, implementation: str) -> None:
        if implementation not in IMPLEMENTATIONS:
            raise InputError(
                f"there is no attention implementation {implementation!r}",
                key="attention",
                expected=" | ".join(IMPLEMENTATIONS),
                actual=implementation,
            )
        for block in self.layers:
            block.self_attn.attention.implementation = implementation

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        if assign:  # assigned weights may lie on another device; the rotary table is no weight, and follows them
            self.rope.to(self.device)
        self._tie()
        return result

    def _tie(self) -> None:
        if self.config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight

    def compile_decode(self, **options) -> None:
        """Compile the decode step (one new position per row, with a cache) as one graph with ``torch.compile``.

        ``options`` go to ``torch.compile``. Compiling happens at the first step. The compiled step reads the cache's
        whole capacity under a mask, so that its shapes are the same at every step; a cache of another capacity is
        compiled for once more, and then for all capacities. Prefill, and any pass that ``capture`` watches, run
        uncompiled. The model stays compiled.

        On CUDA, without ``options``, the compiled step is recorded as a CUDA graph too (``mode="reduce-overhead"``),
        one for each cache: launching its kernels one by one takes longer than running them.
        """
        if not options and self.device.type == "cuda":
            options = {"mode": "reduce-overhead"}
        self._decode_graph = torch.compile(self.compute, fullgraph=True, **options)

    @property
    def decode_is_compiled(self) -> bool:
        """Whether ``compile_decode`` was called."""
        return self._decode_graph is not None

    def forward(
        self,
        input_ids: Int[Tensor, "B S"],
        *,
        position_ids: Int[Tensor, "B S"] | None = None,
        attention_mask: Tensor | None = None,
        cache: KVCache | None = None,
        last_only: bool = False,
    ) -> Float[Tensor, "B Q V"]:
        """Logits for the token after each position.

        Args:
            input_ids: token ids.
            position_ids: absolute positions; None counts each row's real tokens, from where its cache ends.
            attention_mask: [B, past + S], 1 for real tokens and 0 for padding, on either side; past is
                ``cache.length``. Logits at padding mean nothing.
            cache: keys and values of earlier positions, extended by this pass.
            last_only: logits of the last position only, [B, 1, V]; saves the head's work in prefill.

        Raises:
            InputError, CacheError: before anything is computed.
        """
        batch, new = self._check_ids(input_ids)
        check_is_cache(cache)
        past = cache.length if cache else 0
        if cache:
            cache.check_room(self.config, batch, new, self.dtype, self.device)
        real = self._check_mask(attention_mask, batch, past, new)
        contiguous = real is None and position_ids is None
        if position_ids is None:
            start = cache.next_positions() if cache else torch.zeros(batch, dtype=torch.long, device=self.device)
            ones = torch.ones(batch, new, dtype=torch.bool, device=self.device)
            positions = token_positions(ones if real is None else real[:, past:], start)
        else:
            positions = self._check_positions(position_ids, batch, new)
            positions = positions if real is None else positions.masked_fill(~real[:, past:], -1)

        compute, read_all = self.compute, False
        if self._decode_graph and cache and new == 1 and not self.captures:
            compute, read_all = self._decode_graph, True
        views, slot_positions = cache.begin(positions, read_all) if cache else (None, positions)
        mask, window = None, self.config.sliding_window
        beyond_window = window is not None and past + new > window
        if read_all or beyond_window or not (contiguous and (cache is None or cache.contiguous)):
            mask = visible_positions(positions, slot_positions, window)
            if real is not None:
                mask[..., : past + new] &= real[:, None, None, :]
        if read_all and self.device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
            # A recorded graph writes its logits to the same place at every step: these are the caller's to keep.
            logits = compute(input_ids, positions.clamp(min=0), mask, views, last_only).clone()
        else:
            logits = compute(input_ids, positions.clamp(min=0), mask, views, last_only)
        if cache:
            cache.commit(new, contiguous)
        return logits

    def compute(
        self,
        input_ids: Int[Tensor, "B S"],
        position_ids: Int[Tensor, "B S"],
        mask: Bool[Tensor, "B 1 S T"] | None,
        caches: list[LayerCache] | None,
        last_only: bool = False,
    ) -> Float[Tensor, "B Q V"]:
        """The dataflow itself: tensors in, logits out, no decision that depends on their values."""
        tap: Tap | NoTap = Tap(self.captures) if self.captures else NO_TAP
        input_ids, position_ids = tap("input_ids", input_ids), tap("position_ids", position_ids)
        x = tap("embedding", self.embed_tokens(input_ids))
        cos_sin = self.rope.cos_sin(position_ids)
        for n, block in enumerate(self.layers):
            x = block(x, self.rope, cos_sin, mask, caches[n] if caches else None, tap.layer(n))
        x = tap("final_norm", self.norm(x[:, -1:] if last_only else x))
        return tap("logits", self.lm_head(x))

    def _check_ids(self, input_ids: Tensor) -> tuple[int, int]:
        if not isinstance(input_ids, Tensor) or input_ids.dtype not in (torch.int64, torch.int32):
            raise InputError(
                "input_ids must be a tensor of whole numbers",
                key="input_ids",
                expected="a tensor [B, S] of torch.int64 or torch.int32",
                actual=input_ids.dtype if isinstance(input_ids, Tensor) else type(input_ids).__name__,
            )
        empty = self.device.type == "meta"
        if empty or input_ids.device != self.device:
            raise InputError(
                "the model has no weights yet" if empty else "input_ids lies on another device than the model",
                key="input_ids",
                expected="a model with weights" if empty else str(self.device),
                actual="a model made from a configuration alone" if empty else str(input_ids.device),
                hint="load weights, or make some with Llama.random(config)" if empty else "input_ids.to(model.device)",
            )
        if input_ids.ndim != 2 or 0 in input_ids.shape:
            raise InputError(
                "input_ids has the wrong shape",
                key="input_ids",
                expected="[B, S], both at least 1",
                actual=list(input_ids.shape),
            )
        # On an accelerator this would stall every decode step; ids there were sampled from these very logits.
        if input_ids.device.type == "cpu" or input_ids.shape[1] > 1:
            low, high = (int(x) for x in torch.aminmax(input_ids))
            if low < 0 or high >= self.config.vocab_size:
                raise InputError(
                    "input_ids holds an id that the vocabulary does not have",
                    key="input_ids",
                    expected=f"0 to {self.config.vocab_size - 1}",
                    actual=low if low < 0 else high,
                    hint="is the tokenizer this model's own?",
                )
        return input_ids.shape[0], input_ids.shape[1]

    def _check_mask(self, attention_mask: Tensor | None, batch: int, past: int, new: int) -> Tensor | None:
        """The mask as bool, or None where it hides nothing."""
        if attention_mask is None:
            return None
        if not isinstance(attention_mask, Tensor) or tuple(attention_mask.shape) != (batch, past + new):
            raise InputError(
                "attention_mask has the wrong shape",
                key="attention_mask",
                expected=f"a tensor [{batch}, {past + new}]: {past} cached and {new} new positions",
                actual=list(attention_mask.shape)
                if isinstance(attention_mask, Tensor)
                else type(attention_mask).__name__,
            )
        real = attention_mask.to(self.device).bool()
        if attention_mask.dtype != torch.bool and not bool((attention_mask.to(self.device) == real).all()):
            raise InputError(
                "attention_mask holds something else than 1 for tokens and 0 for padding",
                key="attention_mask",
                expected="0 and 1",
                actual=f"values such as {attention_mask[attention_mask.to(self.device) != real][0].item()}",
                hint="what is added to scores (0 and -inf) is another kind of mask",
            )
        return None if bool(real.all()) else real

    def _check_positions(self, position_ids: Tensor, batch: int, new: int) -> Tensor:
        whole = isinstance(position_ids, Tensor) and position_ids.dtype in (torch.int64, torch.int32)
        if not whole or tuple(position_ids.shape) != (batch, new) or bool((position_ids < 0).any()):
            found = f"{list(position_ids.shape)}, least {int(position_ids.min())}" if whole else None
            other = position_ids.dtype if isinstance(position_ids, Tensor) else type(position_ids).__name__
            raise InputError(
                "position_ids must be one absolute position per token",
                key="position_ids",
                expected=f"a tensor [{batch}, {new}] of whole numbers, none below 0",
                actual=found or other,
            )
        return position_ids.to(self.device).long()
