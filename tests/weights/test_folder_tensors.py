"""Folders: names, shapes and dtypes of the tensors are those that the configuration asks for."""

import pytest
import torch
from bad_folders import BAD_TENSORS, Q0
from model_folders import edit_config, edit_tensors, weights, write_folder

from llama_core.errors import WeightsError
from llama_core.weights import load_model


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_wrong_tensors_are_all_listed_with_a_hint(tmp_path, case):
    edit, key, words = BAD_TENSORS[case]
    folder = write_folder(tmp_path / "model")
    edit_tensors(folder, edit)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    error = caught.value
    assert error.file.startswith(str(folder))
    assert key in (None, error.key) and error.key
    assert error.expected and error.actual and error.hint
    for word in words:
        assert word in str(error)


def test_every_difference_is_in_the_one_error(tmp_path):
    folder = write_folder(tmp_path / "model")

    def spoil(tensors):
        del tensors["model.norm.weight"]
        tensors["stray"] = torch.ones(2)
        tensors["lm_head.weight"] = torch.ones(3, 16)
        tensors[Q0] = tensors[Q0].to(torch.int32)

    edit_tensors(folder, spoil)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    for words in ("missing: model.norm.weight", "unexpected: stray", "wrong shape: lm_head.weight", f"{Q0}: I32"):
        assert words in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": 1_000_000}, {"hidden_size": 2**20, "head_dim": 4}, {"vocab_size": 2**31 - 1}],
    ids=str,
)
def test_a_configuration_far_larger_than_the_files_is_refused_before_building(tmp_path, changes):
    folder = write_folder(tmp_path / "model")
    edit_config(folder, **changes)
    with pytest.raises(WeightsError, match="much larger model") as caught:
        load_model(folder)
    assert caught.value.file == str(folder / "config.json")
    assert "parameters" in caught.value.expected and "parameters" in caught.value.actual


def harmless(tensors):
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    tensors["model.rotary_emb.inv_freq"] = torch.ones(2)


def test_stored_rotary_frequencies_are_passed_over(tmp_path):
    folder = write_folder(tmp_path / "model")
    edit_tensors(folder, harmless)
    assert torch.equal(load_model(folder).lm_head.weight, weights()["lm_head.weight"])


def test_a_tied_head_that_is_stored_and_equal_is_accepted(tmp_path):
    folder = write_folder(tmp_path / "model")
    edit_config(folder, tie_word_embeddings=True)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    model = load_model(folder)
    assert model.lm_head.weight is model.embed_tokens.weight


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_a_tied_head_that_is_stored_and_differs_is_refused(tmp_path, dtype):
    folder = write_folder(tmp_path / "model")
    edit_config(folder, tie_word_embeddings=True)
    with pytest.raises(WeightsError, match="not the embedding") as caught:
        load_model(folder, dtype=dtype)
    assert (caught.value.key, caught.value.file) == ("lm_head.weight", str(folder / "model.safetensors"))


def test_a_tied_head_of_another_shape_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    edit_config(folder, tie_word_embeddings=True)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": torch.ones(8, 16)}))
    with pytest.raises(WeightsError, match="another shape") as caught:
        load_model(folder)
    assert caught.value.key == "lm_head.weight"
