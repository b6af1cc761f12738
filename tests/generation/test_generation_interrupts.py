"""Ctrl-C at any point: the cache goes on as if nothing had happened."""

import random
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


class Interrupt:
    """Raises KeyboardInterrupt at one of all the calls and returns that Python makes, as a signal could."""

    def __init__(self, point: int):
        self.left = point

    def __call__(self, frame, event, argument) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def calls_and_returns(run) -> int:
    counter = Interrupt(0)
    sys.setprofile(counter)
    try:
        run()
    finally:
        sys.setprofile(None)
    return -counter.left


@pytest.mark.parametrize("chosen", [0, 3], ids=["prefill", "decode"])
def test_an_interrupt_at_any_point_leaves_a_cache_with_the_bits_of_a_fresh_run(chosen):
    """Twenty points drawn from the reading of the prompt, and from one step of decoding."""
    fresh_cache = KVCache(CONFIG, max_length=40)
    fresh = list(stream(PROMPT, 6, fresh_cache))
    started = stream(PROMPT, 6, KVCache(CONFIG, max_length=40))
    for _ in range(chosen):
        next(started)
    points = calls_and_returns(lambda: next(started))
    draw = random.Random(5)
    for point in draw.sample(range(1, points - 5), 20):
        cache = KVCache(CONFIG, max_length=40)
        run = stream(PROMPT, 6, cache)
        said = [next(run) for _ in range(chosen)]
        before = cache.length
        try:
            with pytest.raises(KeyboardInterrupt):
                sys.setprofile(Interrupt(point))
                next(run)
        finally:
            sys.setprofile(None)
            torch.set_grad_enabled(True)  # torch.no_grad was left by the exception, perhaps in its own first line
        assert cache.length == before
        said += list(stream(said[-1:] or PROMPT, 6 - len(said), cache))
        assert said == fresh, point
        filled = slice(0, cache.length)
        for ours, theirs in zip((*cache.keys, *cache.values), (*fresh_cache.keys, *fresh_cache.values), strict=True):
            assert torch.equal(ours[:, :, filled], theirs[:, :, filled]), point
