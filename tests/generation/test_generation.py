"""What `generate` yields, and what it leaves in the cache."""

import functools
import itertools

import pytest
import torch
from small_models import CONFIG, no_shape_checks, random_model

from llama_core.cache import KVCache
from llama_core.config import RopeScaling
from llama_core.generate import context_length, generate

PROMPT = [1, 17, 5, 80, 33, 9, 64]


@pytest.fixture(autouse=True, scope="module")
def quick():
    with no_shape_checks():
        yield


@functools.cache
def reference(ids: tuple[int, ...], count: int) -> list[int]:
    """The most likely continuation, every step computed from the beginning, without a cache."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(count):
            ids.append(int(random_model()(torch.tensor([ids]))[0, -1].argmax()))
    return ids[-count:]


def greedily(ids: list[int], count: int) -> list[int]:
    return reference(tuple(ids), count)


def run(prompt=PROMPT, count=12, **options) -> list[int]:
    return list(generate(random_model(), prompt, count, **{"temperature": 0, "eos_ids": ()} | options))


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 1000])
def test_greedy_ids_are_those_of_a_model_without_a_cache(chunk):
    assert run(prefill_chunk=chunk) == greedily(PROMPT, 12)


def test_ids_may_be_a_tensor():
    assert run(torch.tensor(PROMPT)) == greedily(PROMPT, 12)


def test_the_end_id_is_yielded_and_is_the_last():
    ids = greedily(PROMPT, 12)
    end = ids[5]
    assert run(eos_ids=[96, end]) == ids[: ids.index(end) + 1]
    assert run(eos_ids=end) == ids[: ids.index(end) + 1]


def test_the_end_ids_are_the_configuration_s_unless_others_are_given():
    model, ids = random_model(), greedily(PROMPT, 12)
    config = model.config
    try:
        model.config = config.replace(eos_token_ids=(ids[4],))
        assert run(eos_ids=None) == ids[: ids.index(ids[4]) + 1]
        assert run(eos_ids=()) == ids
    finally:
        model.config = config


def test_without_a_limit_it_goes_on_to_the_end_of_the_context():
    assert len(run(count=None)) == CONFIG.max_position_embeddings - len(PROMPT)


def test_without_a_limit_it_goes_on_to_the_end_of_the_cache():
    # Five slots are left; the last token needs none.
    assert len(run(count=None, cache=KVCache(CONFIG, max_length=len(PROMPT) + 5))) == 6


def test_the_whole_context_can_be_filled():
    count = CONFIG.max_position_embeddings - len(PROMPT)
    assert run(count=count) == greedily(PROMPT, count)


def test_a_seed_gives_the_same_ids_again_and_another_others():
    first, again, other = (run(temperature=1.0, seed=seed, count=40) for seed in (3, 3, 4))
    assert first == again
    assert first != other


def test_a_generator_gives_what_its_seed_gives_and_moves_on():
    generator = torch.Generator().manual_seed(3)
    assert run(temperature=1.0, generator=generator, count=40) == run(temperature=1.0, seed=3, count=40)
    assert run(temperature=1.0, generator=generator, count=40) != run(temperature=1.0, seed=3, count=40)


def test_without_a_seed_every_call_differs_and_the_global_generator_is_left_alone():
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first, second = run(temperature=1.0, count=40), run(temperature=1.0, count=40)
    assert first != second
    assert torch.equal(torch.get_rng_state(), before)


def test_filters_reach_the_choice():
    assert run(temperature=5.0, top_k=1, seed=0) == greedily(PROMPT, 12)
    assert run(temperature=5.0, top_p=1e-6, seed=0) == greedily(PROMPT, 12)


def test_gradients_are_off_inside_and_as_they_were_outside():
    stream = generate(random_model(), PROMPT, 3, temperature=0)
    next(stream)
    assert torch.is_grad_enabled()
    cache = KVCache(CONFIG, max_length=20)
    run(count=3, cache=cache)
    assert not cache.keys[0].requires_grad


def test_the_cache_holds_all_but_the_last_token_and_a_second_call_continues_it():
    expected = greedily(PROMPT, 12)
    cache = KVCache(CONFIG, max_length=64)
    first = run(count=5, cache=cache)
    assert cache.length == len(PROMPT) + 4
    assert first + run([first[-1]], count=7, cache=cache) == expected


def test_a_conversation_continues_with_what_the_other_says():
    cache = KVCache(CONFIG, max_length=64)
    said = run(count=5, cache=cache)
    answer = [50, 51, 52]
    assert run([said[-1], *answer], count=6, cache=cache) == greedily(PROMPT + said + answer, 6)


@pytest.mark.parametrize("taken", [1, 2, 5])
def test_a_stream_that_is_closed_leaves_the_same_rule(taken):
    cache = KVCache(CONFIG, max_length=64)
    stream = generate(random_model(), PROMPT, 20, temperature=0, eos_ids=(), cache=cache)
    first = list(itertools.islice(stream, taken))
    stream.close()
    assert cache.length == len(PROMPT) + taken - 1
    assert first + run([first[-1]], count=12 - taken, cache=cache) == greedily(PROMPT, 12)


def test_the_context_is_the_configured_length_times_the_factor_of_a_scaling_from_there():
    assert context_length(CONFIG) == 64
    assert context_length(CONFIG.replace(rope_scaling=RopeScaling("linear", 4.0))) == 256
    llama3 = RopeScaling("llama3", 8.0, original_max_position_embeddings=8)
    assert context_length(CONFIG.replace(rope_scaling=llama3)) == 64
