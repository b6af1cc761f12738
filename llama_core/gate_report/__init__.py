"""The gates' results as pages: ``llama-core check --report DIR``."""
