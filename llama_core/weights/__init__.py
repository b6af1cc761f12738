"""Model folders, in and out: Hugging Face's (``config.json``, safetensors) and Meta's (``params.json``, archives)."""

from llama_core.weights.config_file import read_architecture, read_config
from llama_core.weights.convert import convert
from llama_core.weights.describe import describe
from llama_core.weights.folder import model_folder
from llama_core.weights.load import load_model
from llama_core.weights.save import save_model

__all__ = ["convert", "describe", "load_model", "model_folder", "read_architecture", "read_config", "save_model"]
