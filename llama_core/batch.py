"""Several prompts of any lengths at once: what each gives is what it gives alone."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from llama_core.cache import KVCache
from llama_core.errors import GenerationError, InputError
from llama_core.generate import check_parameters, count, end_ids, fitting_limit, token_ids
from llama_core.model import Llama
from llama_core.sampling import SamplingParameters, check_logits, log_probabilities, next_token
from llama_core.text_stream import TextStream, check_stop
from llama_core.tokenizer import Tokenizer


@dataclass(frozen=True)
class Continuation:
    """What one prompt gave.

    Attributes:
        ids: the new tokens, with the one that ended the text.
        log_probabilities: of each, ``ln softmax(logits)``, as the model gave it before any filter.
        reason: why it ended: ``end`` (an end id), ``stop`` (a stop string) or ``length``.
        text: their text up to the stop string; None without a tokenizer.
    """

    ids: tuple[int, ...]
    log_probabilities: tuple[float, ...]
    reason: str
    text: str | None = None


def generate_batch(
    model: Llama,
    prompts: Sequence[Iterable[int] | Tensor],
    max_new_tokens: int | None = None,
    parameters: SamplingParameters | None = None,
    *,
    seed: int | None = None,
    eos_ids: int | Collection[int] | None = None,
    stop: str | Collection[str] = (),
    tokenizer: Tokenizer | None = None,
    prefill_chunk: int = 1024,
) -> list[Continuation]:
    """Continue several sequences of token ids; shorter ones are padded on the left, under a mask.

    Everything is checked before the model runs. Row i gives what `generate` gives for that prompt with the seed
    ``seed + i``: in float32 greedy ids are the same, unless two logits lie closer than rounding.

    Args:
        model: the model. prompts: one sequence of ids for each row.
        max_new_tokens: for each row at most so many; None for 256, or as many as fit behind the longest prompt.
        parameters: how tokens are chosen; None stands for the defaults.
        seed: makes the choices repeatable. eos_ids: as for `generate`.
        stop: strings that end a text; they need ``tokenizer``. tokenizer: gives each continuation its text.
        prefill_chunk: read the prompts in pieces of this many tokens.

    Raises:
        GenerationError, InputError: as `generate`; ``ids`` errors name the row.
    """
    parameters = check_parameters(parameters)
    rows = _prompts(prompts, model.config.vocab_size)
    chunk = count(prefill_chunk, "prefill_chunk")
    limit = None if max_new_tokens is None else count(max_new_tokens, "max_new_tokens")
    limit = fitting_limit(limit, max(map(len, rows)), model.config, None)
    ends = end_ids(eos_ids, model.config)
    if check_stop(stop) and tokenizer is None:
        raise GenerationError(
            "stop strings are looked for in text, and there is no tokenizer to make it",
            key="tokenizer",
            expected="the model's tokenizer",
            actual=None,
            hint="generate_batch(..., tokenizer=Tokenizer.from_pretrained(folder))",
        )
    generators = _generators(seed, len(rows))
    states = [_Row(prompt, tokenizer, stop, ends, limit) for prompt in rows]
    _run(model, rows, states, limit, parameters, generators, chunk)
    return [state.result() for state in states]


@torch.no_grad()
def _run(
    model: Llama,
    rows: list[list[int]],
    states: list[_Row],
    limit: int,
    parameters: SamplingParameters,
    generators: list[torch.Generator],
    chunk: int,
) -> None:
    longest = max(map(len, rows))
    device = model.device
    ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows], device=device)
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=device)
    seen = torch.zeros(len(rows), model.config.vocab_size, dtype=torch.bool, device=device)
    for n, row in enumerate(rows):
        seen[n, row] = True
    cache = KVCache(model.config, len(rows), longest + limit - 1, dtype=model.dtype, device=device)
    for start in range(0, longest, chunk):
        stop = min(start + chunk, longest)
        logits = model(ids[:, start:stop], attention_mask=mask[:, :stop], cache=cache, last_only=True)[:, -1]
    for step in range(limit):
        live = [n for n, state in enumerate(states) if state.reason is None]
        check_logits(logits[live])
        chosen = torch.zeros(len(rows), dtype=torch.long, device=device)
        for n in live:
            chosen[n] = next_token(logits[n : n + 1], parameters, generators[n], seen[n : n + 1])[0]
        scores = log_probabilities(logits, chosen).tolist()
        for n in live:
            states[n].push(int(chosen[n]), scores[n])
        seen[torch.arange(len(rows), device=device), chosen] = True
        if step == limit - 1 or all(state.reason for state in states):
            return
        mask = torch.cat((mask, mask.new_ones(len(rows), 1)), dim=1)
        logits = model(chosen[:, None], attention_mask=mask, cache=cache)[:, -1]


class _Row:
    """One prompt on its way: what it gave, and whether it has ended."""

    def __init__(
        self,
        prompt: list[int],
        tokenizer: Tokenizer | None,
        stop: str | Collection[str],
        ends: frozenset[int],
        limit: int,
    ):
        self._text = None if tokenizer is None else TextStream(tokenizer, prompt, stop)
        self._ends, self._limit = ends, limit
        self._ids: list[int] = []
        self._scores: list[float] = []
        self._shown: list[str] = []
        self.reason: str | None = None

    def push(self, token: int, score: float) -> None:
        self._ids.append(token)
        self._scores.append(score)
        if self._text:
            self._shown.append(self._text.push(token))
        if token in self._ends:
            self.reason = "end"
        elif self._text and self._text.stopped:
            self.reason = "stop"
        elif len(self._ids) == self._limit:
            self.reason = "length"
        if self.reason and self._text:
            self._shown.append(self._text.flush())

    def result(self) -> Continuation:
        assert self.reason is not None
        text = "".join(self._shown) if self._text else None
        return Continuation(tuple(self._ids), tuple(self._scores), self.reason, text)


def _prompts(prompts: Any, vocab_size: int) -> list[list[int]]:
    if not isinstance(prompts, list | tuple) or not prompts:
        raise InputError(
            "prompts must be a list of sequences of ids",
            key="prompts",
            expected="at least one sequence",
            actual="none" if isinstance(prompts, list | tuple) else type(prompts).__name__,
        )
    rows = []
    for n, prompt in enumerate(prompts):
        try:
            rows.append(token_ids(prompt, vocab_size))
        except InputError as error:
            error.key = f"prompts[{n}]"
            raise
    return rows


def _generators(seed: Any, rows: int) -> list[torch.Generator]:
    if seed is None:
        seed = secrets.randbelow(2**62)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63 - rows:
        raise GenerationError(
            f"seed is {seed!r}, but must be a whole number from 0 to 2^63 - 1 - rows",
            key="seed",
            expected="0 to 2^63 - 1 - rows",
            actual=seed,
        )
    return [torch.Generator().manual_seed(seed + n) for n in range(rows)]
