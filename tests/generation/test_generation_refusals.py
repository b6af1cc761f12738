"""What `generate` refuses, before the model runs at all."""

import math
import sys

import pytest
import torch
from small_models import CONFIG, no_shape_checks, random_model

from llama_core.batch import generate_batch
from llama_core.cache import KVCache
from llama_core.errors import CacheError, GenerationError, InputError
from llama_core.generate import generate, generate_steps
from llama_core.model import Llama


@pytest.fixture(autouse=True)
def as_users_run_it():
    """Without the type checks of the tests, which would refuse some of this first."""
    with no_shape_checks():
        yield


@pytest.fixture
def idle_model():
    """A model that must not run."""

    def hook(*_):
        raise AssertionError("the model ran")

    model = random_model()
    handle = model.embed_tokens.register_forward_hook(hook)
    yield model
    handle.remove()


BAD = {
    "max_new_tokens": [0, -1, True, 1.5, "9", math.nan],
    "temperature": [math.nan, math.inf, -1.0, True, "0", None],
    "top_k": [0, -2, 1.0, True],
    "top_p": [0, 1.1, math.nan, False],
    "seed": [-1, 1.5, True, 2**63, "0"],
    "prefill_chunk": [0, -1, True, 2.5, None],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in BAD.items() for value in values])
def test_parameters_out_of_range_are_refused_by_name(idle_model, key, value):
    with pytest.raises(GenerationError) as error:
        generate(idle_model, [1, 2], **{key: value})  # not even iterated
    assert error.value.key == key
    assert error.value.actual is value


@pytest.mark.parametrize(
    "ids", [[], [97], [-1], [1.0], [True], [None], "text", None, 5, [[1, 2]], torch.ones(1, 3, dtype=torch.long)]
)
def test_ids_that_are_no_sequence_of_ids_are_refused(idle_model, ids):
    with pytest.raises(InputError) as error:
        generate(idle_model, ids)
    assert error.value.key == "ids"


@pytest.mark.parametrize("eos_ids", [97, -1, [2, 97], "2", [None], 1.0, True])
def test_end_ids_outside_the_vocabulary_are_refused(idle_model, eos_ids):
    with pytest.raises(InputError) as error:
        generate(idle_model, [1], eos_ids=eos_ids)
    assert error.value.key == "eos_ids"


def test_a_seed_beside_a_generator_is_refused(idle_model):
    with pytest.raises(GenerationError, match="only one"):
        generate(idle_model, [1], seed=1, generator=torch.Generator())


@pytest.mark.parametrize(
    ("prompt", "new", "hint"),
    [
        (10, 55, "at most 54"),
        (64, 1, "shorten"),
        (65, None, "shorten"),
        (64, None, "shorten"),
        (1, 10**9, "at most 63"),
    ],
)
def test_what_does_not_fit_the_context_is_refused_with_what_would(idle_model, prompt, new, hint):
    with pytest.raises(GenerationError) as error:
        generate(idle_model, [1] * prompt, new)
    assert error.value.expected == "at most 64 tokens in all"
    assert hint in error.value.hint


def test_the_context_counts_what_the_cache_holds():
    cache = KVCache(CONFIG, max_length=200)
    list(generate(random_model(), [1] * 30, 5, eos_ids=(), cache=cache))
    with pytest.raises(GenerationError, match="context") as error:
        generate(random_model(), [1] * 10, 21, cache=cache)
    assert error.value.actual == "34 cached + 10 in the prompt + 21 new"
    generate(random_model(), [1] * 10, 20, cache=cache)


def test_a_cache_with_too_little_room_is_refused(idle_model):
    with pytest.raises(CacheError) as error:
        generate(idle_model, [1] * 10, 8, cache=KVCache(CONFIG, max_length=16))
    assert error.value.expected == "at least 17"
    generate(idle_model, [1] * 10, 7, cache=KVCache(CONFIG, max_length=16))  # the last token needs no slot


def test_a_cache_of_several_rows_or_of_another_type_is_refused(idle_model):
    with pytest.raises(CacheError):
        generate(idle_model, [1], 3, cache=KVCache(CONFIG, batch_size=2, max_length=16))
    with pytest.raises(CacheError):
        generate(idle_model, [1], 3, cache=KVCache(CONFIG, max_length=16, dtype="bfloat16"))


@pytest.mark.parametrize("generator", [7, "7", torch.Generator])
def test_what_is_no_generator_is_refused(idle_model, generator):
    with pytest.raises(GenerationError, match="no Generator") as error:
        generate(idle_model, [1], generator=generator)
    assert error.value.key == "generator"


@pytest.mark.parametrize("parameters", [{}, {"temperature": 1}, 0.5])
@pytest.mark.parametrize("call", [generate_steps, lambda model, ids, *rest: generate_batch(model, [ids], *rest)])
def test_what_is_no_parameters_is_refused(idle_model, call, parameters):
    with pytest.raises(GenerationError, match="no SamplingParameters") as error:
        call(idle_model, [1], 2, parameters)
    assert error.value.key == "parameters"


@pytest.mark.parametrize("cache", [5, [], {}])
@pytest.mark.parametrize(
    "call", [lambda m, cache: generate(m, [1], cache=cache), lambda m, cache: m(torch.tensor([[1]]), cache=cache)]
)
def test_what_is_no_cache_is_refused(idle_model, call, cache):
    with pytest.raises(CacheError, match="no KVCache") as error:
        call(idle_model, cache)
    assert error.value.key == "cache"


@pytest.mark.parametrize("sizes", [(10, 100, 256), (257, 300, 512)])
def test_compiled_calls_of_similar_lengths_make_caches_of_one_capacity(monkeypatch, sizes):
    """A graph is made for a capacity, and compiling takes a minute."""
    model, made = Llama.random(CONFIG.replace(max_position_embeddings=1024)), []
    monkeypatch.setattr(Llama, "decode_is_compiled", True)
    monkeypatch.setattr(
        sys.modules["llama_core.generate"], "KVCache", lambda *_, max_length, **__: made.append(max_length)
    )
    for size in sizes:
        generate(model, [1] * 10, size - 10 + 1)
    assert len(set(made)) == 1 and made[0] >= sizes[-1]


def test_logits_that_are_not_finite_end_the_stream_with_an_error():
    model = random_model()
    cache = KVCache(CONFIG, max_length=16)
    stream = generate(model, [1, 2, 3], 5, temperature=0.5, eos_ids=(), cache=cache)
    next(stream)
    handle = model.lm_head.register_forward_hook(lambda *args: args[-1] * math.nan)
    try:
        with pytest.raises(GenerationError, match="not finite"):
            next(stream)
    finally:
        handle.remove()
    assert cache.length == 3
