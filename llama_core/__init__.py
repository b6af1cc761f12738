"""Llama, checkpoint by checkpoint: the model, the gates that prove it, the pictures that show it."""

import sys
from types import ModuleType

__version__ = "0.1.0"

#: Public name -> the module it lives in. Imported on first use, so that ``import llama_core`` costs nothing.
_EXPORTS = {
    "Llama": "model",
    "LlamaConfig": "config",
    "RopeScaling": "config",
    "preset": "presets",
    "KVCache": "cache",
    "Tokenizer": "tokenizer",
    "Chat": "chat",
    "generate": "generate",
    "generate_batch": "batch",
    "generate_steps": "generate",
    "SamplingParameters": "sampling",
    "capture": "capture",
    "LlamaCoreError": "errors",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'llama_core' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"llama_core.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_EXPORTS])


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        # Importing the submodule "capture" would put it in place of the function of that name, which is what is public.
        if not (name in _EXPORTS and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
