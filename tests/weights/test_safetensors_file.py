"""model.safetensors: damaged, foreign and lying files are refused before anything of their claimed size is made."""

import io
import json
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import torch
from model_folders import edit_header, edit_tensors, write_folder, write_raw
from safetensors.torch import save_file

from llama_core.errors import WeightsError
from llama_core.weights import load_model
from llama_core.weights.safetensors_file import MappedFile, read_header, read_tensor

NAME = "model.norm.weight"


def entry(**changes):
    return lambda header: header.update({NAME: header[NAME] | changes})


def saved_by_torch(**options):
    buffer = io.BytesIO()
    torch.save({NAME: torch.ones(16)}, buffer, **options)
    return buffer.getvalue()


def numpy_file():
    buffer = io.BytesIO()
    np.save(buffer, np.ones(16))
    return buffer.getvalue()


#: what the file is instead -> (its bytes, a word of the message)
FOREIGN = {
    "empty": (b"", "empty"),
    "one byte": (b"\x07", "no safetensors"),
    "eight bytes": (struct.pack("<Q", 2), "no safetensors"),
    "a Git-LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 5\n", "Git-LFS"),
    "an HTML page": (b"\n<!DOCTYPE html><html><body>404</body></html>", "HTML"),
    "an HTML page without a doctype": (b"<html>" + b" " * 100, "HTML"),
    "an XML error": (b'<?xml version="1.0"?><Error>AccessDenied</Error>', "XML"),
    "JSON": (b'{"error": "not found", "code": 404}', "JSON"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + b"\x00" * 64, "GGUF"),
    "a torch zip": (saved_by_torch(), "zip archive"),
    "a torch pickle": (saved_by_torch(_use_new_zipfile_serialization=False), "pickle"),
    "a pickle": (pickle.dumps({"a": 1}), "pickle"),
    "gzip": (b"\x1f\x8b\x08" + b"\x00" * 40, "gzip"),
    "NumPy": (numpy_file(), "NumPy"),
    "zeros": (b"\x00" * 4096, "zeros"),
    "noise": (bytes(range(7, 200)), "no safetensors"),
    "text": (b"Once upon a time there was a model", "no safetensors"),
}


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


#: what is wrong -> (how the header is changed, the key that is named, a word of the message)
BAD_HEADERS = {
    "dtype unknown": (entry(dtype="F7"), NAME, "unknown dtype"),
    "dtype a number": (entry(dtype=32), NAME, "unknown dtype"),
    "dtype of another size": (entry(dtype="F16"), NAME, "bytes to F16"),
    "shape too large": (entry(shape=[17]), NAME, "bytes to F32 [17]"),
    "shape negative": (entry(shape=[-16]), NAME, "impossible shape"),
    "shape of 10^15": (entry(shape=[10**15]), NAME, "impossible shape"),
    "shape that overflows": (entry(shape=[2**40, 2**40]), NAME, "bytes to"),
    "shape of fractions": (entry(shape=[16.0]), NAME, "impossible shape"),
    "shape of truths": (entry(shape=[True] * 2), NAME, "impossible shape"),
    "shape no list": (entry(shape="16"), NAME, "impossible shape"),
    "shape of 9 axes": (entry(shape=[16] + [1] * 8), NAME, "impossible shape"),
    "offsets turned round": (entry(data_offsets=[64, 0]), NAME, "impossible data_offsets"),
    "offsets negative": (entry(data_offsets=[-64, 0]), NAME, "impossible data_offsets"),
    "offsets one number": (entry(data_offsets=[64]), NAME, "impossible data_offsets"),
    "offsets beyond the file": (entry(data_offsets=[10**9, 10**9 + 64]), NAME, "hole"),
    "overlap": (entry(data_offsets=[0, 64]), None, "overlaps"),
    "entry a list": (lambda h: h.update({NAME: [1]}), NAME, "malformed"),
    "entry null": (lambda h: h.update({NAME: None}), NAME, "malformed"),
    "entry without offsets": (lambda h: h[NAME].pop("data_offsets"), NAME, "malformed"),
    "entry with more": (entry(strides=[1]), NAME, "malformed"),
    "tensor left out": (lambda h: h.pop(NAME), None, "o"),
}


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


#: what is wrong -> (header bytes, header length as stated or None, a word of the message)
BAD_STARTS = {
    "header no JSON": (b"{not json}", None, "not JSON"),
    "header a list": (b"[]", None, "no safetensors"),
    "header with a key twice": (b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"a":1}', None, "more than once"),
    "header with NaN": (b'{"a":NaN}', None, "NaN"),
    "header nested deep": (b'{"a":' * 100_000, None, "nested too deep"),
    "header longer than the file": (b'{"a":1}', 100_000, "cut off within its header"),
    "header of 2^63": (b'{"a":1}', 2**63, "no safetensors"),
    "header of five megabytes": (b"{" + b" " * 5_000_000 + b"}", None, "header"),
    "header no UTF-8": (b'{"\xff":1}', None, "UTF-8"),
}


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
