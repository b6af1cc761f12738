"""tokenizer.json and tiktoken's format against transformers' tokenizers, on vocabularies trained here."""

import base64
import builtins
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from json_vocabularies import BAD_JSON, SPECIALS, byte_level, sentencepiece_like
from tokenizers import Tokenizer as Library
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter, bytes_to_unicode

from llama_core.errors import TokenizerError
from llama_core.tiktoken_vocabulary import SPECIAL
from llama_core.tokenizer import Tokenizer

#: Every plane of Unicode, with spaces, newlines, control characters and what looks like special tokens.
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=8),
        st.sampled_from([" ", "  ", "\n", "\r\n", "\t", "\0", "\x7f", "▁", "<s>", "</s>", "<|eot_id|>", "<0x0A>"]),
        st.sampled_from(["the cat", " hello", "12345", "don't", "é", "e\u0301", "日本", "🙂", "\U0010ffff", "\ufeff"]),
    ),
    max_size=8,
).map("".join)


FAMILIES = {"byte-level": (byte_level, SPECIALS[0]), "sentencepiece": (sentencepiece_like, "<s>")}


@pytest.fixture(scope="module", params=FAMILIES)
def json_pair(request, tmp_path_factory):
    make, begin = FAMILIES[request.param]
    library, folder = make(), tmp_path_factory.mktemp("json")
    library.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"bos_token": {"content": begin}}))
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), bos_token=begin)
    return Tokenizer.from_pretrained(folder), theirs


def ranks(library: Library) -> dict[bytes, int]:
    """A byte-level vocabulary, without its special tokens, as tiktoken has it: the same ids."""
    back = {character: byte for byte, character in bytes_to_unicode().items()}
    vocabulary = json.loads(library.to_str())["model"]["vocab"]
    return {bytes(back[c] for c in token): i for token, i in sorted(vocabulary.items(), key=lambda item: item[1])}


def tiktoken_file(table: dict[bytes, int]) -> bytes:
    return b"".join(base64.b64encode(token) + b" %d\n" % rank for token, rank in table.items())


@pytest.fixture(scope="module")
def tiktoken_pair(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiktoken")
    (folder / "tokenizer.model").write_bytes(tiktoken_file(ranks(byte_level())))
    converted = TikTokenConverter(
        vocab_file=str(folder / "tokenizer.model"), extra_special_tokens=list(SPECIAL)
    ).converted()
    return Tokenizer.from_pretrained(folder), PreTrainedTokenizerFast(tokenizer_object=converted)


def check(pair, text: str) -> None:
    ours, theirs = pair
    ids = ours.encode(text)
    assert ids == theirs(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    stream = ours.decode_stream()
    assert "".join([*(stream.push(i) for i in ids), stream.flush()]) == ours.decode(ids)
    assert ours.decode(ids) == theirs.decode(ids, clean_up_tokenization_spaces=False)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_ids_and_text_of_a_tokenizer_json_are_those_of_transformers(json_pair, text):
    check(json_pair, text)


@settings(max_examples=300, deadline=None)
@given(text=TEXTS)
def test_ids_and_text_of_tiktokens_format_are_those_of_transformers(tiktoken_pair, text):
    check(tiktoken_pair, text)


@settings(max_examples=200, deadline=None)
@given(text=TEXTS)
def test_decoding_inverts_encoding(json_pair, tiktoken_pair, text):
    for ours, _ in (json_pair, tiktoken_pair):
        # Where a space is written as this character, both read as a space.
        wanted = text.replace("▁", " ") if ours.token(ours.bos_id) == "<s>" else text
        assert ours.decode(ours.encode(text)) == wanted


def test_digits_are_split_in_threes_as_transformers_splits_them(tiktoken_pair):
    check(tiktoken_pair, "1234567 " + " ".join(str(n) for n in range(100, 2100, 7)))


def test_special_tokens_are_known_by_their_place_and_never_come_from_text(tiktoken_pair):
    ours, theirs = tiktoken_pair
    assert ours.bos_id == theirs.convert_tokens_to_ids("<|begin_of_text|>") == ours.vocab_size - 256
    assert ours.token(ours.vocab_size - 256 + 9) == "<|eot_id|>"
    assert ours.token(ours.vocab_size - 1) == "<|reserved_special_token_246|>"
    assert max(ours.encode("<|eot_id|><|begin_of_text|>")) < ours.bos_id
    assert ours.decode([ours.bos_id, *ours.encode("a"), ours.bos_id + 9]) == "a"


def test_the_begin_token_is_the_one_that_the_settings_name(json_pair):
    ours, theirs = json_pair
    assert ours.encode("a", bos=True)[0] == ours.bos_id == theirs.bos_token_id


@pytest.mark.parametrize("case", BAD_JSON)
def test_a_tokenizer_json_that_cannot_be_right_is_refused_with_its_file(tmp_path, case):
    (tmp_path / "tokenizer.json").write_bytes(BAD_JSON[case])
    with pytest.raises(TokenizerError) as error:
        Tokenizer.from_pretrained(tmp_path)
    assert error.value.file == str(tmp_path / "tokenizer.json")
    assert error.value.expected is not None


def test_a_begin_token_that_the_vocabulary_lacks_is_refused(tmp_path):
    byte_level().save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text('{"bos_token": "<s>"}')
    with pytest.raises(TokenizerError) as error:
        Tokenizer.from_pretrained(tmp_path)
    assert "'<s>'" in error.value.expected


@pytest.mark.parametrize(
    "edit", ["a rank twice", "a rank left out", "a token twice", "no base64", "cut off", "empty line"]
)
def test_a_tiktoken_file_that_is_damaged_is_refused_with_its_line(tmp_path, edit):
    lines = tiktoken_file(ranks(byte_level())).splitlines(keepends=True)
    lines = {
        "a rank twice": [*lines[:5], lines[5].split()[0] + b" 4\n", *lines[6:]],
        "a rank left out": [*lines[:5], *lines[6:]],
        "a token twice": [*lines[:5], lines[4].split()[0] + b" 5\n", *lines[6:]],
        "no base64": [*lines[:5], b"!! 5\n", *lines[6:]],
        "cut off": lines[:100],
        "empty line": [*lines[:5], b"\n", *lines[5:]],
    }[edit]
    (tmp_path / "tokenizer.model").write_bytes(b"".join(lines))
    with pytest.raises(TokenizerError, match="tiktoken") as error:
        Tokenizer.from_pretrained(tmp_path)
    assert error.value.file == str(tmp_path / "tokenizer.model")


@pytest.mark.parametrize("package", ["tokenizers", "tiktoken"])
def test_without_its_package_a_vocabulary_says_what_to_install(tmp_path, monkeypatch, package):
    if package == "tokenizers":
        byte_level().save(str(tmp_path / "tokenizer.json"))
    else:
        (tmp_path / "tokenizer.model").write_bytes(tiktoken_file(ranks(byte_level())))
    importing = builtins.__import__

    def without(name, *arguments, **options):
        if name == package:
            raise ImportError(name)
        return importing(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(TokenizerError, match="not installed") as error:
        Tokenizer.from_pretrained(tmp_path)
    assert error.value.key == package and "llama-core[tokenizers]" in error.value.hint
