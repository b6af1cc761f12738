"""What may lie in place of a safetensors file, and headers that lie: what must be said of each."""

import io
import pickle
import struct

import numpy as np
import torch

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
