"""``config.json`` in many ways: values and documents that must be refused, and variants that must be read."""

import json

from model_folders import CONFIG

from llama_core.config import RopeScaling

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


#: (changes to a good config.json, the key that the error names, a word of its message)
BAD_VALUES = [
    ({"vocab_size": ...}, "vocab_size", "missing"),
    ({"vocab_size": None}, "vocab_size", "null"),
    ({"vocab_size": "40"}, "vocab_size", 'the string "40"'),
    ({"vocab_size": 0}, "vocab_size", "0"),
    ({"vocab_size": -1}, "vocab_size", "-1"),
    ({"vocab_size": 2**31}, "vocab_size", "2147483648"),
    ({"hidden_size": 16.0}, "hidden_size", "16.0"),
    ({"hidden_size": True}, "hidden_size", "true"),
    ({"hidden_size": 10**400}, "hidden_size", "bits"),
    ({"hidden_size": 18}, "head_dim", "multiple"),
    ({"intermediate_size": [24]}, "intermediate_size", "a list of 1"),
    ({"num_hidden_layers": ...}, "num_hidden_layers", "missing"),
    ({"num_attention_heads": {}}, "num_attention_heads", "an object"),
    ({"num_key_value_heads": 3}, "num_key_value_heads", "3"),
    ({"num_key_value_heads": 0}, "num_key_value_heads", "0"),
    ({"head_dim": 5}, "head_dim", "5"),
    ({"max_position_embeddings": "64"}, "max_position_embeddings", "64"),
    ({"rms_norm_eps": ...}, "rms_norm_eps", "missing"),
    ({"rms_norm_eps": 0}, "rms_norm_eps", "0"),
    ({"rms_norm_eps": -1e-5}, "rms_norm_eps", "-1e-05"),
    ({"rms_norm_eps": "1e-5"}, "rms_norm_eps", "1e-5"),
    ({"rope_theta": 0}, "rope_theta", "0"),
    ({"rope_theta": -10000.0}, "rope_theta", "-10000"),
    ({"rope_theta": 10**400}, "rope_theta", "bits"),
    ({"attention_bias": 1}, "attention_bias", "1"),
    ({"mlp_bias": "false"}, "mlp_bias", "false"),
    ({"tie_word_embeddings": 0}, "tie_word_embeddings", "0"),
    ({"torch_dtype": "int8"}, "torch_dtype", "int8"),
    ({"torch_dtype": 32}, "torch_dtype", "32"),
    ({"dtype": "bfloat16"}, "dtype", "torch_dtype is float32"),
    ({"bos_token_id": 40}, "bos_token_id", "beyond the vocabulary"),
    ({"eos_token_id": [2, 41]}, "eos_token_id", "41"),
    ({"eos_token_id": [2, "3"]}, "eos_token_id", 'the string "3"'),
    ({"eos_token_id": True}, "eos_token_id", "true"),
    ({"pad_token_id": 1.5}, "pad_token_id", "1.5"),
    ({"model_type": "gemma"}, "model_type", "gemma"),
    ({"model_type": ..., "architectures": ...}, "model_type", "missing"),
    ({"architectures": ["MistralForCausalLM"]}, "architectures", "MistralForCausalLM"),
    ({"architectures": "LlamaForCausalLM"}, "architectures", "LlamaForCausalLM"),
    ({"hidden_act": "gelu"}, "hidden_act", "gelu"),
    ({"sliding_window": 4096}, "sliding_window", "changes what the model computes"),
    ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types", "changes what the model computes"),
    ({"quantization_config": {"bits": 4}}, "quantization_config", "changes what the model computes"),
    ({"auto_map": {"AutoModel": "m.M"}}, "auto_map", "changes what the model computes"),
    ({"partial_rotary_factor": 0.5}, "partial_rotary_factor", "0.5"),
    ({"attn_logit_softcapping": 50.0}, "attn_logit_softcapping", "50"),
    ({"residual_multiplier": 0.22}, "residual_multiplier", "0.22"),
    ({"num_local_experts": 8}, "num_local_experts", "8"),
    ({"rope_thetta": 500000.0}, "rope_thetta", "rope_theta"),
    ({"rope_scaling": []}, "rope_scaling", "a list"),
    ({"rope_scaling": {"factor": 2.0}}, "rope_scaling.rope_type", "missing"),
    ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "rope_scaling.type", "longrope"),
    ({"rope_scaling": {"rope_type": "mrope"}}, "rope_scaling.rope_type", "mrope"),
    ({"rope_scaling": {"type": "linear", "rope_type": "dynamic", "factor": 2.0}}, "rope_scaling.rope_type", "linear"),
    ({"rope_scaling": {"type": "linear"}}, "rope_scaling.factor", "missing"),
    ({"rope_scaling": {"type": "linear", "factor": 0}}, "rope_scaling.factor", "0"),
    ({"rope_scaling": {"type": "linear", "factor": -2.0}}, "rope_scaling.factor", "-2.0"),
    ({"rope_scaling": {"type": "linear", "factor": 0.5}}, "rope_scaling.factor", "0.5"),
    ({"rope_scaling": {"type": "linear", "factor": "2"}}, "rope_scaling.factor", 'the string "2"'),
    ({"rope_scaling": {"type": "default", "factor": 2.0}}, "rope_scaling.factor", "default"),
    ({"rope_scaling": LLAMA3 | {"original_max_position_embeddings": None}}, None, "missing"),
    ({"rope_scaling": LLAMA3 | {"low_freq_factor": 4.0}}, "rope_scaling.low_freq_factor", "4.0"),
    ({"rope_scaling": LLAMA3 | {"original_max_position_embeddings": 32.5}}, None, "32.5"),
    ({"rope_scaling": YARN | {"beta_fast": "32"}}, "rope_scaling.beta_fast", "32"),
    ({"rope_scaling": YARN | {"truncate": 1}}, "rope_scaling.truncate", "1"),
    ({"rope_scaling": {"type": "yarn"}}, "rope_scaling.factor", "missing"),
    ({"rope_scaling": YARN | {"short_factor": [1.0]}}, "rope_scaling.short_factor", "not supported"),
    (
        {"rope_scaling": {"type": "dynamic", "factor": 2.0, "original_max_position_embeddings": 32}},
        "rope_scaling.original_max_position_embeddings",
        "dynamic",
    ),
    ({"rope_scaling": YARN, "rope_theta": 1.0}, "rope_theta", "1.0"),
    ({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "head_dim": 2}, "head_dim", "2"),
    ({"rms_norm_eps": 10**400}, "rms_norm_eps", "1329 bits"),
    ({"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}, "rope_parameters.rope_theta", "500000"),
    ({"rope_scaling": YARN, "rope_parameters": LLAMA3}, "rope_scaling", "different"),
]


GOOD_TEXT = json.dumps(CONFIG)


#: (text of config.json, a word of the message)
BAD_DOCUMENTS = {
    "empty": ("", "not JSON"),
    "cut off": (GOOD_TEXT[:100], "not JSON"),
    "a list": ("[1, 2]", "a list of 2"),
    "a number": ("7", "the number 7"),
    "duplicate key": (GOOD_TEXT[:-1] + ', "vocab_size": 41}', "more than once"),
    "duplicate inner key": (GOOD_TEXT[:-1] + ', "x": {"a": 1, "a": 2}}', "more than once"),
    "NaN": (GOOD_TEXT.replace("1e-05", "NaN"), "NaN"),
    "Infinity": (GOOD_TEXT.replace("10000.0", "Infinity"), "Infinity"),
    "minus infinity": (GOOD_TEXT.replace("10000.0", "-Infinity"), "-Infinity"),
    "float overflow": (GOOD_TEXT.replace("10000.0", "1e999"), "rope_theta"),
    "5000 digits": (GOOD_TEXT.replace("10000.0", "9" * 5000), "digits"),
    "nested lists": ("[" * 200_000, "nested too deep"),
    "nested objects": ('{"a":' * 200_000, "nested too deep"),
    "byte order mark": ("\ufeff" + GOOD_TEXT, "not JSON"),
    "trailing comma": (GOOD_TEXT[:-1] + ",}", "not JSON"),
    "two documents": (GOOD_TEXT * 2, "not JSON"),
    "an HTML page": ("<!DOCTYPE html><html></html>", "not JSON"),
    "three megabytes": (GOOD_TEXT + " " * 3_000_000, "bytes"),
}


#: changes to a good config.json -> the fields of LlamaConfig that must follow
GOOD_VALUES = [
    ({}, dict(num_key_value_heads=2, head_dim=4, rope_scaling=None, rope_layout="half", dtype="float32")),
    ({"num_key_value_heads": ...}, dict(num_key_value_heads=4)),
    ({"num_key_value_heads": None, "head_dim": None}, dict(num_key_value_heads=4, head_dim=4)),
    ({"head_dim": 8}, dict(head_dim=8)),
    ({"rope_theta": ...}, dict(rope_theta=10000.0)),
    ({"rope_theta": 500000}, dict(rope_theta=500000.0)),
    ({"max_position_embeddings": ...}, dict(max_position_embeddings=2048)),
    ({"attention_bias": ..., "mlp_bias": ..., "tie_word_embeddings": ...}, dict(attention_bias=False)),
    ({"attention_bias": True, "mlp_bias": True}, dict(attention_bias=True, mlp_bias=True)),
    ({"torch_dtype": ..., "dtype": "bfloat16"}, dict(dtype="bfloat16")),
    ({"torch_dtype": "torch.float16"}, dict(dtype="float16")),
    ({"torch_dtype": "bfloat16", "dtype": "bfloat16"}, dict(dtype="bfloat16")),
    ({"torch_dtype": None}, dict(dtype="float32")),
    ({"hidden_act": "swish"}, {}),
    ({"hidden_act": ...}, {}),
    ({"architectures": ...}, {}),
    ({"architectures": ["LLaMAForCausalLM"]}, {}),
    ({"model_type": ...}, {}),
    ({"eos_token_id": [2, 3, 2]}, dict(eos_token_ids=(2, 3))),
    ({"eos_token_id": None, "bos_token_id": None}, dict(eos_token_ids=(), bos_token_id=None)),
    ({"eos_token_id": ..., "bos_token_id": ...}, dict(eos_token_ids=(2,), bos_token_id=1)),
    ({"pad_token_id": -1}, dict(pad_token_id=None)),
    ({"pad_token_id": 0}, dict(pad_token_id=0)),
    ({"pretraining_tp": 4, "use_cache": False, "attention_dropout": 0.1, "transformers_version": "4.31.0"}, {}),
    ({"sliding_window": None, "quantization_config": None, "partial_rotary_factor": 1.0}, {}),
    ({"layer_types": ["full_attention", "full_attention"]}, {}),
    ({"rope_scaling": {}}, dict(rope_scaling=None)),
    ({"rope_scaling": {"type": "default"}}, dict(rope_scaling=None)),
    ({"rope_scaling": {"type": "linear", "factor": 2}}, dict(rope_scaling=RopeScaling("linear", 2.0))),
    ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, dict(rope_scaling=RopeScaling("dynamic", 2.0))),
    ({"rope_scaling": LLAMA3}, dict(rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0))),
    ({"rope_scaling": LLAMA3 | {"type": "llama3"}}, dict(rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0))),
    ({"rope_scaling": YARN | {"finetuned": True}}, dict(rope_scaling=RopeScaling("yarn", 4.0, 16))),
    ({"rope_scaling": YARN | {"factor": None}}, dict(rope_scaling=RopeScaling("yarn", 4.0, 16))),
    (
        {"rope_scaling": YARN | {"beta_fast": 16, "truncate": False, "mscale": 0.7, "mscale_all_dim": 0}},
        dict(rope_scaling=RopeScaling("yarn", 4.0, 16, beta_fast=16.0, truncate=False, mscale=0.7)),
    ),
    (
        {"rope_theta": ..., "rope_scaling": ..., "rope_parameters": LLAMA3 | {"rope_theta": 500000.0}},
        dict(rope_theta=500000.0, rope_scaling=RopeScaling("llama3", 8.0, 32, 1.0, 4.0)),
    ),
    (
        {"rope_theta": ..., "rope_scaling": ..., "rope_parameters": {"rope_theta": 20000.0, "rope_type": "default"}},
        dict(rope_theta=20000.0, rope_scaling=None),
    ),
    ({"rope_scaling": YARN, "rope_parameters": YARN}, dict(rope_scaling=RopeScaling("yarn", 4.0, 16))),
]
