"""Small sentencepiece vocabularies, trained here, and tokenizers over them."""

import functools
import io
import struct

import sentencepiece

from llama_core.tokenizer import Tokenizer
from llama_core.vocabulary import SentencePieceVocabulary

TEXT = [f"the cat number {i} sat on the mat, and said:  hello  world\té 日本 🙂 <tag> {i * 7}" for i in range(300)]

LLAMA = dict(
    vocab_size=340,
    model_type="bpe",
    byte_fallback=True,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
)

#: Settings as Llama's, and each other kind of vocabulary that the library can write.
SETTINGS = {
    "llama": {},
    "unigram": dict(model_type="unigram", hard_vocab_limit=False),
    "no byte fallback": dict(byte_fallback=False, vocab_size=80),
    "spaces merged": dict(remove_extra_whitespaces=True),
    "no space added": dict(add_dummy_prefix=False),
    "no space added, spaces merged": dict(add_dummy_prefix=False, remove_extra_whitespaces=True),
    "spaces behind words": dict(treat_whitespace_as_suffix=True),
    "user-defined": dict(user_defined_symbols=["<tag>", "▁hel", " x"]),
    "no begin, no end": dict(bos_id=-1, eos_id=-1),
    "own unknown": dict(unk_surface="?", byte_fallback=False, vocab_size=80),
}


@functools.cache
def train(name: str = "llama") -> bytes:
    """The bytes of a tokenizer.model."""
    file = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXT), model_writer=file, minloglevel=2, **LLAMA | SETTINGS[name]
    )
    return file.getvalue()


@functools.cache
def tokenizer(content: bytes) -> Tokenizer:
    return Tokenizer(SentencePieceVocabulary(content))


def library(content: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=content)


def message(*fields: tuple[int, int | float | bytes]) -> bytes:
    """A protobuf message by hand: ints as varints below 128, floats in 32 bits, bytes with their length."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            size = len(value)
            length = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
            out += bytes([number << 3 | 2]) + length + value
        elif isinstance(value, float):
            out += bytes([number << 3 | 5]) + struct.pack("<f", value)
        else:
            out += bytes([number << 3, value])
    return out
