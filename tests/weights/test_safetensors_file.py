"""model.safetensors: damaged, foreign and lying files are refused before anything of their claimed size is made."""

import json
import os
import tracemalloc

import pytest
import torch
from bad_safetensors import BAD_HEADERS, BAD_STARTS, FOREIGN, NAME
from model_folders import edit_header, edit_tensors, write_folder, write_raw
from safetensors.torch import save_file

from llama_core.errors import WeightsError
from llama_core.weights import load_model
from llama_core.weights.safetensors_file import MappedFile, read_header, read_tensor


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_file_is_recognised_by_content(tmp_path, kind):
    content, words = FOREIGN[kind]
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert caught.value.file == str(folder / "model.safetensors")
    assert words in caught.value.message + str(caught.value.actual)
    assert caught.value.expected and caught.value.hint


@pytest.mark.parametrize("case", BAD_HEADERS)
def test_a_header_that_lies_is_refused_with_the_tensor(tmp_path, case):
    edit, key, words = BAD_HEADERS[case]
    folder = write_folder(tmp_path / "model")
    edit_header(folder, edit)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert caught.value.file == str(folder / "model.safetensors")
    assert key in (None, caught.value.key)
    assert words in caught.value.message
    assert caught.value.expected is not None and caught.value.actual is not None
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("case", BAD_STARTS)
def test_a_header_that_cannot_be_read_is_refused(tmp_path, case):
    header, length, words = BAD_STARTS[case]
    folder = write_folder(tmp_path / "model")
    write_raw(folder / "model.safetensors", header, length=length)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert caught.value.file == str(folder / "model.safetensors")
    assert words in caught.value.message


def test_a_cut_off_file_says_how_much_is_missing(tmp_path):
    folder = write_folder(tmp_path / "model")
    path = folder / "model.safetensors"
    size = path.stat().st_size
    os.truncate(path, size - 100)
    with pytest.raises(WeightsError, match="100 bytes and 2 of 21 tensors are missing") as caught:
        load_model(folder)
    assert (caught.value.expected, caught.value.actual) == (f"{size:,} bytes", f"{size - 100:,} bytes")


def test_bytes_after_the_last_tensor_are_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    with open(folder / "model.safetensors", "ab") as file:
        file.write(b"\0" * 7)
    with pytest.raises(WeightsError, match="7 bytes that no tensor owns"):
        load_model(folder)


def test_a_header_of_many_empty_tensors_takes_little_memory(tmp_path):
    folder = write_folder(tmp_path / "model")
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    write_raw(folder / "model.safetensors", json.dumps({f"t{n}": empty for n in range(400_000)}).encode())
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="header"):
            load_model(folder)
        assert tracemalloc.get_traced_memory()[1] < 64_000_000
    finally:
        tracemalloc.stop()


def test_a_claim_of_256_terabytes_is_held_against_the_size_of_the_file(tmp_path):
    folder = write_folder(tmp_path / "model")
    text = json.dumps({NAME: {"dtype": "F32", "shape": [2**46], "data_offsets": [0, 2**48]}}).encode()
    write_raw(folder / "model.safetensors", text)
    with pytest.raises(WeightsError, match="cut off") as caught:
        load_model(folder)
    assert caught.value.key == NAME
    assert caught.value.actual == f"{8 + len(text):,} bytes"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "model.safetensors.index.json"])
def test_a_named_pipe_is_refused_and_not_waited_for(tmp_path, name):
    folder = write_folder(tmp_path / "model")
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ValueError, match="a named pipe") as caught:
        load_model(folder)
    assert caught.value.file == str(folder / name)


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert caught.value.file == str(folder / "model.safetensors")
    assert "folder" in caught.value.message or "directory" in caught.value.message


@pytest.mark.parametrize("how", ["mapped", "read"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_those_that_the_safetensors_library_wrote(tmp_path, dtype, how):
    generator = torch.Generator().manual_seed(3)
    wanted = {"a": torch.randn(3, 5, generator=generator).to(dtype), "b": torch.randn(7, generator=generator).to(dtype)}
    save_file(wanted, tmp_path / "x.safetensors")
    header = read_header(tmp_path, "x.safetensors")
    mapped = MappedFile(tmp_path / "x.safetensors")
    for name, values in wanted.items():
        found = mapped.tensor(header[name]) if how == "mapped" else read_tensor(header[name])
        assert found.dtype == dtype and torch.equal(found, values)


def test_tensors_that_the_file_does_not_align_are_read_right(tmp_path):
    values = torch.arange(6, dtype=torch.float32)
    header = b'{"a":{"dtype":"F32","shape":[6],"data_offsets":[0,24]}}'  # 55 bytes: data begins at byte 63
    write_raw(tmp_path / "x.safetensors", header, values.numpy().tobytes())
    entries = read_header(tmp_path, "x.safetensors")
    assert torch.equal(MappedFile(tmp_path / "x.safetensors").tensor(entries["a"]), values)


def test_writing_to_a_mapped_parameter_leaves_the_file_alone(tmp_path):
    folder = write_folder(tmp_path / "model")
    before = (folder / "model.safetensors").read_bytes()
    model = load_model(folder)
    with torch.no_grad():
        model.norm.weight.fill_(7)
    assert (folder / "model.safetensors").read_bytes() == before


def test_without_mmap_a_file_may_be_cut_short_afterwards(tmp_path):
    folder = write_folder(tmp_path / "model")
    wanted = load_model(folder, mmap=False)
    expected = wanted.lm_head.weight.clone()
    os.truncate(folder / "model.safetensors", 0)
    assert torch.equal(wanted.lm_head.weight, expected)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_nan_and_infinity_are_refused_with_tensor_and_index(tmp_path, dtype, value):
    folder = write_folder(tmp_path / "model")

    def spoil(tensors):
        for name in tensors:
            tensors[name] = tensors[name].to(dtype)
        tensors["model.layers.1.mlp.up_proj.weight"][5, 3] = value

    edit_tensors(folder, spoil)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert caught.value.key == "model.layers.1.mlp.up_proj.weight"
    assert caught.value.file == str(folder / "model.safetensors")
    assert "[5, 3]" in caught.value.actual and str(value) in caught.value.actual


def test_a_value_that_the_wanted_dtype_cannot_hold_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    edit_tensors(folder, lambda tensors: tensors["lm_head.weight"][2].fill_(70_000.0))
    with pytest.raises(WeightsError, match=r"70000 at \[2, 0\], which float16 cannot hold"):
        load_model(folder, dtype="float16")
    assert load_model(folder, dtype="bfloat16").lm_head.weight[2, 0] == 70_144  # the nearest bfloat16
