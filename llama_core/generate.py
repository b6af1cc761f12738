"""Checkpoint 10: from a prompt to a stream of tokens, with a KV cache."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from llama_core.cache import KVCache, check_is_cache
from llama_core.config import LlamaConfig
from llama_core.errors import GenerationError, InputError, check_kind
from llama_core.model import Llama
from llama_core.sampling import SamplingParameters, log_probabilities, next_token

DEFAULT_NEW_TOKENS = 256


def generate(
    model: Llama,
    ids: Iterable[int] | Tensor,
    max_new_tokens: int | None = None,
    temperature: float | int = 0.8,
    top_k: int | None = None,
    top_p: float | int | None = None,
    *,
    min_p: float | int | None = None,
    repetition_penalty: float | int | None = None,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    eos_ids: int | Collection[int] | None = None,
    cache: KVCache | None = None,
    prefill_chunk: int = 1024,
    compile: bool = False,
) -> Iterator[int]:
    """Continue a sequence of token ids, one token at a time.

    Everything is checked by the call itself, before the model runs; what it returns then yields ids. The id that ends a
    text is yielded too, as the last one (transformers' ``generate`` has it in its output as well); it decodes to
    nothing.

    Args:
        model: the model. ids: the prompt, whole numbers, at least one; one sequence.
        max_new_tokens: how many tokens at most; None for 256, or as many as fit where that is less.
        temperature: 0 takes the most likely token, always. top_k, top_p, min_p, repetition_penalty: see
            `SamplingParameters`; the penalty counts ``ids`` and what follows them, not what the cache held before.
        seed: a whole number that makes the choice repeatable. Without ``seed`` and ``generator`` every call differs.
        generator: where chance comes from, instead of a seed; it moves on by one number for each token.
        eos_ids: ids that end the text; None for the configuration's, ``()`` for none.
        cache: keys and values of what came before, one row; ``ids`` then continue it. None makes one for this call.
        prefill_chunk: read the prompt in pieces of this many tokens; smaller ones need less memory.
        compile: compile the model's decode step first, unless it is (`Llama.compile_decode`): the ids stay the same,
            the first step takes a minute or so, the later ones less time than uncompiled.

    The cache afterwards, however the stream ended (end id, limit, ``close``, an exception, Ctrl-C), holds the prompt
    and every yielded token but the last, which the model has not read: to go on, begin the next call's ``ids`` with it.
    If it ended before the first token, the cache is as it was before the call.

    Raises:
        GenerationError: a parameter is out of range, prompt and new tokens do not fit the model's context, or, while it
            runs, the logits are not finite.
        InputError: ids are none, no whole numbers or not in the vocabulary.
        CacheError: the cache is another model's, has several rows, or too little room.
    """
    parameters = SamplingParameters(temperature, top_k, top_p, min_p, repetition_penalty)
    stream = _checked_stream(
        model, ids, max_new_tokens, parameters, seed, generator, eos_ids, cache, prefill_chunk, compile
    )
    return (token for token, _ in stream)


class Step(NamedTuple):
    """One new token, and the log-probability ``ln softmax(logits)`` that the model gave it, before any filter."""

    token: int
    log_probability: float


def generate_steps(
    model: Llama,
    ids: Iterable[int] | Tensor,
    max_new_tokens: int | None = None,
    parameters: SamplingParameters | None = None,
    *,
    seed: int | None = None,
    generator: torch.Generator | None = None,
    eos_ids: int | Collection[int] | None = None,
    cache: KVCache | None = None,
    prefill_chunk: int = 1024,
    compile: bool = False,
) -> Iterator[Step]:
    """Like `generate`, each token with its log-probability; ``parameters`` None stands for the defaults."""
    parameters = check_parameters(parameters)
    stream = _checked_stream(
        model, ids, max_new_tokens, parameters, seed, generator, eos_ids, cache, prefill_chunk, compile
    )
    return (
        Step(token, float(log_probabilities(logits, torch.tensor([token], device=logits.device))))
        for token, logits in stream
    )


def _checked_stream(
    model: Llama,
    ids: Any,
    max_new_tokens: Any,
    parameters: SamplingParameters,
    seed: Any,
    generator: Any,
    eos_ids: Any,
    cache: KVCache | None,
    prefill_chunk: Any,
    compile: bool,
) -> Iterator[tuple[int, Tensor]]:
    """Check everything, then a stream of tokens, each with the logits [1, V] that it was chosen by."""
    prompt = token_ids(ids, model.config.vocab_size)
    chunk = count(prefill_chunk, "prefill_chunk")
    limit = None if max_new_tokens is None else count(max_new_tokens, "max_new_tokens")
    ends = end_ids(eos_ids, model.config)
    generator = _generator(seed, generator)
    check_is_cache(cache)
    limit = fitting_limit(limit, len(prompt), model.config, cache)
    slots = len(prompt) + limit - 1  # the last token is yielded, not read
    if compile and not model.decode_is_compiled:
        model.compile_decode()
    if cache is None:
        capacity = _compiled_capacity(slots) if model.decode_is_compiled else slots
        cache = KVCache(model.config, max_length=capacity, dtype=model.dtype, device=model.device)
    else:
        cache.check_room(model.config, 1, slots, model.dtype, model.device)
    return _stream(model, prompt, limit, parameters, generator, ends, cache, chunk)


def _compiled_capacity(slots: int) -> int:
    """The next power of two, 256 or more: a graph is made for a capacity, so there should be few."""
    return max(256, 1 << (slots - 1).bit_length())


def context_length(config: LlamaConfig) -> int:
    """The most positions that a model reads: ``max_position_embeddings``, times the factor of a scaling from there."""
    scaling, length = config.rope_scaling, config.max_position_embeddings
    if scaling is None or scaling.kind == "default" or scaling.original_max_position_embeddings is not None:
        return length
    return int(length * scaling.factor)


def _stream(
    model: Llama,
    prompt: list[int],
    limit: int,
    parameters: SamplingParameters,
    generator: torch.Generator,
    ends: frozenset[int],
    cache: KVCache,
    chunk: int,
) -> Iterator[tuple[int, Tensor]]:
    seen = None
    if parameters.repetition_penalty is not None:
        seen = torch.zeros(1, model.config.vocab_size, dtype=torch.bool, device=model.device)
    unread = prompt
    for _ in range(limit):
        if seen is not None:
            seen[0, unread] = True
        before = cache.length
        try:
            token, logits = _read(model, unread, parameters, generator, cache, chunk, seen)
        except BaseException:  # Ctrl-C as well, also between the last line of _read and this one
            cache.truncate(before)
            raise
        yield token, logits
        if token in ends:
            return
        unread = [token]


@torch.no_grad()
def _read(
    model: Llama,
    ids: list[int],
    parameters: SamplingParameters,
    generator: torch.Generator,
    cache: KVCache,
    chunk: int,
    seen: Tensor | None,
) -> tuple[int, Tensor]:
    """Read some ids into the cache and choose the token after them."""
    for start in range(0, len(ids), chunk):
        piece = torch.tensor([ids[start : start + chunk]], device=model.device)
        logits = model(piece, cache=cache, last_only=True)
    return int(next_token(logits[:, -1], parameters, generator, seen)), logits[:, -1]


def fitting_limit(limit: int | None, prompt: int, config: LlamaConfig, cache: KVCache | None) -> int:
    """The number of new tokens, which must fit the context together with the prompt and what the cache holds."""
    past = int(cache.next_positions().max()) if cache is not None else 0
    context = context_length(config)
    room = context - past - prompt
    if room < (limit or 1):
        parts = ([f"{past} cached"] if past else []) + [f"{prompt} in the prompt", f"{limit or 1} new"]
        raise GenerationError(
            "prompt and new tokens do not fit the model's context",
            key="max_new_tokens",
            expected=f"at most {context} tokens in all",
            actual=" + ".join(parts),
            hint=f"ask for at most {room} new tokens" if room > 0 else "shorten the prompt",
        )
    if limit is not None:
        return limit
    if cache is not None:
        room = min(room, max(1, cache.max_length - cache.length - prompt + 1))
    return min(room, DEFAULT_NEW_TOKENS)


def token_ids(ids: Any, vocab_size: int) -> list[int]:
    """One sequence of ids as a list. Raises InputError for anything else, for none, and for ids that there are not."""
    if isinstance(ids, Tensor) and ids.ndim == 1:
        ids = ids.tolist()
    if not isinstance(ids, Iterable) or isinstance(ids, str | bytes | Tensor):
        found = f"a tensor {list(ids.shape)}" if isinstance(ids, Tensor) else type(ids).__name__
        raise InputError("ids must be one sequence of token ids", key="ids", expected="whole numbers", actual=found)
    numbers = [_token_id(token, "ids", vocab_size) for token in ids]
    if not numbers:
        raise InputError(
            "there is nothing to continue",
            key="ids",
            expected="at least one token id",
            actual="none",
            hint="begin with the begin id: tokenizer.encode(text, bos=True)",
        )
    return numbers


def _token_id(token: Any, key: str, vocab_size: int) -> int:
    try:
        number = operator.index(token)  # also numpy's integers
    except TypeError:
        number = -1
    if isinstance(token, bool) or not 0 <= number < vocab_size:
        raise InputError(
            f"{key} holds {token!r}, which is no id of this model",
            key=key,
            expected=f"whole numbers from 0 to {vocab_size - 1}",
            actual=token,
            hint="one sequence at a time" if isinstance(token, Sequence) else None,
        )
    return number


def end_ids(eos_ids: Any, config: LlamaConfig) -> frozenset[int]:
    """The ids that end a text: those given, or where they are None the configuration's."""
    if eos_ids is None:
        return frozenset(config.eos_token_ids)
    if isinstance(eos_ids, list | tuple | set | frozenset):
        return frozenset(_token_id(token, "eos_ids", config.vocab_size) for token in eos_ids)
    return frozenset({_token_id(eos_ids, "eos_ids", config.vocab_size)})


def check_parameters(parameters: Any) -> SamplingParameters:
    """The parameters, or the defaults for None. Raises GenerationError for anything else."""
    hint = "SamplingParameters(temperature=0.7, top_p=0.9)"
    check_kind(parameters, SamplingParameters, "parameters", GenerationError, hint)
    return SamplingParameters() if parameters is None else parameters


def _generator(seed: Any, generator: Any) -> torch.Generator:
    check_kind(generator, torch.Generator, "generator", GenerationError, "a number is given as seed=")
    if seed is None:
        if generator is None:
            generator = torch.Generator()
            generator.seed()
        return generator
    if generator is not None:
        message = "seed and generator are given, and only one of them can hold"
        raise GenerationError(message, key="seed", expected="None beside a generator", actual=seed)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise GenerationError(
            f"seed is {seed!r}, but must be a whole number from 0 to 2^63 - 1",
            key="seed",
            expected="0 to 2^63 - 1",
            actual=seed,
        )
    return torch.Generator().manual_seed(seed)


def count(value: Any, key: str) -> int:
    """A whole number, 1 or more. Raises GenerationError for anything else."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise GenerationError(
            f"{key} is {value!r}, but must be a whole number, 1 or more",
            key=key,
            expected="1 or more",
            actual=value,
        )
    return value
