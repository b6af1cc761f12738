"""Gates: each checkpoint proves itself, and is proved by the mistakes it catches.

``check("3", MyAttention)`` judges an implementation; ``checkpoint("3")`` says what the checkpoint is.
"""

#: Public name -> the module it lives in, imported on first use.
_EXPORTS = {
    "check": "gate",
    "check_all": "gate",
    "checkpoint": "specification",
    "CHECKPOINTS": "specification",
    "CheckResult": "result",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'llama_core.checkpoints' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"llama_core.checkpoints.{_EXPORTS[name]}"), name)
