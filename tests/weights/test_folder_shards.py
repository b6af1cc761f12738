"""Folders with several weight files: each tensor lies once, where the index says, inside the folder."""

import pytest
import torch
from bad_folders import BAD_SHARDS, OUTSIDE, Q0, SECOND
from model_folders import read_index, weights, write_index, write_shards
from safetensors.torch import save_file

from llama_core.errors import WeightsError
from llama_core.weights import load_model


def test_shards_load_as_the_single_file_does(tmp_path):
    model = load_model(write_shards(tmp_path / "model"))
    for name, values in weights().items():
        assert torch.equal(model.state_dict()[name.removeprefix("model.")], values)


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path, name):
    save_file({Q0: torch.ones(16, 16)}, tmp_path / "model.safetensors")
    folder = write_shards(tmp_path / "model")
    (folder / "sub").mkdir()
    write_index(folder, read_index(folder) | {Q0: name})
    with pytest.raises(WeightsError, match="not a plain name") as caught:
        load_model(folder)
    assert caught.value.key == Q0
    assert caught.value.file == str(folder / "model.safetensors.index.json")


@pytest.mark.parametrize("case", BAD_SHARDS)
def test_bad_shards_are_refused_with_file_and_tensor(tmp_path, case):
    spoil, file, key, words = BAD_SHARDS[case]
    folder = write_shards(tmp_path / "model")
    spoil(folder)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert caught.value.file == str(folder / file)
    assert key is None or caught.value.key == key
    assert words in str(caught.value)


def test_a_tensor_in_two_shards_is_refused_wherever_the_index_puts_it(tmp_path):
    folder = write_shards(tmp_path / "model")
    tensors = weights()
    save_file({n: t for n, t in tensors.items() if ".layers.0." not in n or n == Q0}, folder / SECOND)
    with pytest.raises(WeightsError, match="is in two shards") as caught:
        load_model(folder)
    assert caught.value.key == Q0
