"""config.json and generation_config.json: what is read, what is refused, and by what name."""

import json
import warnings

import pytest
import transformers
from model_folders import CONFIG, edit_config

from llama_core.config import RopeScaling
from llama_core.errors import ConfigError
from llama_core.weights import read_config
from llama_core.weights.config_file import write_config

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


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


@pytest.mark.parametrize(("changes", "key", "words"), BAD_VALUES, ids=lambda value: str(value)[:60])
def test_a_bad_value_is_refused_with_file_key_expected_and_actual(folder, changes, key, words):
    edit_config(folder, **changes)
    with pytest.raises(ConfigError) as caught:
        read_config(folder)
    error = caught.value
    assert error.file == str(folder / "config.json")
    assert error.key == (key or "rope_scaling.original_max_position_embeddings")
    assert error.expected and error.actual
    assert words in str(error)
    assert len(str(error)) < 1500


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


@pytest.mark.parametrize("name", BAD_DOCUMENTS)
def test_a_bad_document_is_refused_with_its_file(folder, name):
    text, words = BAD_DOCUMENTS[name]
    (folder / "config.json").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_config(folder)
    assert caught.value.file == str(folder / "config.json")
    assert words in str(caught.value)
    assert len(str(caught.value)) < 1500


def test_bytes_that_are_no_text_are_refused_with_their_place(folder):
    (folder / "config.json").write_bytes(b'{"model_type": "ll\xffama"}')
    with pytest.raises(ConfigError, match="byte 18 is not UTF-8"):
        read_config(folder)


def test_the_duplicate_key_is_named_with_both_values(folder):
    (folder / "config.json").write_text(GOOD_TEXT[:-1] + ', "vocab_size": 41}')
    with pytest.raises(ConfigError) as caught:
        read_config(folder)
    assert caught.value.key == "vocab_size"
    assert "40" in caught.value.actual and "41" in caught.value.actual


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path)
    assert caught.value.file == str(tmp_path / "config.json")
    assert "missing" in str(caught.value)


def test_a_meta_folder_is_recognised(tmp_path):
    (tmp_path / "params.json").write_text("{}")
    with pytest.raises(ConfigError, match="Meta"):
        read_config(tmp_path)


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


@pytest.mark.parametrize(("changes", "fields"), GOOD_VALUES, ids=lambda value: str(value)[:60])
def test_a_valid_variant_is_read_without_a_warning(folder, changes, fields):
    edit_config(folder, **changes)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        config = read_config(folder)
    assert {key: getattr(config, key) for key in fields} == fields


def test_an_unknown_key_gives_a_warning_that_names_it(folder):
    edit_config(folder, my_notes="trained on a Tuesday")
    with pytest.warns(UserWarning, match="my_notes"):
        read_config(folder)


def test_a_yarn_factor_that_contradicts_the_lengths_gives_a_warning(folder):
    edit_config(folder, rope_scaling=YARN | {"factor": 8.0})
    with pytest.warns(UserWarning, match="factor is 8.0"):
        assert read_config(folder).rope_scaling.factor == 8.0


def test_generation_config_takes_precedence_for_token_ids(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6], "bos_token_id": 7, "pad_token_id": 8}')
    config = read_config(folder)
    assert (config.eos_token_ids, config.bos_token_id, config.pad_token_id) == ((5, 6), 7, 8)


def test_what_generation_config_does_not_state_comes_from_config(folder):
    (folder / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": null}')
    assert read_config(folder).eos_token_ids == (2,)


def test_a_bad_id_in_generation_config_is_blamed_on_that_file(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": 99}')
    with pytest.raises(ConfigError) as caught:
        read_config(folder)
    assert (caught.value.file, caught.value.key) == (str(folder / "generation_config.json"), "eos_token_id")


SCALINGS = {
    "none": None,
    "linear": RopeScaling("linear", 2.0),
    "dynamic": RopeScaling("dynamic", 2.0),
    "yarn": RopeScaling("yarn", 4.0, 16, beta_fast=16.0, attention_factor=1.25, truncate=False),
    "llama3": RopeScaling("llama3", 8.0, 32, 1.5, 3.0),
}


@pytest.mark.parametrize("kind", SCALINGS)
def test_what_is_written_is_read_back_equal(folder, tmp_path, kind):
    config = read_config(folder).replace(
        rope_scaling=SCALINGS[kind], eos_token_ids=(2, 3), pad_token_id=0, dtype="bfloat16", head_dim=8, mlp_bias=True
    )
    (tmp_path / "new").mkdir()
    write_config(config, tmp_path / "new")
    assert read_config(tmp_path / "new") == config


@pytest.mark.parametrize("kind", SCALINGS)
def test_transformers_reads_what_is_written(folder, tmp_path, kind):
    scaling = SCALINGS[kind]
    config = read_config(folder).replace(rope_scaling=scaling, rope_theta=50000.0, dtype="bfloat16")
    (tmp_path / "new").mkdir()
    write_config(config, tmp_path / "new")
    theirs = transformers.AutoConfig.from_pretrained(tmp_path / "new")
    assert theirs.rope_parameters["rope_theta"] == 50000.0
    assert theirs.rope_parameters["rope_type"] == (scaling.kind if scaling else "default")
    for key in set(theirs.rope_parameters) - {"rope_theta", "rope_type"}:
        assert theirs.rope_parameters[key] == getattr(scaling, key)
    if kind == "yarn":
        assert {"factor", "attention_factor", "truncate", "beta_fast"} <= set(theirs.rope_parameters)
    assert str(theirs.dtype) == "torch.bfloat16"
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "new")
    assert (generation.bos_token_id, generation.eos_token_id) == (1, 2)


@pytest.mark.parametrize("kind", SCALINGS)
def test_what_transformers_writes_is_read(tmp_path, kind):
    scaling = SCALINGS[kind]
    rope = {"rope_type": "default"}
    if scaling:
        keys = {
            "linear": ["factor"],
            "dynamic": ["factor"],
            "yarn": ["factor", "original_max_position_embeddings", "beta_fast", "attention_factor", "truncate"],
            "llama3": ["factor", "original_max_position_embeddings", "low_freq_factor", "high_freq_factor"],
        }[kind]
        rope = {"rope_type": kind} | {key: getattr(scaling, key) for key in keys}
    sizes = dict(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=4)
    theirs = transformers.LlamaConfig(
        **sizes, max_position_embeddings=64, rope_parameters=rope | {"rope_theta": 50000.0}, dtype="float16"
    )
    theirs.save_pretrained(tmp_path)
    config = read_config(tmp_path)
    assert (config.rope_theta, config.rope_scaling, config.dtype) == (50000.0, scaling, "float16")
    assert config.rms_norm_eps == 1e-6


def test_the_interleaved_layout_cannot_be_written(folder, tmp_path):
    with pytest.raises(ConfigError) as caught:
        write_config(read_config(folder).replace(rope_layout="interleaved"), tmp_path)
    assert caught.value.key == "rope_layout"


def test_an_unreadable_folder_name_is_an_error_of_ours(tmp_path):
    with pytest.raises(ValueError, match="stories"):
        read_config(tmp_path / "nowhere")
