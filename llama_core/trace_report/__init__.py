"""A comparison of traces as one page: ``llama-core compare --html FILE``."""
