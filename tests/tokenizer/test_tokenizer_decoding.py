"""Ids to text, whole and one at a time."""

import numpy as np
import pytest
import sentencepiece
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vocabularies import SETTINGS, library, tokenizer, train

from llama_core.errors import TokenizerError

LLAMA = tokenizer(train())
BYTE_IDS = {byte: 3 + byte for byte in range(256)}  # behind <unk> <s> </s>


def ids_of(vocabulary: sentencepiece.SentencePieceProcessor) -> st.SearchStrategy[list[int]]:
    """Lists of ids in which special pieces, those that begin with a space and bytes of characters are frequent."""
    size = vocabulary.vocab_size()
    spaced = [i for i in range(size) if vocabulary.id_to_piece(i).startswith("▁")]
    bytes_ = [i for i in map(BYTE_IDS.get, "é日🙂".encode()) if i < size and vocabulary.is_byte(i)]
    kinds = [st.integers(0, size - 1), st.integers(0, 2), st.sampled_from(spaced)]
    return st.lists(st.one_of(*kinds, *([st.sampled_from(bytes_)] if bytes_ else [])), max_size=10)


@pytest.mark.parametrize("name", SETTINGS)
def test_decode_equals_the_sentencepiece_library_for_any_ids(name):
    content = train(name)
    ours, theirs = tokenizer(content), library(content)

    @settings(max_examples=150, deadline=None)
    @given(ids_of(theirs))
    def check(ids):
        assert ours.decode(ids) == theirs.decode(ids)

    check()


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=6), max_size=4))
def test_decode_of_any_bytes_equals_the_sentencepiece_library(chunks):
    ids = [i for chunk in chunks for i in [*(BYTE_IDS[b] for b in chunk), 300]]
    assert LLAMA.decode(ids) == library(train()).decode(ids)


@pytest.mark.parametrize("name", SETTINGS)
def test_pushes_and_flush_joined_are_the_whole_text(name):
    content = train(name)
    ours, theirs = tokenizer(content), library(content)

    @settings(max_examples=150, deadline=None)
    @given(ids_of(theirs))
    def check(ids):
        stream = ours.decode_stream()
        assert "".join([*map(stream.push, ids), stream.flush()]) == theirs.decode(ids)

    check()


@settings(max_examples=200, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_a_stream_gives_each_character_with_its_last_byte_and_none_before(text):
    stream = LLAMA.decode_stream()
    for character in text:
        *first, last = [BYTE_IDS[b] for b in character.encode()]
        assert [stream.push(i) for i in first] == [""] * len(first)
        assert stream.push(last) == character
    assert stream.flush() == ""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xe6\x97\xa5", "日"),
        (b"\xe6\x97", "\ufffd\ufffd"),  # cut
        (b"\xe6\x97\xe6\x97\xa5", "\ufffd\ufffd日"),  # cut, then whole
        (b"\xc0\xaf", "\ufffd\ufffd"),  # overlong
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate
        (b"\xf4\x90\x80\x80", "\ufffd" * 4),  # beyond U+10FFFF
        (b"\x80a", "\ufffda"),
    ],
)
def test_each_byte_of_no_character_reads_as_one_replacement_character(data, text):
    assert LLAMA.decode([BYTE_IDS[b] for b in data]) == text


@settings(max_examples=200, deadline=None)
@given(ids_of(library(train())), ids_of(library(train())))
def test_a_stream_that_starts_after_other_ids_continues_their_text(before, ids):
    whole = LLAMA.decode(before + ids)
    stream = LLAMA.decode_stream()
    shown = "".join(map(stream.push, before))  # what is whole by then; bytes that wait belong to what follows
    continued = LLAMA.decode_stream(after=before)
    assert shown + "".join([*map(continued.push, ids), continued.flush()]) == whole


def test_the_first_space_is_dropped_at_the_start_and_kept_after_other_text():
    the = next(i for i in range(340) if LLAMA.token(i) == "▁the")
    assert LLAMA.decode([the, the]) == "the the"
    assert LLAMA.decode([LLAMA.bos_id, the]) == "the"
    assert LLAMA.decode_stream(after=[the]).push(the) == " the"


@pytest.mark.parametrize("special", [1, 2])
def test_no_character_reaches_across_a_begin_or_end_id(special):
    first, last = (BYTE_IDS[b] for b in "é".encode())
    assert LLAMA.decode([first, special, last]) == library(train()).decode([first, special, last]) == "\ufffd\ufffd"
    stream = LLAMA.decode_stream()
    assert [stream.push(i) for i in (first, special, last)] + [stream.flush()] == ["", "\ufffd", "\ufffd", ""]


def test_begin_and_end_read_as_nothing():
    assert LLAMA.decode([1, *LLAMA.encode("the cat"), 2]) == "the cat"


@pytest.mark.parametrize("ids", [np.array([300, 301]), torch.tensor([300, 301]), (300, 301)])
def test_decode_takes_ids_from_numpy_and_torch(ids):
    assert LLAMA.decode(ids) == library(train()).decode([300, 301])


@pytest.mark.parametrize("bad", [-1, 340, 2**70, 1.0, True, "3", None, [3]])
def test_what_is_no_id_is_refused_by_name(bad):
    with pytest.raises(TokenizerError) as error:
        LLAMA.decode([5, bad])
    assert error.value.actual is bad
    assert "0 to 339" in error.value.expected


def test_a_refused_id_leaves_the_stream_as_it_was():
    stream = LLAMA.decode_stream()
    stream.push(BYTE_IDS[0xE6])
    with pytest.raises(TokenizerError):
        stream.push(-1)
    assert stream.push(BYTE_IDS[0x97]) + stream.push(BYTE_IDS[0xA5]) == "日"


def test_labels_are_the_pieces_as_the_vocabulary_writes_them():
    theirs = library(train())
    assert [LLAMA.token(i) for i in range(340)] == [theirs.id_to_piece(i) for i in range(340)]
