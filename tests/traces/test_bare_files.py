"""Bare files and maps that cannot be used: an error or a finding each, and no advice to read pickles."""

import io

import numpy as np
import pytest
from small_traces import golden

from llama_core.errors import TraceError
from llama_core.traces import compare


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "golden", noise=("float32",))


def impossible_shape():
    out = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": (-1, 53)}
    np.lib.format.write_array_header_1_0(out, header)
    return out.getvalue() + bytes(4096)


@pytest.mark.parametrize("content", [b"hello", b"", impossible_shape()], ids=["text", "nothing", "negative size"])
def test_what_is_no_array_file_is_refused_in_our_words(right, tmp_path, content):
    (tmp_path / "logits.npy").write_bytes(content)
    with pytest.raises(TraceError, match="is no array file") as caught:
        compare(right, tmp_path)
    assert caught.value.file.endswith("logits.npy") and "pickle" not in str(caught.value)


def test_an_array_without_entries_is_a_finding(right, tmp_path):
    np.save(tmp_path / "logits.npy", np.zeros((1, 0, 53), np.float32))
    assert ("shape", "logits") in {(found.kind, found.name) for found in compare(right, tmp_path).findings}


@pytest.mark.parametrize("order", ["[]", "[1, 0]", "[4, 3, 2, 1, 0]"])
def test_an_order_of_another_length_than_the_axis_is_refused(right, tmp_path, order):
    rule = f'theirs = "layers.{{n}}.q"\nours = "layers.{{n}}.q"\norder = {{H = {order}}}'
    (tmp_path / "map.toml").write_text(f"version = 1\n[[tensor]]\n{rule}\n")
    with pytest.raises(TraceError, match="the order of H") as caught:
        compare(right, right, map=tmp_path / "map.toml")
    assert "4, as many as" in str(caught.value)


def test_an_order_of_texts_is_refused(right, tmp_path):
    rule = 'theirs = "layers.{n}.q"\nours = "layers.{n}.q"\norder = {H = ["0", "1", "2", "3"]}'
    (tmp_path / "map.toml").write_text(f"version = 1\n[[tensor]]\n{rule}\n")
    with pytest.raises(TraceError, match="not right"):
        compare(right, right, map=tmp_path / "map.toml")
