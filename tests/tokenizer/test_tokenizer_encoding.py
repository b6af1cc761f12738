"""Text to ids."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from vocabularies import SETTINGS, library, tokenizer, train

from llama_core.errors import TokenizerError

LLAMA = tokenizer(train())
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=500, deadline=None)
@given(st.one_of(ANY_TEXT, st.text(" \n\tthe日\0\x7f<s>/", max_size=40)))
@example("")
@example(" ")
@example("  two before, two after  ")
@example("\0 NUL \ufffd\ufeff\U0010ffff")
def test_decoding_gives_back_the_text_that_was_encoded(text):
    # Only ▁ itself does not come back: it is how the vocabulary writes a space.
    assert LLAMA.decode(LLAMA.encode(text)) == text.replace("▁", " ")


@settings(max_examples=200, deadline=None)
@given(ANY_TEXT)
def test_begin_and_end_do_not_change_the_text(text):
    ids = LLAMA.encode(text, bos=True, eos=True)
    assert (ids[0], ids[-1]) == (1, 2)
    assert LLAMA.decode(ids) == text.replace("▁", " ")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(["<s>", "</s>", "<unk>", "<0x41>", "<pad>", " ", "<", "s", ">", "the"]), max_size=8))
@pytest.mark.parametrize("name", ["llama", "unigram"])
def test_text_that_looks_like_a_special_piece_stays_text(name, parts):
    vocabulary, text = tokenizer(train(name)), "".join(parts)
    ids = vocabulary.encode(text)
    assert not {0, 1, 2} & set(ids)
    assert vocabulary.decode(ids) == text


@pytest.mark.parametrize("text", ["\ud800", "ab\udfff", "x" * 1000 + "\udc80"])
def test_half_a_surrogate_pair_is_refused_with_its_place(text):
    with pytest.raises(TokenizerError, match="surrogate") as error:
        LLAMA.encode(text)
    assert error.value.actual == f"U+{ord(text[-1]):04X} at character {len(text) - 1}"


@pytest.mark.parametrize("thing", [None, b"bytes", 5, ["a", "b"]])
def test_what_is_no_string_is_refused(thing):
    with pytest.raises(TokenizerError, match="only text"):
        LLAMA.encode(thing)


@pytest.mark.parametrize("unit", ["a", " ", "the cat ", "日", "\0", "🙂", "ab"])
@pytest.mark.parametrize("name", ["llama", "unigram"])
def test_a_megabyte_of_text_comes_back(name, unit):
    vocabulary = tokenizer(train(name))
    text = unit * (2**20 // len(unit.encode()))
    assert vocabulary.decode(vocabulary.encode(text)) == text


@pytest.mark.parametrize("name", SETTINGS)
def test_ids_equal_the_sentencepiece_library(name):
    content = train(name)
    ours, theirs = tokenizer(content), library(content)

    @settings(max_examples=100, deadline=None)
    @given(ANY_TEXT)
    def check(text):
        assert ours.encode(text) == theirs.encode(text)

    check()


@pytest.mark.parametrize(("option", "what"), [("bos", "begin"), ("eos", "end")])
def test_a_vocabulary_without_a_begin_or_end_id_says_so(option, what):
    with pytest.raises(TokenizerError, match=f"has no {what} id"):
        tokenizer(train("no begin, no end")).encode("the", **{option: True})
