"""config.json and generation_config.json: what is read, what is refused, and by what name."""

import json
import warnings

import pytest
import transformers
from config_variants import BAD_DOCUMENTS, BAD_VALUES, GOOD_TEXT, GOOD_VALUES, YARN
from model_folders import CONFIG, edit_config

from llama_core.config import RopeScaling
from llama_core.errors import ConfigError
from llama_core.weights import read_config
from llama_core.weights.config_file import write_config


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    return tmp_path


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
