"""Folders: which one a name means, what links in it lead to, and what it holds in place of weights."""

import json
import os

import pytest
import torch
from bad_folders import NO_WEIGHTS
from model_folders import CONFIG, weights, write_folder

from llama_core.errors import WeightsError
from llama_core.weights import load_model, model_folder


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    folder = write_folder(tmp_path / "model")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out of the folder") as caught:
        load_model(folder)
    assert caught.value.file == str(folder / name)
    assert caught.value.actual == str(tmp_path / "elsewhere")


def test_a_link_within_the_folder_is_followed(tmp_path):
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "step-1000.weights")
    (folder / "model.safetensors").symlink_to("step-1000.weights")
    assert torch.equal(load_model(folder).lm_head.weight, weights()["lm_head.weight"])


@pytest.mark.parametrize("below", ["", "original", "checkpoints/last"])
def test_the_links_of_the_hub_cache_are_followed_from_every_folder_of_a_snapshot(tmp_path, below):
    repository = tmp_path / "models--someone--small"
    folder = repository / "snapshots" / "0123456789abcdef" / below
    folder.mkdir(parents=True)
    (repository / "blobs").mkdir()
    write_folder(folder)
    for number, name in enumerate(["config.json", "model.safetensors"]):
        blob = repository / "blobs" / f"{number:064x}"
        (folder / name).rename(blob)
        (folder / name).symlink_to(os.path.relpath(blob, folder))
    assert torch.equal(load_model(folder).lm_head.weight, weights()["lm_head.weight"])


def test_a_link_from_the_hub_cache_to_elsewhere_is_refused(tmp_path):
    snapshot = tmp_path / "models--someone--small" / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    write_folder(snapshot)
    (snapshot / "model.safetensors").rename(tmp_path / "elsewhere")
    (snapshot / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="leads out of the folder"):
        load_model(snapshot)


def test_a_broken_link_is_called_one(tmp_path):
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("gone")
    with pytest.raises(WeightsError, match="a link to a file that is not there"):
        load_model(folder)


@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_a_folder_without_weights_says_what_it_holds(tmp_path, case):
    names, words = NO_WEIGHTS[case]
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError) as caught:
        load_model(tmp_path)
    assert (caught.value.file, caught.value.key) == (str(tmp_path), "model.safetensors")
    assert words in f"{caught.value.actual} {caught.value.hint}"


@pytest.mark.parametrize("name", ["llama-2-7b", "no/such/folder", "a\0b", ""])
def test_a_name_that_is_no_folder_lists_what_there_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_model(name)
    assert caught.value.key == "folder"
    assert "stories" in str(caught.value)


def test_a_file_is_not_taken_for_its_folder(tmp_path):
    folder = write_folder(tmp_path / "model")
    with pytest.raises(WeightsError, match="a regular file, not a folder"):
        model_folder(folder / "model.safetensors")


def test_stories_is_the_folder_that_comes_with_the_package():
    assert model_folder("stories").parts[-2:] == ("llama_core", "stories")


@pytest.mark.parametrize(("key", "value"), [("dtype", "int8"), ("dtype", torch.int64), ("device", "abacus")])
def test_an_impossible_argument_is_named(tmp_path, key, value):
    folder = write_folder(tmp_path / "model")
    with pytest.raises(ValueError) as caught:
        load_model(folder, **{key: value})
    assert caught.value.key == key
