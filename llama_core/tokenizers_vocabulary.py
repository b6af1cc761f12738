"""A ``tokenizer.json``, read by the library ``tokenizers``: text to ids, and each id to the bytes it stands for.

Two families are known: byte-level (Llama 3, Qwen), whose pieces spell every byte as a character, and sentencepiece's
(Llama 2 as Hugging Face has it), with ``▁`` for a space and ``<0x0A>`` for a byte.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from llama_core.errors import TokenizerError
from llama_core.vocabulary import SPACE
from llama_core.weights.strict_json import describe_value, parse_object

#: Llama 3's vocabulary has 128,000 tokens and 280,000 merges of two.
MAX_VALUES = 3_000_000
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class TokenizersVocabulary:
    """What `Tokenizer` asks of a vocabulary, from a ``tokenizer.json``.

    Args:
        content: the bytes of the file. file: its name, for errors.
        begin, end: the texts of the begin and end tokens, or their ids; None for none.
        special_ids: ids that text must never become, besides those that the file marks as special.

    Raises:
        TokenizerError: the file is damaged or of an unknown family, or the library is not installed.
    """

    merges_spaces = False

    def __init__(
        self,
        content: bytes,
        *,
        file: Any = None,
        begin: str | int | None = None,
        end: str | int | None = None,
        special_ids: Collection[int] = (),
    ):
        document = parse_object(content, file, TokenizerError, MAX_VALUES)
        self._library = _read(content, file, special_ids)
        self._file = file
        self.tokens: dict[str, int] = self._library.get_vocab(with_added_tokens=True)
        self.size = max(self.tokens.values(), default=-1) + 1
        if not 0 < self.size <= 2 * len(self.tokens) + 4096:
            raise _wrong(
                file, "ids from 0 on, with few left out", f"{len(self.tokens)} tokens, ids up to {self.size - 1}"
            )
        if len(set(self.tokens.values())) != len(self.tokens):
            ids = sorted(self.tokens.values())
            twice = next(a for a, b in zip(ids, ids[1:], strict=False) if a == b)
            both = sorted(text for text, i in self.tokens.items() if i == twice)
            raise _wrong(file, "an id of its own for every token", f"id {twice} for {both[:3]}"[:200])
        added = self._library.get_added_tokens_decoder()
        special = {i for i, token in added.items() if token.special} | {i for i in special_ids if 0 <= i < self.size}
        plain_added = set(added) - special
        byte_level, self._drops_first_space = _family(document.get("decoder"), file)
        self._labels = [""] * self.size
        self.surfaces: list[bytes | None] = [None] * self.size
        for text, i in self.tokens.items():
            self._labels[i] = text
            if i in special:
                continue
            if i in plain_added:
                self.surfaces[i] = text.encode("utf-8", "replace")
            else:
                self.surfaces[i] = _byte_level_bytes(text) if byte_level else _sentencepiece_bytes(text)
                if byte_level and self.surfaces[i] is not None:
                    shown = self.surfaces[i].decode("utf-8", "backslashreplace")  # type: ignore[union-attr]
                    self._labels[i] = shown.replace(" ", SPACE)
        self.bos_id, self.eos_id = self._id(begin), self._id(end)

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; what it spells never becomes a special token."""
        return self._library.encode(text, add_special_tokens=False).ids

    def at_start(self, token: int) -> bytes | None:
        """What an id stands for where no text came before: without the space that `encode` added, if it adds one."""
        surface = self.surfaces[token]
        return surface[1:] if surface and self._drops_first_space and surface.startswith(b" ") else surface

    def label(self, token: int) -> str:
        """The piece, with ``▁`` for a space."""
        return self._labels[token]

    def _id(self, token: str | int | None) -> int | None:
        if token is None or isinstance(token, int):
            return token
        if token not in self.tokens:
            raise _wrong(self._file, f"a token {token!r}, which tokenizer_config.json names", "no such token")
        return self.tokens[token]


def _read(content: bytes, file: Any, special_ids: Collection[int]) -> Any:
    try:
        import tokenizers
    except ImportError as e:
        raise missing_library("tokenizers", "tokenizer.json", file) from e
    try:
        library = tokenizers.Tokenizer.from_buffer(content)
        library.no_truncation()
        library.no_padding()
        library.encode_special_tokens = True
        names = [name for name in map(library.id_to_token, special_ids) if name]
        library.add_special_tokens([tokenizers.AddedToken(name, normalized=False) for name in names])
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as e:  # the library's own errors are plain Exceptions, its panics not even these
        reason = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        raise _wrong(file, "a tokenizer.json that the tokenizers library reads", reason) from e
    return library


def missing_library(name: str, what: str, file: Any) -> TokenizerError:
    """The error for a vocabulary whose library is not there."""
    return TokenizerError(
        f"{what} is read by the package {name}, which is not installed",
        file=file,
        key=name,
        expected=f"the package {name}",
        actual="not installed",
        hint="pip install 'llama-core[tokenizers]'",
    )


def _family(decoder: Any, file: Any) -> tuple[bool, bool]:
    """(byte-level?, is the space in front of a text one that encoding added?), told from the decoder."""
    steps = decoder.get("decoders", [decoder]) if isinstance(decoder, dict) else []
    kinds = [step.get("type") for step in steps if isinstance(step, dict)]
    if kinds == ["ByteLevel"]:
        return True, False
    if kinds and set(kinds) <= {"Replace", "ByteFallback", "Fuse", "Strip", "Metaspace"}:
        prepends = any(step.get("type") == "Metaspace" and step.get("prepend_scheme") != "never" for step in steps)
        return False, prepends or "Strip" in kinds
    raise _wrong(file, "a byte-level decoder, or sentencepiece's", f"decoder: {describe_value(decoder)} {kinds}"[:200])


def _byte_alphabet() -> dict[str, int]:
    """Character -> byte: visible Latin-1 characters stand for themselves, the other 68 bytes for U+0100 onwards.

    Source: Radford et al. 2019, ``bytes_to_unicode`` in the code of GPT-2.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [byte for byte in range(256) if byte not in set(visible)]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(rest)}


_ALPHABET = _byte_alphabet()


def _byte_level_bytes(text: str) -> bytes | None:
    if any(character not in _ALPHABET for character in text):
        return text.encode("utf-8", "replace")
    return bytes(_ALPHABET[character] for character in text)


def _sentencepiece_bytes(text: str) -> bytes:
    byte = _BYTE.fullmatch(text)
    return bytes([int(byte[1], 16)]) if byte else text.replace(SPACE, " ").encode("utf-8", "replace")


def _wrong(file: Any, expected: str, actual: str) -> TokenizerError:
    return TokenizerError(
        "the tokenizer cannot be used", file=file, expected=expected, actual=actual, hint="fetch tokenizer.json again"
    )
