"""What `Tokenizer` asks of a vocabulary, and the one that sentencepiece reads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Protocol, runtime_checkable

import sentencepiece

from llama_core.errors import TokenizerError
from llama_core.sentencepiece_model import parse_sentencepiece_model, with_control_pieces

SPACE = "\u2581"  # the character that stands for a space inside pieces


@runtime_checkable
class Vocabulary(Protocol):
    """Text to ids, and each id to the bytes it stands for.

    Attributes:
        size: the number of ids. bos_id, eos_id: begin and end a text, or None.
        surfaces: by id, the UTF-8 bytes that it stands for, part of a character perhaps; None for one that stands for
            no text.
        merges_spaces: spaces at the start of a text count as none.
    """

    size: int
    bos_id: int | None
    eos_id: int | None
    surfaces: list[bytes | None]
    merges_spaces: bool

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, which is valid Unicode; never a special token."""
        ...

    def at_start(self, token: int) -> bytes | None:
        """What an id stands for where no text came before."""
        ...

    def label(self, token: int) -> str:
        """A label for one id."""
        ...


class SentencePieceVocabulary:
    """A ``tokenizer.model``.

    Args:
        content: the bytes of the file.
        file: its name, for errors.
        special_ids: ids that text must never become, besides those that the file itself marks as control pieces:
            the ids that a model's configuration names as begin, end and padding.

    Attributes:
        size: the number of pieces. bos_id, eos_id: begin and end a text, or None.
        surfaces: by id, the UTF-8 bytes that it stands for, part of a character perhaps; None for one that stands for
            no text.
        merges_spaces: spaces at the start of a text count as none.

    Raises:
        TokenizerError: the bytes are no complete sentencepiece model.
    """

    def __init__(self, content: bytes, *, file: Any = None, special_ids: Collection[int] = ()):
        model = parse_sentencepiece_model(content, file)
        self._pieces = model.pieces
        self._drops_first_space = model.adds_leading_space or model.merges_spaces
        self.size = len(model.pieces)
        special = {i for i in special_ids if 0 <= i < self.size}
        self.merges_spaces = model.merges_spaces
        writable = {i for i in special if model.pieces[i].kind in ("normal", "user-defined")}
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=with_control_pieces(content, writable))
        except (RuntimeError, ValueError, OSError) as problem:
            raise TokenizerError(
                f"the sentencepiece library refuses this model: {problem}",
                file=file,
                expected="a sentencepiece model",
                actual=str(problem)[:200],
                hint="fetch the file again",
            ) from problem
        if self._processor.vocab_size() != self.size:
            raise TokenizerError(
                "the sentencepiece library reads another number of pieces than the file holds",
                file=file,
                expected=self.size,
                actual=self._processor.vocab_size(),
            )
        surfaces = {
            "control": lambda text: None,
            "unknown": lambda text: model.unknown_surface.encode(),
            "byte": lambda text: bytes([int(text[3:5], 16)]),
        }
        self.surfaces: list[bytes | None] = [
            None if i in special else surfaces.get(piece.kind, _surface)(piece.text)
            for i, piece in enumerate(model.pieces)
        ]
        self.bos_id = _id_or_none(self._processor.bos_id())
        self.eos_id = _id_or_none(self._processor.eos_id())

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``, which must be valid Unicode; never a control piece."""
        return self._processor.encode(text)

    def at_start(self, token: int) -> bytes | None:
        """What an id stands for where no text came before: without the space that `encode` added."""
        text, surface = self._pieces[token].text, self.surfaces[token]
        if surface is not None and self._drops_first_space and text.startswith(SPACE):
            return surface[1:]
        return surface

    def label(self, token: int) -> str:
        """The piece as the vocabulary writes it, with ``▁`` for a space."""
        return self._pieces[token].text


def _surface(text: str) -> bytes:
    return text.replace(SPACE, " ").encode()


def _id_or_none(token: int) -> int | None:
    return token if token >= 0 else None
