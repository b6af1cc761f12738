"""The tensors that a configuration asks for, held against those that files have: all differences in one error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from llama_core.config import LlamaConfig
from llama_core.errors import WeightsError
from llama_core.names import PARAMETERS
from llama_core.weights.safetensors_file import TORCH_DTYPES
from llama_core.weights.stored import StoredTensor

#: Buffers that some files carry and that are computed from the configuration here.
HARMLESS = re.compile(r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq|rope\.freqs")
TIED_HEAD = "lm_head.weight"

_MAX_LINES = 40
Stored = TypeVar("Stored", bound=StoredTensor)


def expected_tensors(config: LlamaConfig, form: str = "huggingface") -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(name in ``state_dict``, name in a file of that form, shape) of every parameter, layer by layer."""
    sizes = {
        "V": config.vocab_size,
        "E": config.hidden_size,
        "F": config.intermediate_size,
        "HD": config.num_attention_heads * config.head_dim,
        "KD": config.num_key_value_heads * config.head_dim,
        "D": config.head_dim,
    }
    exists = {
        "": True,
        "attention_bias": config.attention_bias,
        "qkv_bias": config.attention_bias or config.qkv_bias,
        "qk_norm": config.qk_norm,
        "mlp_bias": config.mlp_bias,
        "untied": not config.tie_word_embeddings,
    }
    rows = [
        (p.name, getattr(p, form), tuple(sizes[axis] for axis in p.axes.split()))
        for p in PARAMETERS
        if exists[p.optional]
    ]
    per_layer = [row for row in rows if "{n}" in row[0]]
    first = rows.index(per_layer[0])
    yield from rows[:first]
    for n in range(config.num_hidden_layers):
        yield from (
            (name.replace("{n}", str(n)), file.replace("{n}", str(n)), shape) for name, file, shape in per_layer
        )
    yield from rows[first + len(per_layer) :]


def check_size(config: LlamaConfig, found: Mapping[str, StoredTensor], folder: Path, file: str = "config.json") -> None:
    """Refuse a configuration that describes far more than the files hold, before anything of its size is made.

    Up to twice the size is left to ``match_tensors``, which can name what is missing.

    Raises:
        WeightsError: parameters and bytes of both sides.
    """
    held, needed = sum(entry.numel for entry in found.values()), config.num_parameters
    layers = _layer_count(found)
    if needed > 2 * held and (file != "config.json" or not naming_hint(found)):
        raise WeightsError(
            f"{file} describes a much larger model than the weight files hold",
            file=folder / file,
            key="num_hidden_layers" if layers and layers != config.num_hidden_layers else "hidden_size",
            expected=f"about {held:,} parameters in {layers} layers, as the files hold",
            actual=f"{needed:,} parameters in {config.num_hidden_layers:,} layers, at least {2 * needed:,} bytes",
            hint=f"{file} and the weights belong to different models, or weight files are missing",
        )


def match_tensors(
    config: LlamaConfig, found: Mapping[str, Stored], folder: Path, form: str = "huggingface"
) -> dict[str, Stored]:
    """Every parameter's entry, if names, shapes and dtypes are exactly those that the configuration asks for.

    Harmless buffers and a tied head that is stored as well must have been taken out of ``found``.

    Raises:
        WeightsError: listing every missing, unexpected, mis-shaped and non-float tensor.
    """
    expected = {file: (name, shape) for name, file, shape in expected_tensors(config, form)}
    missing = [file for file in expected if file not in found]
    unexpected = [file for file in found if file not in expected]
    misshaped = [file for file in expected if file in found and found[file].shape != expected[file][1]]
    not_float = [file for file in expected if file in found and found[file].dtype not in TORCH_DTYPES]
    if not (missing or unexpected or misshaped or not_float):
        return {name: found[file] for file, (name, _) in expected.items()}

    lines, counts = [], []
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            counts.append(f"{len(names)} {what}")
            lines += [f"{what}: {line}" for line in fold_layers(names)]
    if misshaped:
        counts.append(f"{len(misshaped)} of the wrong shape")
        shapes = {f"{file}: {list(found[file].shape)} instead of {list(expected[file][1])}" for file in misshaped}
        lines += [f"wrong shape: {line}" for line in fold_layers(sorted(shapes, key=_by_number))]
    if not_float:
        counts.append(f"{len(not_float)} not floating-point")
        lines += [f"not floating-point: {line}" for line in fold_layers([f"{f}: {found[f].dtype}" for f in not_float])]
    if len(lines) > _MAX_LINES:
        lines = [*lines[:_MAX_LINES], f"… and {len(lines) - _MAX_LINES} more lines"]
    key = (missing or misshaped or not_float or unexpected)[0]
    source = found[key].path if key in found else folder
    stated = {"huggingface": "config.json", "meta": "params.json", "gguf": "the header"}[form]
    hint = {"huggingface": _hint, "meta": _meta_hint, "gguf": _gguf_hint}[form]
    raise WeightsError(
        f"the tensors are not those that {stated} asks for: " + ", ".join(counts) + "\n    " + "\n    ".join(lines),
        file=source,
        key=key,
        expected=_fact(expected[key][1], " | ".join(TORCH_DTYPES)) if key in expected else "no such tensor",
        actual=_fact(found[key].shape, found[key].dtype) if key in found else "no such tensor",
        hint=hint(config, found, missing, unexpected, misshaped, not_float, expected),
    )


def fold_layers(lines: Iterable[str]) -> list[str]:
    """Lines that differ in the layer's number only, as one: ``model.layers.[0-3,7].mlp.up_proj.weight``."""
    layers: dict[str, list[int]] = {}
    for line in lines:
        match = re.search(r"(?:layers|blk|h)\.(\d+)\.", line[:200])
        text = line if not match else line[: match.start(1)] + "\0" + line[match.end(1) :]
        layers.setdefault(text[:240], []).extend([int(match.group(1))] if match else [])
    return [text.replace("\0", _ranges(numbers)) for text, numbers in layers.items()]


def naming_hint(names: Iterable[str]) -> str | None:
    """What names that no Hugging Face Llama has tell about where a file comes from."""
    names = list(names)
    if any(".lora_" in name or "lora_magnitude" in name for name in names):
        return "these are an adapter's weights (LoRA), not a model's: merge the adapter into its base model first"
    if any(re.search(r"\.(qweight|qzeros|scales|weight_scale|SCB|absmax|quant_map)\b", name) for name in names):
        return "these are quantised weights, which are not supported: get the model in bfloat16 or float16"
    if any(name == "tok_embeddings.weight" or ".attention.wq." in name for name in names):
        return "these are Meta's names (wq, w1, tok_embeddings): convert the checkpoint to Hugging Face form first"
    if any(name.startswith("blk.") or name == "token_embd.weight" for name in names):
        return "these are GGUF's names (blk.0.attn_q): get the Hugging Face form of the model"
    plain = {p.huggingface for p in PARAMETERS}
    for name in names:
        generic = re.sub(r"(layers)\.\d+\.", r"\1.{n}.", name)
        if generic in plain:
            continue
        for known in plain:
            if generic.endswith("." + known):
                prefix = name[: len(generic) - len(known)]
                return f"the names begin with {prefix!r}, which a wrapper has put there: remove it from every name"
            if known == "model." + generic:
                return "the names lack the prefix 'model.': they were saved from the inner model, without its head"
    return None


def _hint(config, found, missing, unexpected, misshaped, not_float, expected) -> str:
    hint = naming_hint(unexpected)
    if hint:
        return hint
    if not_float:
        return "quantised or converted weights are not supported: get the model in bfloat16, float16 or float32"
    biases = [name for name in unexpected if name.endswith(".bias")]
    if unexpected and len(biases) == len(unexpected):
        where = "attention_bias" if ".self_attn." in biases[0] else "mlp_bias"
        return f"if the model has these biases, set {where} to true in config.json"
    if missing and all(name.endswith(".bias") for name in missing) and not config.qkv_bias:
        where = "attention_bias" if ".self_attn." in missing[0] else "mlp_bias"
        return f"if the model has no biases, set {where} to false in config.json"
    if missing == [TIED_HEAD] and not unexpected:
        return "if the head is the embedding matrix, set tie_word_embeddings to true in config.json"
    layers = _layer_count(found)
    if (missing or unexpected) and layers != config.num_hidden_layers:
        return f"the files hold {layers} layers, num_hidden_layers is {config.num_hidden_layers}"
    if missing:
        return "a file or a part of the model is missing: download the folder again"
    if misshaped:
        name = misshaped[0]
        shape, wanted = found[name].shape, expected[name][1]
        if name in ("model.embed_tokens.weight", TIED_HEAD) and len(shape) == 2 and shape[1] == wanted[1]:
            return f"the vocabulary was extended or padded: set vocab_size to {shape[0]} if the tokenizer agrees"
        if shape == wanted[::-1] and shape != wanted:
            return "the matrix is transposed: rows must be outputs, as in torch.nn.Linear"
        if ".k_proj." in name or ".v_proj." in name:
            return "check num_key_value_heads and head_dim in config.json"
        return "check the sizes in config.json: it may belong to another model"
    return "remove these tensors, if the model does not need them"


def _meta_hint(config, found, missing, unexpected, misshaped, not_float, expected) -> str:
    if not_float:
        return "quantised or converted weights are not supported: get the model in bfloat16, float16 or float32"
    layers = _layer_count(found)
    if (missing or unexpected) and layers != config.num_hidden_layers:
        return f"the files hold {layers} layers, n_layers is {config.num_hidden_layers}"
    if missing:
        return "a part of the model is missing: download the folder again"
    if misshaped:
        part = misshaped[0].rpartition(".weight")[0].rpartition(".")[2]
        keys = {"wk": "n_kv_heads", "wv": "n_kv_heads", "tok_embeddings": "vocab_size", "output": "vocab_size"}
        feed_forward = "multiple_of and ffn_dim_multiplier" if part in ("w1", "w2", "w3") else "dim"
        return f"check {keys.get(part, feed_forward)} in params.json, and that no file is missing"
    return "params.json and the weights belong to different models"


def _gguf_hint(config, found, missing, unexpected, misshaped, not_float, expected) -> str:
    layers = _layer_count(found)
    if (missing or unexpected) and layers != config.num_hidden_layers:
        return f"the file holds {layers} layers, block_count is {config.num_hidden_layers}"
    if any("_exps." in name for name in unexpected):
        return "this is a mixture of experts, which is not supported"
    return "the file was not written by llama.cpp's own tools, or is damaged: convert the model again"


def _layer_count(found: Iterable[str]) -> int:
    numbers = [int(m.group(1)) for m in (re.search(r"(?:layers|blk)\.(\d{1,9})\.", name) for name in found) if m]
    return max(numbers, default=-1) + 1


def _ranges(numbers: list[int]) -> str:
    numbers = sorted(set(numbers))
    if not numbers:
        return ""
    runs, start = [], numbers[0]
    for previous, number in zip(numbers, [*numbers[1:], None], strict=True):
        if number != previous + 1:
            runs.append(str(start) if start == previous else f"{start}-{previous}")
            start = number
    return runs[0] if len(numbers) == 1 else f"[{','.join(runs)}]"


def _by_number(text: str) -> list:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def _fact(shape: tuple[int, ...], dtype: str) -> str:
    return f"{dtype} {list(shape)}"
