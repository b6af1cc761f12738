"""A model that was trained elsewhere: every id that two engines outside this project agree on."""

import json

import pytest
import torch
from small_models import no_shape_checks

from llama_core.generate import generate
from llama_core.model import Llama
from llama_core.tokenizer import Tokenizer

BEGIN = 1  # these stories are separated by the begin id, which is where the second expected list ends


@pytest.fixture(autouse=True, scope="module")
def quick():
    with no_shape_checks():
        yield


@pytest.fixture(scope="module")
def model(real_models):
    return Llama.from_pretrained(real_models / "stories260K", dtype="float32")


@pytest.fixture(scope="module")
def cases(real_models):
    cases = json.loads((real_models / "stories260K" / "expected.json").read_text())
    assert [len(case["token_ids"]) for case in cases] == [256, 217]
    return cases


def test_every_id_from_a_fresh_start_at_each_step(model, cases):
    for case in cases:
        ids, start = case["token_ids"], len(case["prompt_ids"])
        with torch.no_grad():
            for length in range(start, len(ids)):
                assert int(model(torch.tensor([ids[:length]]))[0, -1].argmax()) == ids[length], f"token {length}"


@pytest.mark.parametrize("attention", ["eager", "fused"])
def test_every_id_with_a_cache(model, cases, attention):
    model.attention = attention
    for case in cases:
        prompt = case["prompt_ids"]
        expected = case["token_ids"][len(prompt) :]
        assert list(generate(model, prompt, len(expected), temperature=0)) == expected


@pytest.mark.parametrize("chunk", [1, 5, 12])
def test_every_id_with_the_prompt_in_chunks(model, cases, chunk):
    for case in cases:
        # Half of the published ids as the prompt, so that there is something to cut.
        ids = case["token_ids"]
        half = len(ids) // 2
        assert list(generate(model, ids[:half], len(ids) - half, temperature=0, prefill_chunk=chunk)) == ids[half:]


def test_the_second_story_ends_where_its_published_ids_end(model, cases):
    prompt, ids = cases[1]["prompt_ids"], cases[1]["token_ids"]
    assert list(generate(model, prompt, 300, temperature=0, eos_ids=[BEGIN])) == [*ids[len(prompt) :], BEGIN]


def test_the_streamed_text_is_the_published_text(model, cases, real_models):
    tokenizer = Tokenizer.from_pretrained(real_models / "stories260K")
    for case in cases:
        ids = tokenizer.encode(case["prompt"], bos=True)
        stream = tokenizer.decode_stream()
        text = stream.extend(ids)
        for token in generate(model, ids, len(case["token_ids"]) - len(ids), temperature=0):
            text += stream.push(token)
        text += stream.flush()
        assert text.startswith(case["prompt"])
        assert case["text"].startswith(text)
        assert len(case["text"]) - len(text) <= 1  # the published text may have one token more
