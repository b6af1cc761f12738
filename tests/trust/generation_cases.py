"""Sampling, generation, caches, and tensors handed to the model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from case import ANY, Case, Refusal

NOT_YET = "the model ran"


@functools.cache
def model() -> Any:
    from llama_core import Llama, LlamaConfig

    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
    )
    return Llama.random(config, seed=1)


@functools.cache
def endless() -> Any:
    """The same with a context that no memory holds."""
    from llama_core import Llama

    return Llama.random(model().config.replace(max_position_embeddings=2**31 - 1), seed=1)


def _idle(run: Callable[[Any], Any], made: Callable[[], Any] = model) -> Callable[[Path], None]:
    """A use whose model must not run."""

    def use(place: Path) -> None:
        def hook(*_: Any) -> None:
            raise AssertionError(NOT_YET)

        handle = made().embed_tokens.register_forward_hook(hook)
        try:
            run(made())
        finally:
            handle.remove()

    return use


def _nothing(place: Path) -> None:
    pass


BAD_PARAMETERS: dict[str, list[Any]] = {
    "max_new_tokens": [0, -1, True, 1.5, "9", math.nan, 10**9, 10**30],
    "temperature": [math.nan, math.inf, -math.inf, -1.0, True, "0", None, 10**400, 1j],
    "top_k": [0, -2, 1.0, True, math.inf, "5"],
    "top_p": [0, 1.1, -0.1, math.nan, math.inf, False, "0.9"],
    "min_p": [-0.1, 1.1, math.nan, True, "0"],
    "repetition_penalty": [0, -1.0, math.nan, math.inf, True, "1"],
    "seed": [-1, 1.5, True, 2**63, "0"],
    "prefill_chunk": [0, -1, True, 2.5, None],
    "eos_ids": [97, -1, [2, 97], "2", [None], 1.0, True, {"a": 1}],
}
BAD_IDS: dict[str, Any] = {
    "none": [],
    "beyond the vocabulary": [97],
    "negative": [-1],
    "a fraction": [1.0],
    "true": [True],
    "null": [None],
    "text": "text",
    "nothing": None,
    "a number": 5,
    "nested": [[1, 2]],
    "a batch": torch.ones(1, 3, dtype=torch.long),
    "a float tensor": torch.ones(3),
    "10^30": [10**30],
}


def generation_cases() -> Iterator[Case]:
    from llama_core import generate
    from llama_core.batch import generate_batch
    from llama_core.sampling import SamplingParameters
    from llama_core.text_stream import StopStrings

    concern = "generation"

    def bad(name: str, run: Callable[[Any], Any], *refusal: Any, made: Callable[[], Any] = model, **facts: Any) -> Case:
        return Case(concern, name, _nothing, _idle(run, made), Refusal(*refusal, **facts))

    for key, values in BAD_PARAMETERS.items():
        for value in values:
            error = "InputError" if key == "eos_ids" else "GenerationError"
            run = lambda m, k=key, v=value: generate(m, [1, 2], **{k: v})  # noqa: E731
            unsaid = ("actual",) if value is None or value == [None] else ()
            yield bad(f"{key} {str(value)[:40]!r}"[:60], run, error, None, key, unsaid=unsaid)
    for name, ids in BAD_IDS.items():
        unsaid = ("actual",) if ids == [None] else ()
        yield bad(f"ids: {name}", lambda m, i=ids: generate(m, i), "InputError", None, "ids", unsaid=unsaid)
        yield bad(
            f"a batch with ids: {name}",
            lambda m, i=ids: generate_batch(m, [[1], i], 2),
            *("InputError", None, "prompts[1]"),
            unsaid=unsaid,
        )
    for name, prompt, new in (
        ("a prompt longer than the context", 65, None),
        ("a prompt as long as the context", 64, 1),
        ("a prompt of a million tokens", 10**6, 5),
        ("prompt and new tokens longer than the context", 10, 55),
    ):
        run = lambda m, p=prompt, n=new: generate(m, [1] * p, n)  # noqa: E731
        yield bad(name, run, "GenerationError", None, "max_new_tokens", "do not fit")
        run = lambda m, p=prompt, n=new: generate_batch(m, [[1], [1] * p], n)  # noqa: E731
        yield bad(f"a batch with {name}", run, "GenerationError", None, "max_new_tokens", "do not fit")
    for new in (10**9, 2**31 - 10):
        run = lambda m, n=new: generate(m, [1], n)  # noqa: E731
        yield bad(f"{new} new tokens in an endless context", run, "CacheError", None, "max_length", made=endless)
        run = lambda m, n=new: generate_batch(m, [[1], [2]], n)  # noqa: E731
        yield bad(f"a batch of {new} in an endless context", run, "CacheError", None, "max_length", made=endless)
    for value in ("", [""], 5, [5], None, b"x"):
        run = lambda m, v=value: StopStrings(v)  # noqa: E731
        unsaid = ("actual",) if value is None or value in ("", [""]) else ()
        yield bad(f"stop {value!r}", run, "GenerationError", None, "stop", unsaid=unsaid)
    others = {
        "a seed beside a generator": (
            lambda m: generate(m, [1], seed=1, generator=torch.Generator()),
            ("GenerationError", None, "seed"),
        ),
        "stop strings without a tokenizer": (
            lambda m: generate_batch(m, [[1]], 2, stop="x"),
            ("GenerationError", None, "tokenizer"),
        ),
        "no prompts": (lambda m: generate_batch(m, []), ("InputError", None, "prompts")),
        "prompts that are text": (lambda m: generate_batch(m, "ab"), ("InputError", None, "prompts")),
        "a batch with the seed -1": (lambda m: generate_batch(m, [[1]], 2, seed=-1), ("GenerationError", None, "seed")),
        "sampling parameters that are none": (
            lambda m: SamplingParameters("0"),
            ("GenerationError", None, "temperature"),
        ),
    }
    for name, (run, refusal) in others.items():
        unsaid = ("actual",) if "without" in name else ()
        yield bad(name, run, *refusal, unsaid=unsaid)
    yield from _cache_cases(concern)
    yield from _tensor_cases(concern)
    yield Case(
        concern,
        "logits that are not finite, late in the stream",
        _nothing,
        _diverges,
        Refusal("GenerationError", None, "logits", "not finite"),
    )


def _diverges(place: Path) -> None:
    from llama_core import generate

    stream = generate(model(), [1, 2, 3], 5, temperature=0.5, eos_ids=())
    next(stream)
    model().lm_head.register_forward_hook(lambda *args: args[-1] * math.nan)
    list(stream)


def _cache_cases(concern: str) -> Iterator[Case]:
    from llama_core import KVCache, generate

    for key, value in [
        *(("max_length", v) for v in (0, -1, True, 1.5, "9", None, 10**12, 10**30)),
        *(("batch_size", v) for v in (0, True, 2.0, 10**12)),
    ]:
        use = lambda place, k=key, v=value: KVCache(model().config, **{k: v})  # noqa: E731
        unsaid = ("actual",) if value is None else ()
        named = "max_length" if value in (10**12, 10**30) else key
        yield Case(
            concern, f"a cache with {key} {value!r}", _nothing, use, Refusal("CacheError", None, named, "", unsaid)
        )
    for key, value in (("dtype", "int8"), ("dtype", 7), ("device", "abacus"), ("device", 1.5)):
        use = lambda place, k=key, v=value: KVCache(model().config, **{k: v})  # noqa: E731
        yield Case(concern, f"a cache with {key} {value!r}", _nothing, use, Refusal(ANY, None, key))
    caches = {
        "a cache too small": (lambda m: KVCache(m.config, max_length=3), "max_length"),
        "a cache of two rows": (lambda m: KVCache(m.config, 2, 64), "batch_size"),
        "a cache in another type": (lambda m: KVCache(m.config, 1, 64, dtype="bfloat16"), "dtype"),
        "another model's cache": (lambda m: KVCache(m.config.replace(head_dim=4), 1, 64), "head_dim"),
    }
    for name, (make, key) in caches.items():
        use = _idle(lambda m, make=make: generate(m, [1, 2], 5, cache=make(m)))
        yield Case(concern, name, _nothing, use, Refusal("CacheError", None, key))
    for length in (-1, 1, True, None, 1.0):
        use = lambda place, n=length: KVCache(model().config).truncate(n)  # noqa: E731
        unsaid = ("actual",) if length is None else ()
        yield Case(concern, f"truncate to {length!r}", _nothing, use, Refusal("CacheError", None, "length", "", unsaid))


def _tensor_cases(concern: str) -> Iterator[Case]:
    from llama_core import Llama

    ids = torch.tensor([[1, 2, 3]])
    tensors: dict[str, tuple[Callable[[Any], Any], str]] = {
        "ids of one axis": (lambda m: m(torch.tensor([1, 2])), "input_ids"),
        "ids of no column": (lambda m: m(torch.zeros(1, 0, dtype=torch.long)), "input_ids"),
        "ids beyond the vocabulary, in a tensor": (lambda m: m(torch.tensor([[97]])), "input_ids"),
        "negative ids, in a tensor": (lambda m: m(torch.tensor([[-1]])), "input_ids"),
        "ids that are fractions, in a tensor": (lambda m: m(torch.ones(1, 3)), "input_ids"),
        "ids that are truths, in a tensor": (lambda m: m(torch.ones(1, 3, dtype=torch.bool)), "input_ids"),
        "ids that are a list": (lambda m: m([[1, 2]]), "input_ids"),
        "a mask too short": (lambda m: m(ids, attention_mask=torch.ones(1, 2)), "attention_mask"),
        "a mask of two rows": (lambda m: m(ids, attention_mask=torch.ones(2, 3)), "attention_mask"),
        "a mask with NaN": (lambda m: m(ids, attention_mask=torch.full((1, 3), math.nan)), "attention_mask"),
        "a mask of additive values": (
            lambda m: m(ids, attention_mask=torch.tensor([[0.0, -math.inf, 0.0]])),
            "attention_mask",
        ),
        "a mask that is a list": (lambda m: m(ids, attention_mask=[[1, 1, 1]]), "attention_mask"),
        "negative positions": (lambda m: m(ids, position_ids=torch.tensor([[0, -1, 1]])), "position_ids"),
        "positions of another shape": (lambda m: m(ids, position_ids=torch.tensor([[0, 1]])), "position_ids"),
        "positions that are fractions": (lambda m: m(ids, position_ids=torch.tensor([[0.5, 1, 2]])), "position_ids"),
        "positions that are a list": (lambda m: m(ids, position_ids=[[0, 1, 2]]), "position_ids"),
    }
    for name, (run, key) in tensors.items():
        yield Case(concern, name, _nothing, _idle(run), Refusal("InputError", None, key))
    empty = lambda place: Llama(model().config)(ids)  # noqa: E731
    yield Case(concern, "a model without weights", _nothing, empty, Refusal("InputError", None, ANY))


# Good ones


def good_generation_cases() -> Iterator[Case]:
    from llama_core import generate

    edges: dict[str, dict[str, Any]] = {
        "temperature 0": dict(temperature=0),
        "a temperature that float32 does not hold": dict(temperature=1e-300),
        "a temperature of 10^300": dict(temperature=1e300),
        "top_p 1": dict(top_p=1),
        "a top_p of 1e-300": dict(top_p=1e-300),
        "top_k beyond the vocabulary": dict(top_k=10**9),
        "min_p 0 and 1": dict(min_p=1),
        "a penalty of 1e-30": dict(repetition_penalty=1e-30),
        "a penalty of 1e30": dict(repetition_penalty=1e30),
        "the largest seed": dict(seed=2**63 - 1),
        "a chunk of 10^9": dict(prefill_chunk=10**9),
        "no end ids": dict(eos_ids=()),
        "every end id": dict(eos_ids=range(97) and list(range(97))),
        "all that fits": dict(max_new_tokens=62),
    }
    for name, options in edges.items():

        def use(place: Path, options: dict[str, Any] = options) -> None:
            found = list(generate(model(), torch.tensor([1, 2]), **{"max_new_tokens": 4, "seed": 0} | options))
            assert 1 <= len(found) <= options.get("max_new_tokens", 4) and all(0 <= token < 97 for token in found)

        yield Case("good generation", name, _nothing, use)
