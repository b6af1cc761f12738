"""Vocabularies in ``tokenizer.json``, trained here by the tokenizers library, and documents that are none."""

import json

from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Library
from vocabularies import TEXT

from llama_core.tiktoken_vocabulary import PATTERN

SPECIALS = ["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"]


def byte_level() -> Library:
    """As Llama 3's: split by a pattern, then byte pairs."""
    library = Library(models.BPE(ignore_merges=True))
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    library.train_from_iterator(TEXT, trainer)
    library.add_special_tokens(SPECIALS)
    return library


def sentencepiece_like() -> Library:
    """As Llama 2's in Hugging Face form: ▁ for spaces, one put in front, bytes for what is in no piece."""
    alphabet = ["<unk>", "<s>", "</s>", *(f"<0x{n:02X}>" for n in range(256))]
    trained = Library(models.BPE())
    trained.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trained.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=450, special_tokens=alphabet, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    library = Library(
        models.BPE(
            model["vocab"],
            [tuple(pair) for pair in model["merges"]],
            unk_token="<unk>",
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    library.normalizer = trained.normalizer
    library.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    library.add_special_tokens([AddedToken(name, normalized=False, special=True) for name in alphabet[:3]])
    return library


BAD_JSON = {
    "no tokenizer": b"{}",
    "no JSON": b"not json",
    "an array": b"[1]",
    "a key twice": b'{"model": {}, "model": {}}',
    "no decoder": b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}',
    "an unknown decoder": b'{"version": "1.0", "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},'
    b' "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}',
    "ids far apart": b'{"version": "1.0", "decoder": {"type": "Fuse"},'
    b' "model": {"type": "BPE", "vocab": {"a": 0, "b": 4000000000}, "merges": []}}',
    "nested deep": b'{"model": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}
