"""A model folder of either form, or a GGUF file, opened: which form it is in is told from the files that it has."""

from __future__ import annotations

from os import PathLike

from llama_core.weights.folder import model_folder
from llama_core.weights.gguf_file import open_gguf
from llama_core.weights.gguf_header import is_gguf
from llama_core.weights.huggingface import open_huggingface
from llama_core.weights.meta import is_meta, open_meta
from llama_core.weights.stored import StoredModel


def open_folder(folder: str | PathLike[str]) -> StoredModel:
    """Read and check everything in the folder (or the GGUF file) but the weights themselves.

    A folder with ``params.json`` and no ``config.json`` is Meta's, any other Hugging Face's.

    Raises:
        ConfigError, WeightsError: listing every difference, with file, key, expected, actual and a hint.
    """
    if is_gguf(folder):
        return open_gguf(folder)
    folder = model_folder(folder)
    return open_meta(folder) if is_meta(folder) else open_huggingface(folder)
