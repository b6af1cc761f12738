"""Ctrl-C at any point: the cache goes on as if nothing had happened."""

import sys

import pytest
import torch
from small_models import CONFIG, no_shape_checks, random_model

from llama_core.cache import KVCache
from llama_core.generate import generate

PROMPT = [1, 17, 5, 80, 33, 9, 64]


@pytest.fixture(autouse=True, scope="module")
def quick():
    with no_shape_checks():
        yield


def stream(ids, count, cache):
    return generate(random_model(), ids, count, temperature=0, eos_ids=(), cache=cache, prefill_chunk=3)


def interrupt_at(layer: int, call: int):
    """Raises KeyboardInterrupt when a layer has computed for the ``call``-th time."""
    seen = 0

    def hook(*_):
        nonlocal seen
        seen += 1
        if seen == call:
            raise KeyboardInterrupt

    return random_model().layers[layer].register_forward_hook(hook)


@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("call", [1, 2, 3, 4, 8])  # three chunks of prompt, then tokens
def test_an_interrupt_inside_any_layer_leaves_a_cache_that_gives_the_ids_of_a_fresh_run(layer, call):
    fresh = list(stream(PROMPT, 12, KVCache(CONFIG, max_length=40)))
    cache, said = KVCache(CONFIG, max_length=40), []
    handle = interrupt_at(layer, call)
    try:
        with pytest.raises(KeyboardInterrupt):
            said.extend(stream(PROMPT, 12, cache))
    finally:
        handle.remove()
    assert len(said) == max(0, call - 3)
    assert said == fresh[: len(said)]
    assert cache.length == (len(PROMPT) + len(said) - 1 if said else 0)
    unread = said[-1:] or PROMPT
    assert said + list(stream(unread, 12 - len(said), cache)) == fresh


def test_an_interrupt_while_a_token_is_chosen_is_undone_too(monkeypatch):
    fresh = list(stream(PROMPT, 6, KVCache(CONFIG, max_length=40)))
    cache = KVCache(CONFIG, max_length=40)
    run = stream(PROMPT, 6, cache)
    said = [next(run), next(run)]
    with monkeypatch.context() as patch:
        patch.setattr(
            sys.modules["llama_core.generate"], "next_token", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            next(run)
    assert said + list(stream(said[-1:], 4, cache)) == fresh


def test_an_interrupt_in_a_later_prompt_keeps_the_conversation_before_it():
    cache = KVCache(CONFIG, max_length=60)
    said = list(stream(PROMPT, 4, cache))
    length = cache.length
    handle = interrupt_at(1, 2)
    try:
        with pytest.raises(KeyboardInterrupt):
            next(stream([said[-1], 40, 41, 42, 43], 4, cache))
    finally:
        handle.remove()
    assert cache.length == length
    with torch.no_grad():
        whole = random_model()(torch.tensor([[*PROMPT, *said, 40, 41]]))[0, -1].argmax()
    assert next(stream([said[-1], 40, 41], 1, cache)) == int(whole)
