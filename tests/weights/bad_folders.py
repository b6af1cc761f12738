"""Model folders whose tensors, shards or files are wrong: what is done to a good one, and what must be said."""

import torch
from model_folders import read_index, weights, write_index
from safetensors.torch import save_file

Q0 = "model.layers.0.self_attn.q_proj.weight"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def rename(tensors, change):
    for name in list(tensors):
        tensors[change(name)] = tensors.pop(name)


META = {
    "model.embed_tokens": "tok_embeddings",
    "self_attn.q_proj": "attention.wq",
    "lm_head": "output",
    "model.layers": "layers",
}


def to_meta(name):
    for ours, theirs in META.items():
        name = name.replace(ours, theirs)
    return name


#: what is wrong -> (how the tensors are changed, the key that is named, words of the whole error)
BAD_TENSORS = {
    "one missing": (lambda t: t.pop(Q0), Q0, ["1 missing", Q0, "download"]),
    "norm missing": (lambda t: t.pop("model.norm.weight"), "model.norm.weight", ["1 missing"]),
    "head missing": (lambda t: t.pop("lm_head.weight"), "lm_head.weight", ["tie_word_embeddings"]),
    "one too many": (lambda t: t.update(extra=torch.ones(3)), "extra", ["1 unexpected", "extra"]),
    "misnamed": (
        lambda t: t.update({"model.layers.0.self_attn.query.weight": t.pop(Q0)}),
        Q0,
        ["1 missing", "1 unexpected", "self_attn.query"],
    ),
    "a layer missing": (
        lambda t: [t.pop(n) for n in list(t) if ".layers.1." in n],
        "model.layers.1.input_layernorm.weight",
        ["9 missing", "hold 1 layers"],
    ),
    "a layer too many": (
        lambda t: t.update({n.replace(".1.", ".2."): v.clone() for n, v in t.items() if ".layers.1." in n}),
        "model.layers.2.input_layernorm.weight",
        ["9 unexpected", "hold 3 layers"],
    ),
    "no prefix": (lambda t: rename(t, lambda n: n.removeprefix("model.")), None, ["lack the prefix 'model.'"]),
    "a wrapper's prefix": (lambda t: rename(t, lambda n: "module." + n), None, ["begin with 'module.'"]),
    "a compiler's prefix": (lambda t: rename(t, lambda n: "_orig_mod." + n), None, ["begin with '_orig_mod.'"]),
    "Meta's names": (lambda t: rename(t, to_meta), None, ["Meta's names"]),
    "GGUF's names": (
        lambda t: rename(t, lambda n: n.replace("model.layers", "blk")),
        None,
        ["GGUF's names", "18 unexpected"],
    ),
    "an adapter": (
        lambda t: (
            t.clear(),
            t.update({"base_model.model." + Q0.replace("weight", "lora_A.weight"): torch.ones(2, 16)}),
        ),
        None,
        ["adapter", "21 missing"],
    ),
    "quantised": (
        lambda t: t.update({Q0.replace("weight", "qweight"): t.pop(Q0)}),
        Q0,
        ["quantised", "qweight"],
    ),
    "biases": (
        lambda t: t.update({Q0.replace("weight", "bias"): torch.ones(16)}),
        Q0.replace("weight", "bias"),
        ["attention_bias"],
    ),
    "transposed": (
        lambda t: t.update({"model.layers.1.mlp.down_proj.weight": torch.ones(24, 16)}),
        "model.layers.1.mlp.down_proj.weight",
        ["1 of the wrong shape", "[24, 16] instead of [16, 24]", "transposed"],
    ),
    "vocabulary padded": (
        lambda t: t.update({"model.embed_tokens.weight": torch.ones(48, 16), "lm_head.weight": torch.ones(48, 16)}),
        "model.embed_tokens.weight",
        ["set vocab_size to 48"],
    ),
    "key heads": (
        lambda t: t.update({Q0.replace("q_proj", "k_proj"): torch.ones(16, 16)}),
        Q0.replace("q_proj", "k_proj"),
        ["num_key_value_heads"],
    ),
    "an axis too many": (
        lambda t: t.update({"model.norm.weight": torch.ones(16, 1)}),
        "model.norm.weight",
        ["[16, 1] instead of [16]"],
    ),
    "int8": (lambda t: t.update({Q0: t[Q0].to(torch.int8)}), Q0, ["1 not floating-point", "I8"]),
    "bool": (lambda t: t.update({Q0: t[Q0] > 0}), Q0, ["BOOL"]),
    "complex": (lambda t: t.update({Q0: t[Q0].to(torch.complex64)}), Q0, ["C64"]),
    "float8": (lambda t: t.update({Q0: t[Q0].to(torch.float8_e4m3fn)}), Q0, ["F8_E4M3"]),
    "nothing": (lambda t: t.clear(), None, ["weight files are missing"]),
}


#: file names that an index must not lead to
OUTSIDE = [
    "../model.safetensors",
    "..",
    ".",
    "",
    "/etc/passwd",
    "sub/model.safetensors",
    "..\\m",
    "C:m",
    "a\0b",
    "a\nb",
]


def in_both(folder):
    tensors = weights()
    save_file({n: t for n, t in tensors.items() if ".layers.0." in n or n == "lm_head.weight"}, folder / FIRST)


def swapped(folder):
    write_index(folder, read_index(folder) | {Q0: SECOND})


def unnamed(folder):
    write_index(folder, {name: file for name, file in read_index(folder).items() if name != Q0})


def promised(folder):
    write_index(folder, read_index(folder) | {"model.ghost": FIRST})


#: what is wrong -> (how the folder is spoilt, file, key, words)
BAD_SHARDS = {
    "a tensor in two shards": (in_both, FIRST, "lm_head.weight", "but the index says " + SECOND),
    "a tensor in the wrong shard": (swapped, FIRST, Q0, "but the index says " + SECOND),
    "a tensor that the index does not name": (unnamed, FIRST, Q0, "does not name it"),
    "a tensor that is in no shard": (promised, FIRST, "model.ghost", "but it is not"),
    "a shard missing": (lambda f: (f / SECOND).unlink(), SECOND, "weight_map", "incomplete"),
    "a shard cut off": (
        lambda f: (f / SECOND).write_bytes((f / SECOND).read_bytes()[:-4]),
        SECOND,
        "model.norm.weight",
        "cut off",
    ),
    "both forms": (
        lambda f: save_file(weights(), f / "model.safetensors"),
        "model.safetensors.index.json",
        "weight_map",
        "two sets",
    ),
    "weight_map missing": (
        lambda f: (f / "model.safetensors.index.json").write_text("{}"),
        "model.safetensors.index.json",
        "weight_map",
        "no weight_map",
    ),
    "weight_map a list": (
        lambda f: write_index(f, [FIRST]),
        "model.safetensors.index.json",
        "weight_map",
        "no weight_map",
    ),
    "weight_map empty": (lambda f: write_index(f, {}), "model.safetensors.index.json", "weight_map", "no weight_map"),
    "a number for a file": (
        lambda f: write_index(f, read_index(f) | {Q0: 1}),
        "model.safetensors.index.json",
        Q0,
        "the number 1",
    ),
    "index no JSON": (
        lambda f: (f / "model.safetensors.index.json").write_text("<html>"),
        "model.safetensors.index.json",
        None,
        "not JSON",
    ),
    "index with a key twice": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b", "a": "c"}}'),
        "model.safetensors.index.json",
        "a",
        "more than once",
    ),
}


#: files in place of model.safetensors -> a word of the error
NO_WEIGHTS = {
    "nothing": ([], "incomplete"),
    "an adapter": (["adapter_config.json", "adapter_model.safetensors"], "adapter"),
    "shards without an index": ([FIRST, SECOND], "without model.safetensors.index.json"),
    "GGUF": (["model.Q4_K_M.gguf"], "GGUF"),
    "pickles": (["pytorch_model.bin"], "pickle"),
    "a Meta folder": (["params.json", "consolidated.00.pth"], "Meta"),
    "another name": (["weights.safetensors"], "rename it to model.safetensors"),
}
