"""llama.cpp as one side of the benchmark: the same weights from a GGUF file, through its C interface."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from llama_core import Llama
from llama_core.traces.bridges.ggml import Library
from llama_core.weights import convert


def is_installed() -> bool:
    """Whether llama-cpp-python can be found."""
    return find_spec("llama_cpp") is not None


class LlamaCpp:
    """A model in llama.cpp with its defaults (flash attention where it likes, cache in float16), on as many threads as
    torch has."""

    def __init__(self, model: Llama, folder: Path, context: int = 1024):
        model.save_pretrained(folder / "model")
        convert(folder / "model", folder / "model.gguf", to="gguf")
        self.library = Library()
        api = self.library.api
        parameters = api.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = api.llama_model_load_from_file(str(folder / "model.gguf").encode(), parameters)
        if not self.model:
            raise self.library.failed("does not load the file")
        options = api.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = context
        options.n_threads = options.n_threads_batch = torch.get_num_threads()
        self.context = api.llama_init_from_model(self.model, options)
        if not self.context:
            raise self.library.failed("makes no context")
        self.vocabulary = model.config.vocab_size

    def _read(self, ids: list[int]) -> int:
        """Read ids into the cache; the most likely id after them."""
        api = self.library.api
        tokens = (api.llama_token * len(ids))(*ids)
        if api.llama_decode(self.context, api.llama_batch_get_one(tokens, len(ids))):
            raise self.library.failed(f"could not read {len(ids)} tokens")
        logits = api.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, (self.vocabulary,)).argmax())

    def prefill(self, ids: list[int]) -> int:
        """Read a prompt from a fresh start."""
        api = self.library.api
        api.llama_memory_clear(api.llama_get_memory(self.context), True)
        return self._read(ids)

    def generate(self, ids: list[int], new: int) -> list[int]:
        """Greedy continuation."""
        told = [self.prefill(ids)]
        while len(told) < new:
            told.append(self._read(told[-1:]))
        return told

    def close(self) -> None:
        self.library.api.llama_free(self.context)
        self.library.api.llama_model_free(self.model)
