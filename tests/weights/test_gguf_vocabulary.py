"""The vocabulary in a GGUF file is that of the sentencepiece file, to the gguf package's reader and to llama.cpp.

llama.cpp's tokenizer takes part where llama-cpp-python is installed: ``make test-llamacpp``.
"""

import ctypes

import gguf
import pytest
import sentencepiece

from llama_core import Llama, Tokenizer
from llama_core.weights import convert, model_folder, read_config

TEXTS = {
    "one word": "day",
    "words": "One day, a little fox found a red ball.",
    "nothing": "",
    "a space": " ",
    "spaces in front": "  One day",
    "spaces behind": "One day  ",
    "spaces between": "a  b   c",
    "lines": "One day\n\nLily ran.\r\n\tHome.",
    "an emoji, as bytes": "A fox 🦊!",
    "other scripts": "café, 中文, ½, A\u0301",
    "a space that does not break": "One\u00a0day",
    "what looks like special pieces": "</s> <s> <unk> <0x0A>",
    "the sign for a space": "a▁b",
    "NUL": "a\x00b",
    "capitals, figures, signs": "DON'T! (1234) #&%",
}


@pytest.fixture(scope="module", params=["stories", "stories260K"])
def source(request):
    return "stories" if request.param == "stories" else request.getfixturevalue("real_models") / request.param


@pytest.fixture(scope="module")
def file(source, tmp_path_factory):
    path = tmp_path_factory.mktemp("vocabulary") / "m.gguf"
    convert(source, path, "gguf", "q8_0")
    return path


def fields_of(path):
    fields = gguf.GGUFReader(path).fields
    found = {key.removeprefix("tokenizer.ggml."): field for key, field in fields.items() if key.startswith("tokenizer")}
    return {key: field.contents() for key, field in found.items()}


def kind(model, i):
    """llama.cpp's number for the kind of a piece, as the sentencepiece library tells it."""
    kinds = {2: model.IsUnknown, 3: model.IsControl, 5: model.IsUnused, 6: model.IsByte}
    return next((number for number, holds in kinds.items() if holds(i)), 1)


def test_every_piece_its_score_and_its_kind_are_those_of_the_sentencepiece_library(source, file):
    model = sentencepiece.SentencePieceProcessor(model_file=str(model_folder(source) / "tokenizer.model"))
    found, all_of_them = fields_of(file), range(model.GetPieceSize())
    assert found["tokens"] == [model.IdToPiece(i) for i in all_of_them]
    assert found["scores"] == [model.GetScore(i) for i in all_of_them]
    assert found["token_type"] == [kind(model, i) for i in all_of_them]
    assert (found["model"], found["bos_token_id"], found["eos_token_id"]) == ("llama", model.bos_id(), model.eos_id())
    assert found["add_bos_token"] is True and found["add_space_prefix"] is True


def test_ids_beyond_the_vocabulary_are_unused_pieces_that_no_text_becomes(tmp_path):
    config = read_config("stories")
    sizes = {"vocab_size": 1030, "num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 32, "head_dim": 8}
    Llama.random(config.replace(**sizes), seed=1).save_pretrained(tmp_path / "hf")
    content = (model_folder("stories") / "tokenizer.model").read_bytes()
    (tmp_path / "hf" / "tokenizer.model").write_bytes(content)
    convert(tmp_path / "hf", tmp_path / "m.gguf", "gguf")
    found = fields_of(tmp_path / "m.gguf")
    assert len(found["tokens"]) == len(found["scores"]) == 1030 and set(found["token_type"][1024:]) == {5}
    assert min(found["scores"][:1024]) > max(found["scores"][1024:])


def test_without_a_vocabulary_the_file_has_none_and_the_conversion_says_so(tmp_path):
    Llama.random(read_config("stories").replace(num_hidden_layers=1), seed=1).save_pretrained(tmp_path / "hf")
    result = convert(tmp_path / "hf", tmp_path / "m.gguf", "gguf")
    assert fields_of(tmp_path / "m.gguf")["model"] == "none"
    assert any("there is no tokenizer.model" in note for note in result.notes)


# llama.cpp itself


@pytest.fixture(scope="module")
def vocabulary(file):
    api = pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make test-llamacpp installs it")
    quiet = api.llama_log_callback(lambda *ignored: None)
    api.llama_log_set(quiet, None)
    api.llama_backend_init()
    parameters = api.llama_model_default_params()
    parameters.vocab_only = True
    model = api.llama_model_load_from_file(str(file).encode(), parameters)
    yield api, api.llama_model_get_vocab(model)
    api.llama_model_free(model)


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_llama_cpp_makes_the_same_ids_of_a_text_and_the_text_of_the_ids(vocabulary, source, text):
    api, pieces = vocabulary
    raw, ids = text.encode(), (api.llama_token * 512)()
    count = api.llama_tokenize(pieces, raw, len(raw), ids, len(ids), True, False)
    tokenizer = Tokenizer.from_pretrained(source)
    assert ids[:count] == tokenizer.encode(text, bos=True)
    back = ctypes.create_string_buffer(1024)
    without_begin = (api.llama_token * count)(*ids[1:count])
    length = api.llama_detokenize(pieces, without_begin, count - 1, back, len(back), False, False)
    assert back.raw[:length].decode() == tokenizer.decode(ids[:count])
