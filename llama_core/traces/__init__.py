"""Golden traces: where another engine first differs, why, and whether it matters.

``record`` writes the named activations of a run; ``compare`` holds another engine's to them.
"""

#: Public name -> the module it lives in, imported on first use.
_EXPORTS = {
    "compare": "comparison",
    "record": "recorder",
    "Trace": "read",
    "TraceWriter": "write",
}

__all__ = list(_EXPORTS)


def __getattr__(name: str):
    if name not in _EXPORTS:
        raise AttributeError(f"module 'llama_core.traces' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"llama_core.traces.{_EXPORTS[name]}"), name)
    globals()[name] = value
    return value
