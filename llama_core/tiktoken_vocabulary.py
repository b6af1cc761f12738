"""A ``tokenizer.model`` in tiktoken's format, as Meta ships Llama 3: one line ``base64 of a token, its rank`` each.

The file has no special tokens: Llama 3 puts 256 of them behind the ranks, under fixed names.
Source: ``models/llama3/tokenizer.py`` in Meta's llama-models repository (names and pattern).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from typing import Any

from llama_core.errors import TokenizerError
from llama_core.tokenizers_vocabulary import missing_library
from llama_core.vocabulary import SPACE

PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|"
    r"\s*[\r\n]+|\s+(?!\S)|\s+"
)
NUM_SPECIAL = 256
LONGEST_RUN = 25_000
_NAMED = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    "<|finetune_right_pad_id|>",
    "<|step_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|eot_id|>",
    "<|python_tag|>",
)
SPECIAL = (*_NAMED, *(f"<|reserved_special_token_{n}|>" for n in range(2, 2 + NUM_SPECIAL - len(_NAMED))))


class TiktokenVocabulary:
    """What `Tokenizer` asks of a vocabulary, from ranks in tiktoken's format with Llama 3's special tokens.

    Args:
        content: the bytes of the file. file: its name, for errors.

    Raises:
        TokenizerError: the file is damaged, or the library is not installed.
    """

    merges_spaces = False

    def __init__(self, content: bytes, *, file: Any = None):
        ranks = parse_ranks(content, file)
        try:
            import tiktoken
        except ImportError as e:
            raise missing_library("tiktoken", "a tokenizer.model in tiktoken's format", file) from e
        special = {name: len(ranks) + n for n, name in enumerate(SPECIAL)}
        self._library = tiktoken.Encoding("llama-3", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens=special)
        self.tokens = special
        self.size = len(ranks) + len(special)
        self.surfaces: list[bytes | None] = [*ranks, *([None] * len(special))]
        self.bos_id: int | None = special["<|begin_of_text|>"]
        self.eos_id: int | None = special["<|end_of_text|>"]
        self.end_ids = tuple(special[name] for name in ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"))

    def encode(self, text: str) -> list[int]:
        """The ids of ``text``; what it spells never becomes a special token."""
        return [i for part in short_runs(text) for i in self._library.encode_ordinary(part)]

    def at_start(self, token: int) -> bytes | None:
        """What an id stands for; this vocabulary adds no space in front of a text."""
        return self.surfaces[token]

    def label(self, token: int) -> str:
        """The piece, with ``▁`` for a space; special tokens by their name."""
        surface = self.surfaces[token]
        if surface is None:
            return SPECIAL[token - (self.size - NUM_SPECIAL)]
        return surface.decode("utf-8", "backslashreplace").replace(" ", SPACE)


def short_runs(text: str, longest: int = LONGEST_RUN) -> Iterator[str]:
    """The text in parts, none of which has more than ``longest`` spaces, or characters that are none, in a row.

    The library splits by a pattern that goes back over a run, and gives up on a stack of its own when that is too
    long. Meta's tokenizer cuts at the same places, so the ids are its ids.
    Source: ``encode`` in ``models/llama3/tokenizer.py`` of Meta's llama-models repository.
    """
    start = run = 0
    in_spaces = text[:1].isspace()
    for position, character in enumerate(text):
        run += 1
        if character.isspace() != in_spaces:
            in_spaces, run = not in_spaces, 1
        elif run > longest:
            yield text[start:position]
            start, run = position, 1
    yield text[start:]


def is_tiktoken(content: bytes) -> bool:
    """Whether the first line is ``base64 of a token, a space, its rank``."""
    token, _, rank = content[:200].split(b"\n")[0].rstrip(b"\r").partition(b" ")
    if not token or not rank.isdigit():
        return False
    try:
        return bool(base64.b64decode(token, validate=True))
    except binascii.Error:
        return False


def parse_ranks(content: bytes, file: Any = None) -> dict[bytes, int]:
    """Token -> rank, in the order of ranks, which must be 0, 1, 2 … with every single byte among the tokens.

    Raises:
        TokenizerError: naming the line.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        token, _, rank = line.partition(b" ")
        try:
            data = base64.b64decode(token, validate=True)
        except binascii.Error:
            data = b""
        if not data or data in ranks or rank != str(len(ranks)).encode():
            raise TokenizerError(
                f"line {number} of the tiktoken vocabulary is damaged",
                file=file,
                key=f"line {number}",
                expected=f"base64 of a token that is new, a space, {len(ranks)}",
                actual=repr(line[:60])[2:-1] or "an empty line",
                hint="fetch the file again",
            )
        ranks[data] = len(ranks)
    absent = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if absent:
        raise TokenizerError(
            "the tiktoken vocabulary is cut off: it cannot spell every byte",
            file=file,
            expected="every single byte among the tokens",
            actual=f"{len(ranks)} tokens, {len(absent)} bytes missing, 0x{absent[0]:02x} first",
            hint="fetch the file again",
        )
    return ranks
