"""The vocabulary of a model that was trained elsewhere."""

import json

import pytest

from llama_core.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(real_models):
    return real_models / "stories260K"


@pytest.fixture(scope="module")
def vocabulary(folder):
    return Tokenizer.from_pretrained(folder)


def test_prompts_become_the_published_ids_and_ids_the_published_text(folder, vocabulary):
    cases = json.loads((folder / "expected.json").read_text())
    assert len(cases) >= 2
    for case in cases:
        assert vocabulary.encode(case["prompt"], bos=True) == case["prompt_ids"]
        # The published text may be one token longer than the published ids.
        assert case["text"].startswith(vocabulary.decode(case["token_ids"]))
        assert len(case["text"]) - len(vocabulary.decode(case["token_ids"])) <= 1
