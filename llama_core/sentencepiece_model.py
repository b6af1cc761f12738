"""A sentencepiece ``tokenizer.model`` as data, read strictly.

The sentencepiece library takes an empty file for a vocabulary of nothing, and a file that was cut behind its pieces for
another algorithm. So the file is read here first, as the protobuf message that it is, and refused with a reason.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from llama_core.errors import TokenizerError

#: The kinds of a piece, by the number that stands for them in the file.
KINDS = {1: "normal", 2: "unknown", 3: "control", 4: "user-defined", 5: "unused", 6: "byte"}
#: How text is cut, by the number in the trainer's settings.
ALGORITHMS = {1: "unigram", 2: "bpe", 3: "word", 4: "char"}

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: The bytes that a field of each wire type takes; None where a number in front says so, or is the value itself.
_SIZES = {_VARINT: None, _FIXED64: 8, _BYTES: None, _FIXED32: 4}


@dataclass(frozen=True)
class Piece:
    """One entry of the vocabulary: its text, with ``▁`` (U+2581) for a space, its kind, one of ``KINDS``, its score.

    Of two merges, the one into the piece with the higher score comes first.
    """

    text: str
    kind: str
    score: float = 0.0


@dataclass(frozen=True)
class SentencePieceModel:
    """What decoding needs to know of a ``tokenizer.model``.

    Attributes:
        pieces: the vocabulary, by id.
        unknown_surface: what the unknown piece reads as.
        adds_leading_space: text gets a space in front before it is cut into pieces (Llama's do).
        merges_spaces: runs of spaces count as one, and those at the ends as none (Llama's do not).
        algorithm: how text is cut into pieces, one of ``ALGORITHMS``; Llama's are ``bpe``.
        rewrites: characters are replaced by others before (Llama's are not).
    """

    pieces: tuple[Piece, ...]
    unknown_surface: str
    adds_leading_space: bool
    merges_spaces: bool
    algorithm: str = "unigram"
    rewrites: bool = False


def parse_sentencepiece_model(content: bytes, file: Any = None) -> SentencePieceModel:
    """Read the bytes of a ``tokenizer.model``.

    Raises:
        TokenizerError: the bytes are no sentencepiece model, or not all of one; names ``file`` and what was found.

    Source: the message ``ModelProto`` in sentencepiece 0.2's ``sentencepiece_model.proto``; the wire format as in
    protobuf's "Encoding" page.
    """
    _refuse_lookalikes(content, file)
    pieces: list[Piece] = []
    trainer: dict[int, Any] | None = None
    normalizer: dict[int, Any] | None = None
    denormalizer: dict[int, Any] = {}
    try:
        for number, value in _fields(content):
            if number == 1:
                pieces.append(_piece(value, len(pieces)))
            elif number == 2:
                trainer = dict(_fields(value))
            elif number == 3:
                normalizer = dict(_fields(value))
            elif number == 5:
                denormalizer = dict(_fields(value))
        unknown_surface = (trainer or {}).get(44, " \u2047 ".encode()).decode("utf-8")
    except _Malformed as problem:
        raise TokenizerError(
            f"not a sentencepiece model, or a damaged one: {problem}",
            file=file,
            expected="a sentencepiece model, whole",
            actual=f"{len(content):,} bytes that begin with {content[:16]!r}",
            hint="fetch the file again",
        ) from None
    if not pieces or trainer is None or normalizer is None:
        parts = {"pieces": pieces, "the trainer's settings": trainer, "the normaliser's settings": normalizer}
        raise TokenizerError(
            "a sentencepiece model with a part missing",
            file=file,
            expected="pieces, the trainer's settings and the normaliser's settings",
            actual="no " + ", no ".join(name for name, part in parts.items() if not part),
            hint="the file was cut short, or is no tokenizer; fetch it again",
        )
    if denormalizer.get(2):
        raise TokenizerError(
            "the vocabulary rewrites text after decoding, which is not supported",
            file=file,
            key="denormalizer_spec.precompiled_charsmap",
            expected="absent, as in every Llama vocabulary",
            actual=f"{len(denormalizer[2]):,} bytes",
        )
    return SentencePieceModel(
        pieces=tuple(pieces),
        unknown_surface=unknown_surface,
        adds_leading_space=bool(normalizer.get(3, 1)),
        merges_spaces=bool(normalizer.get(4, 1)),
        algorithm=ALGORITHMS.get(trainer.get(3, 1), "unknown"),
        rewrites=bool(normalizer.get(2)),
    )


class _Malformed(Exception):
    """The bytes do not follow the wire format, or a field is not what the message says."""


def _piece(content: Any, index: int) -> Piece:
    if not isinstance(content, bytes):
        raise _Malformed(f"piece {index} is a number")
    fields = dict(_fields(content))
    text, score, kind = fields.get(1), fields.get(2, bytes(4)), fields.get(3, 1)
    if not isinstance(text, bytes) or not text:
        raise _Malformed(f"piece {index} has no text")
    number = struct.unpack("<f", score)[0] if isinstance(score, bytes) and len(score) == 4 else math.nan
    if not math.isfinite(number):
        raise _Malformed(f"piece {index} has no finite score")
    if kind not in KINDS:
        raise _Malformed(f"piece {index} is of kind {kind!r}, which does not exist")
    if KINDS[kind] == "byte" and not re.fullmatch(rb"<0x[0-9A-F]{2}>", text):
        raise _Malformed(f"piece {index} should be a byte, as in <0x0A>, and is {text[:16]!r}")
    try:
        return Piece(text.decode("utf-8"), KINDS[kind], number)
    except UnicodeDecodeError:
        raise _Malformed(f"piece {index} is {text[:16]!r}, which is not UTF-8") from None


def _fields(content: Any) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message in their order: (number, an int or bytes)."""
    if not isinstance(content, bytes):
        raise _Malformed("a number stands where a message should")
    position, end = 0, len(content)
    while position < end:
        start = position
        tag, position = (content[position], position + 1) if content[position] < 128 else _varint(content, position)
        number, wire_type = tag >> 3, tag & 7
        if number == 0 or wire_type not in _SIZES:
            raise _Malformed(f"byte {start} begins no field")
        size = _SIZES[wire_type]
        if size is None:
            # Nearly every number is below 128; calling for these would take most of the time.
            short = position < end and content[position] < 128
            size, position = (content[position], position + 1) if short else _varint(content, position)
        if wire_type == _VARINT:
            yield number, size
            continue
        if size > end - position:
            raise _Malformed(f"field {number} at byte {start} runs beyond the end")
        yield number, content[position : position + size]
        position += size


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            break
        byte = content[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise _Malformed(f"the number that ends at byte {position} is cut or too long")


def _refuse_lookalikes(content: bytes, file: Any) -> None:
    """Name the usual things that lie under the name of a vocabulary."""
    start = content[:200].lstrip().lower()
    for looks, what, hint in (
        (not content, "an empty file", "fetch the file again"),
        (start.startswith(b"version https://git-lfs"), "a Git-LFS pointer", "run `git lfs pull` in the folder"),
        (start.startswith((b"<!doctype", b"<html")), "a web page", "download the file itself, not its page"),
        (start.startswith(b"{"), "JSON", "only sentencepiece vocabularies are read"),
        (_is_tiktoken(content), "a tiktoken vocabulary", "only sentencepiece vocabularies are read"),
    ):
        if looks:
            raise TokenizerError(
                f"{what} where a sentencepiece model should be",
                file=file,
                expected="a sentencepiece model",
                actual=f"{what}, {len(content):,} bytes",
                hint=hint,
            )


def _is_tiktoken(content: bytes) -> bool:
    """Whether the first line is ``base64 of a token, a space, its rank``."""
    token, _, rank = content[:200].split(b"\n")[0].partition(b" ")
    return rank.isdigit() and token.isascii()


def with_control_pieces(content: bytes, ids: Collection[int]) -> bytes:
    """The same model with some pieces made control pieces, which no text can become."""
    if not ids:
        return content
    written, index = [], 0
    for number, value in _fields(content):
        if number == 1 and isinstance(value, bytes):
            if index in ids:
                value += b"\x18\x03"  # field 3, the kind: 3, control; of a field given twice the last one holds
            index += 1
        if isinstance(value, bytes):
            written.append(_as_varint(number << 3 | _BYTES) + _as_varint(len(value)) + value)
    return b"".join(written)


def _as_varint(value: int) -> bytes:
    groups = bytearray()
    while value > 127:
        groups.append(value & 127 | 128)
        value >>= 7
    return bytes([*groups, value])
