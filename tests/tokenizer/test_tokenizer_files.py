"""What lies in a folder under the name of a vocabulary."""

import json
import os

import pytest
from lookalikes import LOOKALIKES, piece
from vocabularies import library, message, tokenizer, train

from llama_core.errors import LlamaCoreError, TokenizerError
from llama_core.tokenizer import Tokenizer

CONFIG = {
    "model_type": "llama",
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 340,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "float32",
}


def folder_with(path, content: bytes, **config):
    (path / "tokenizer.model").write_bytes(content)
    if config:
        (path / "config.json").write_text(json.dumps(CONFIG | config))
    return path


@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_is_no_vocabulary_is_refused_with_its_file(tmp_path, name):
    with pytest.raises(TokenizerError) as error:
        Tokenizer.from_pretrained(folder_with(tmp_path, LOOKALIKES[name]))
    assert error.value.file == str(tmp_path / "tokenizer.model")


@pytest.mark.parametrize(
    ("name", "says"),
    [("Git-LFS pointer", "Git-LFS"), ("web page", "web page"), ("tiktoken", "tiktoken"), ("empty", "empty")],
)
def test_a_lookalike_is_called_by_its_name(tmp_path, name, says):
    with pytest.raises(TokenizerError, match=says):
        Tokenizer.from_pretrained(folder_with(tmp_path, LOOKALIKES[name]))


def test_a_file_cut_anywhere_is_refused():
    content = train()
    theirs = library(content)
    for length in [*range(0, len(content) - 100, 61), *range(len(content) - 100, len(content))]:
        try:
            ours = tokenizer(content[:length])
        except TokenizerError:
            continue
        # What the library appends behind all settings may be gone; then nothing else is.
        assert [ours.token(i) for i in range(ours.vocab_size)] == [theirs.id_to_piece(i) for i in range(340)]
        assert ours.encode("the cat sat 日") == theirs.encode("the cat sat 日")


def test_a_file_cut_behind_its_pieces_is_refused_although_the_library_takes_it():
    pieces = b"".join(message((1, piece(text, kind))) for text, kind in [(b"<unk>", 2), (b"a", 1), (b"b", 1)])
    assert library(pieces).vocab_size() == 3
    with pytest.raises(TokenizerError, match="part missing"):
        tokenizer(pieces)


@pytest.mark.parametrize("position", [0, 1, 2, 3, 50, 51, 52, 53, 1000, 3000])
def test_a_flipped_bit_is_refused_or_gives_a_working_vocabulary(position):
    for bit in range(8):
        content = bytearray(train())
        content[position] ^= 1 << bit
        try:
            changed = tokenizer(bytes(content))
        except TokenizerError:
            continue
        assert "cat" in changed.decode(changed.encode("the cat"))


@pytest.mark.parametrize("vocab_size", [339, 32, 681, 32000])
def test_a_vocabulary_of_another_size_than_the_model_is_refused(tmp_path, vocab_size):
    with pytest.raises(TokenizerError) as error:
        Tokenizer.from_pretrained(folder_with(tmp_path, train(), vocab_size=vocab_size))
    assert error.value.key == "vocab_size"
    assert str(vocab_size) in error.value.expected
    assert error.value.actual == "340 pieces"


@pytest.mark.parametrize("vocab_size", [340, 341, 384, 596])
def test_a_padded_model_takes_its_vocabulary_and_reads_its_padding_as_nothing(tmp_path, vocab_size):
    padded = Tokenizer.from_pretrained(folder_with(tmp_path, train(), vocab_size=vocab_size))
    assert padded.vocab_size == 340
    assert padded.decode([1, *range(340, vocab_size), *padded.encode("the cat")]) == "the cat"
    with pytest.raises(TokenizerError):
        padded.decode([vocab_size])


def test_end_ids_are_those_of_the_configuration(tmp_path):
    assert Tokenizer.from_pretrained(folder_with(tmp_path, train(), eos_token_id=[2, 300])).eos_ids == (2, 300)


def test_end_ids_are_the_vocabulary_s_own_where_there_is_no_configuration(tmp_path):
    assert Tokenizer.from_pretrained(folder_with(tmp_path, train())).eos_ids == (2,)


def test_a_user_defined_piece_that_ends_texts_cannot_be_typed(tmp_path):
    content = train("user-defined")
    tag = library(content).piece_to_id("<tag>")
    ordinary = Tokenizer.from_pretrained(folder_with(tmp_path, content, vocab_size=340))
    assert tag in ordinary.encode("a <tag> b")
    ends = Tokenizer.from_pretrained(folder_with(tmp_path, content, vocab_size=340, eos_token_id=[2, tag]))
    ids = ends.encode("a <tag> b")
    assert tag not in ids
    assert ends.decode([*ids, tag]) == "a <tag> b"


def test_a_folder_without_a_vocabulary_says_what_it_has_instead(tmp_path):
    (tmp_path / "tokenizer.bin").write_text("{}")
    with pytest.raises(TokenizerError, match="no tokenizer.model") as error:
        Tokenizer.from_pretrained(tmp_path)
    assert error.value.actual == "tokenizer.bin"


def test_a_pipe_in_the_place_of_the_vocabulary_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "tokenizer.model")
    with pytest.raises(TokenizerError, match="pipe"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_folder_in_the_place_of_the_vocabulary_is_refused(tmp_path):
    (tmp_path / "tokenizer.model").mkdir()
    with pytest.raises(TokenizerError):
        Tokenizer.from_pretrained(tmp_path)


def test_a_file_of_gigabytes_is_refused_unread(tmp_path):
    with open(tmp_path / "tokenizer.model", "wb") as file:
        file.truncate(2**33)  # a hole: takes no room
    with pytest.raises(TokenizerError, match="8,589,934,592"):
        Tokenizer.from_pretrained(tmp_path)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(LlamaCoreError, match="no model folder"):
        Tokenizer.from_pretrained(tmp_path / "nowhere")
