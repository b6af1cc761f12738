"""What a file that should be safetensors is instead, told from its first bytes."""

from __future__ import annotations

HEADER_START = 8  # bytes of the header's length, before the header

#: (first bytes, what the file is, what to do)
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs",
        "a Git-LFS pointer: a note of where the file is, not the file",
        "run `git lfs pull` in the folder, or download the file itself",
    ),
    (b"<!doctype", "an HTML page", "the download gave an error or log-in page; download the file again"),
    (b"<html", "an HTML page", "the download gave an error or log-in page; download the file again"),
    (b"<?xml", "an XML document", "the download gave an error page; download the file again"),
    (b"gguf", "a GGUF file", "this package reads safetensors; get the Hugging Face form of the model"),
    (b"ggjt", "a GGML file", "this package reads safetensors; get the Hugging Face form of the model"),
    (
        b"pk\x03\x04",
        "a zip archive, such as torch.save writes (pytorch_model.bin, .pth)",
        "convert it to safetensors; pickles can run code and are not read here",
    ),
    (b"\x1f\x8b", "a gzip archive", "unpack it"),
    (b"\xfd7zxz", "an xz archive", "unpack it"),
    (b"(\xb5/\xfd", "a zstandard archive", "unpack it"),
    (b"\x93numpy", "a NumPy array", "this package reads safetensors; get the Hugging Face form of the model"),
    (b"\x89hdf", "an HDF5 file", "this package reads safetensors; get the Hugging Face form of the model"),
    (b"{", "JSON text", "this may be an index or an error message in place of the weights"),
)


def recognise(start: bytes) -> tuple[str, str] | None:
    """What a file is, and a hint, from its first bytes (64 are enough); None when they say nothing.

    Only to be asked about files that are no safetensors, whose first byte can be anything.
    """
    lower = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    for signature, what, hint in _SIGNATURES:
        if lower.startswith(signature):
            return what, hint
    if start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "a pickle, such as torch.save wrote it", "convert it to safetensors; pickles can run code"
    if start and not any(start):
        return "zeros only, as a download that was cut off leaves behind", "download the file again"
    return None
