"""Meta folders that are wrong in ``params.json`` or in their tensors."""

import torch

#: changes of params.json -> the key that the error names
BAD_PARAMS = {
    "dim missing": ({"dim": ...}, "dim"),
    "dim a string": ({"dim": "16"}, "dim"),
    "dim zero": ({"dim": 0}, "dim"),
    "norm_eps missing": ({"norm_eps": ...}, "norm_eps"),
    "theta negative": ({"rope_theta": -1.0}, "rope_theta"),
    "heads do not divide": ({"n_heads": 3, "n_kv_heads": 3}, "head_dim"),
    "key heads do not divide": ({"n_kv_heads": 3}, "num_key_value_heads"),
    "multiplier huge": ({"ffn_dim_multiplier": 1e300}, "ffn_dim_multiplier"),
    "multiple_of missing": ({"multiple_of": ...}, "multiple_of"),
    "mistyped": ({"n_kv_head": 2}, "n_kv_head"),
    "quantised": ({"quantization_args": {"group_size": 32}}, "quantization_args"),
    "vision": ({"vision_chunk_size": 448}, "vision_chunk_size"),
    "experts": ({"moe": {"num_experts": 8}}, "moe"),
    "factor without scaling": ({"rope_scaling_factor": 8}, "rope_scaling_factor"),
    "factor below 1": ({"use_scaled_rope": True, "rope_scaling_factor": 0.5}, "rope_scaling.factor"),
}


#: what is done to the tensors -> (key, words of the message or hint)
BAD_TENSORS = {
    "missing": (lambda t: t.pop("layers.1.ffn_norm.weight"), "layers.1.ffn_norm.weight", "1 missing"),
    "unexpected": (lambda t: t.update(extra=torch.ones(2)), "extra", "1 unexpected"),
    "wrong shape": (lambda t: t.update({"norm.weight": torch.ones(15)}), "norm.weight", "[15] instead of [32]"),
    "integers": (
        lambda t: t.update({"norm.weight": torch.ones(32, dtype=torch.int8)}),
        "norm.weight",
        "not floating-point",
    ),
    "no head": (lambda t: t.pop("output.weight"), "output.weight", "1 missing"),
    "not a number": (lambda t: t["norm.weight"].__setitem__(3, torch.nan), "norm.weight", "nan"),
    "a layer more": (
        lambda t: t.update({n.replace("s.1.", "s.2."): v for n, v in t.items() if "layers.1." in n}),
        "layers.2.attention_norm.weight",
        "the files hold 3 layers, n_layers is 2",
    ),
}
