import random
from itertools import islice

import pytest
import sentencepiece
import torch

from llama_core.stories.data import (
    BEGIN,
    END,
    FIRST_BYTE,
    FIRST_ORDINARY,
    IGNORED,
    VOCABULARY,
    Document,
    batches,
    pad,
    repeated_document,
    shuffled_document,
    story_document,
    train_tokenizer,
)
from llama_core.stories.text import story


@pytest.fixture(scope="module")
def vocabulary() -> bytes:
    return train_tokenizer(random.Random(5), stories=1500)


@pytest.fixture(scope="module")
def tokenizer(vocabulary: bytes) -> sentencepiece.SentencePieceProcessor:
    return sentencepiece.SentencePieceProcessor(model_proto=vocabulary)


def test_the_same_stories_give_the_same_vocabulary_byte_for_byte(vocabulary: bytes):
    assert train_tokenizer(random.Random(5), stories=1500) == vocabulary


def test_ids_are_control_tokens_then_bytes_then_ordinary_pieces(tokenizer: sentencepiece.SentencePieceProcessor):
    assert tokenizer.vocab_size() == VOCABULARY
    assert [tokenizer.id_to_piece(i) for i in range(3)] == ["<unk>", "<s>", "</s>"]
    assert [i for i in range(VOCABULARY) if tokenizer.is_byte(i)] == list(range(FIRST_BYTE, FIRST_ORDINARY))


@pytest.mark.parametrize("text", ["Zoé met René.\nThe end.", "  two  spaces ", "日本 🦊", "\ttab", "x" * 50])
def test_every_text_comes_back_from_its_ids(tokenizer: sentencepiece.SentencePieceProcessor, text: str):
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_letters_beyond_ascii_are_spelled_in_bytes(tokenizer: sentencepiece.SentencePieceProcessor):
    assert tokenizer.encode("Zoé", out_type=str)[-2:] == ["<0xC3>", "<0xA9>"]


def test_a_story_document_is_a_story_between_begin_and_end(tokenizer: sentencepiece.SentencePieceProcessor):
    ids = story_document(random.Random(3), tokenizer).ids
    assert (ids[0], ids[-1]) == (BEGIN, END)
    assert tokenizer.decode(ids[1:-1]) == story(random.Random(3))


def test_a_repeated_document_is_one_sequence_twice_and_what_nothing_foretells_is_not_learnt():
    rng = random.Random(0)
    documents = [repeated_document(rng, 8, 100) for _ in range(500)]
    for document in documents:
        length = len(document.ids) // 2
        assert document.ids == [BEGIN, *document.ids[1 : 1 + length] * 2]
        assert BEGIN not in document.ids[1:] and END not in document.ids
        assert document.ignored == set(range(1, length + 2))  # the first copy, and the beginning of the second
    lengths = [len(document.ids) for document in documents]
    assert min(lengths) == 1 + 2 * 8 and max(lengths) > 1 + 2 * 97


def test_in_a_shuffled_document_every_learnt_token_followed_the_one_before_it_earlier():
    rng = random.Random(0)
    learnt = 0
    for document in (shuffled_document(rng) for _ in range(200)):
        assert document.ids[0] == BEGIN and 49 <= len(document.ids) <= 52
        for position in range(1, len(document.ids)):
            if position not in document.ignored:
                pairs = list(zip(document.ids[: position - 1], document.ids[1:position], strict=True))
                assert (document.ids[position - 1], document.ids[position]) in pairs
                learnt += 1
    assert 200 * 10 < learnt < 200 * 35


def test_targets_are_the_next_tokens_and_what_is_not_learnt_is_ignored():
    inputs, targets = pad(
        [Document([1, 10, 11, 12, 2]), Document([1, 20, 21, 20, 21], frozenset({1, 2, 3})), Document([1, 7])]
    )
    assert inputs.tolist() == [[1, 10, 11, 12], [1, 20, 21, 20], [1, END, END, END]]
    no = IGNORED
    assert targets.tolist() == [[10, 11, 12, 2], [no, no, no, 21], [7, no, no, no]]


def test_batches_start_every_row_with_the_begin_token_and_keep_to_their_size(
    tokenizer: sentencepiece.SentencePieceProcessor,
):
    for inputs, _ in islice(batches("1", tokenizer, tokens=4096), 60):
        assert inputs.numel() <= 4096 and (inputs[:, 0] == BEGIN).all()


@pytest.mark.slow
def test_random_sequences_come_first_and_alone_then_about_one_document_in_seven(
    tokenizer: sentencepiece.SentencePieceProcessor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("llama_core.stories.data.FIRST_SHUFFLED", 100)
    monkeypatch.setattr("llama_core.stories.data.FIRST_REPEATED", 200)
    drawn = []
    for _, targets in batches("1", tokenizer, tokens=4096):
        drawn += (targets[:, 0] == IGNORED).tolist()
        if len(drawn) >= 2300:
            break
    assert all(drawn[:300]) and 0.12 < sum(drawn[300:2300]) / 2000 < 0.18


@pytest.mark.slow
def test_batches_written_ahead_are_the_same_batches_in_the_same_order(
    tokenizer: sentencepiece.SentencePieceProcessor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("llama_core.stories.data.FIRST_SHUFFLED", 10)
    monkeypatch.setattr("llama_core.stories.data.FIRST_REPEATED", 10)
    alone = islice(batches("1", tokenizer, 1024, 4096), 200)
    ahead = islice(batches("1", tokenizer, 1024, 4096, writers=2), 200)
    for (inputs, targets), (same_inputs, same_targets) in zip(alone, ahead, strict=True):
        assert torch.equal(inputs, same_inputs) and torch.equal(targets, same_targets)


@pytest.mark.slow
def test_the_stories_come_in_batches_of_their_own_size(
    tokenizer: sentencepiece.SentencePieceProcessor, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("llama_core.stories.data.FIRST_SHUFFLED", 50)
    monkeypatch.setattr("llama_core.stories.data.FIRST_REPEATED", 50)
    sizes = [inputs.numel() for inputs, _ in islice(batches("1", tokenizer, 512, 4096), 60)]
    assert max(sizes[:10]) <= 512 and 3000 < max(sizes[20:]) <= 4096
