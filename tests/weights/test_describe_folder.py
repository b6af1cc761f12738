"""What ``describe`` says of a folder, against sums done by hand and by torch."""

import json
import math

import pytest
import torch
from model_folders import CONFIG, edit_config, edit_tensors, weights, write_folder, write_shards

from llama_core import Llama, LlamaConfig, preset
from llama_core.errors import WeightsError
from llama_core.weights import describe, save_model
from llama_core.weights.config_file import write_config
from llama_core.weights.describe import in_units
from llama_core.weights.expected import expected_tensors


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path / "model")


def test_parameters_tensors_and_bytes_are_those_of_the_file(folder):
    tensors = weights()
    found = describe(folder)
    assert found.tensors == len(tensors) == 21
    assert found.parameters == sum(t.numel() for t in tensors.values())
    assert found.bytes == sum(t.nbytes for t in tensors.values())
    assert found.config.hidden_size == CONFIG["hidden_size"]
    assert found.files == ("model.safetensors",)


def test_the_layers_tensors_share_a_row_with_their_sum(folder):
    rows = {group.name: group for group in describe(folder).groups}
    up = rows["model.layers.[0-1].mlp.up_proj.weight"]
    assert (up.count, up.dtype, up.shape, up.parameters, up.bytes) == (2, "F32", (24, 16), 2 * 24 * 16, 2 * 24 * 16 * 4)
    assert sum(group.count for group in rows.values()) == 21 and len(rows) == 12


def test_memory_is_weights_and_cache_by_hand(folder):
    found = describe(folder, context=100, batch_size=3)
    memory = {m.dtype: m for m in found.memory}
    parameters = sum(t.numel() for t in weights().values())
    cache = 2 * 2 * 3 * 2 * 100 * 4  # keys and values · L · B · K · T · D
    assert (memory["float32"].weights, memory["float32"].kv_cache) == (parameters * 4, cache * 4)
    assert (memory["bfloat16"].weights, memory["bfloat16"].kv_cache) == (parameters * 2, cache * 2)
    assert memory["bfloat16"].total == parameters * 2 + cache * 2


def test_a_tied_head_counts_once(tmp_path):
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4
    )
    save_model(Llama.random(config.replace(tie_word_embeddings=True)), tmp_path / "tied")
    save_model(Llama.random(config), tmp_path / "untied")
    assert describe(tmp_path / "untied").parameters - describe(tmp_path / "tied").parameters == 40 * 16


def test_no_weight_is_read(folder):
    """A NaN is found by loading and by nothing that does not read the values."""
    edit_tensors(folder, lambda tensors: tensors["model.norm.weight"].fill_(float("nan")))
    assert describe(folder).tensors == 21


def test_a_folder_that_would_not_load_is_refused(folder):
    edit_tensors(folder, lambda tensors: tensors.pop("model.norm.weight"))
    with pytest.raises(WeightsError) as caught:
        describe(folder)
    assert caught.value.key == "model.norm.weight"


def test_the_page_names_what_a_reader_looks_for(folder):
    edit_config(
        folder,
        rope_scaling={
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    )
    edit_tensors(folder, lambda t: t.update({"model.rotary_emb.inv_freq": torch.ones(2)}))
    page = describe(folder, context=50).to_text()
    for words in (
        str(folder),
        "5,200 in 21 tensors",  # 2 · 40 · 16 + 16 + 2 · (2 · 16 + 2 · 16 · 16 + 2 · 8 · 16 + 3 · 24 · 16)
        "half: pair i is coordinates (i, i + D/2)",
        "llama3, factor 8, from 32 tokens",
        "2, each for 2 query heads",
        "model.layers.[0-1].self_attn.k_proj.weight",
        "Memory at 50 tokens",
        "1 buffer: model.rotary_emb.inv_freq",
    ):
        assert words in page


def test_a_sharded_folder_is_one_table(tmp_path):
    found = describe(write_shards(tmp_path / "model"))
    assert found.files == ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    assert len(found.groups) == 12


def test_the_page_of_the_largest_model_is_at_most_100_columns_wide(tmp_path, monkeypatch):
    """The folder is a header that claims 812 GB in a sparse file of that size."""
    config = preset("llama-3.1-405b")
    position, header = 0, {}
    for _, name, shape in expected_tensors(config):
        stop = position + math.prod(shape) * 2
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [position, stop]}
        position = stop
    text = json.dumps(header).encode()
    with open(tmp_path / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        try:
            file.truncate(8 + len(text) + position)
        except OSError as e:
            pytest.skip(f"this file system has no sparse file of {position} bytes: {e}")
    write_config(config, tmp_path)
    monkeypatch.chdir(tmp_path)
    found = describe(".")
    assert found.parameters == 405_853_388_800
    assert max(map(len, found.to_text().splitlines())) <= 100
    (tmp_path / "model.safetensors").unlink()


def test_json_holds_the_same_numbers(folder):
    found = describe(folder, context=10)
    content = json.loads(found.to_json())
    assert content["parameters"] == found.parameters
    assert content["config"]["rope_layout"] == "half"
    assert content["groups"][0]["name"] == "model.embed_tokens.weight"
    assert content["memory"][0]["total"] == content["memory"][0]["weights"] + content["memory"][0]["kv_cache"]


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1_000, "1.00 kB"),
        (999_950, "1.00 MB"),
        (65_536_000, "65.5 MB"),
        (2_200_096_768, "2.20 GB"),
    ],
)
def test_bytes_are_said_with_three_digits(count, words):
    assert in_units(count) == words
