"""Conversations as token ids, in the form that Llama 2 and Llama 3 were tuned on, and a chat that keeps its cache."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from llama_core.cache import KVCache
from llama_core.errors import InputError
from llama_core.generate import context_length, generate
from llama_core.model import Llama
from llama_core.sampling import SamplingParameters
from llama_core.text_stream import TextStream
from llama_core.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant")
_MARKS = ("[INST]", "[/INST]", "<<SYS>>", "<</SYS>>")
_LLAMA_3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


@dataclass(frozen=True)
class Message:
    """One turn: who speaks (``system``, ``user`` or ``assistant``), and what is said."""

    role: str
    content: str


def chat_ids(tokenizer: Tokenizer, messages: Sequence[Message], template: str | None = None) -> list[int]:
    """The ids that the model reads before it answers.

    Args:
        tokenizer: the model's. messages: at most one system message, first; then user and assistant in turn, the user
            last. template: ``llama-2`` or ``llama-3``; None for the one that the vocabulary tells.

    Raises:
        InputError: the messages are not in that order, or hold the marks of Llama 2's template, or no template fits.
    """
    check_messages(messages)
    return TEMPLATES[template_of(tokenizer, template)](tokenizer, messages)


def llama_2_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """``<s>[INST] question [/INST] answer </s><s>[INST] …``, the system message between marks in the first question.

    Its marks are text, not tokens. So a message that holds one of them is refused: it would end its own turn.
    Source: ``chat_completion`` in ``llama/generation.py`` of Meta's llama repository.
    """
    for n, message in enumerate(messages):
        found = next((mark for mark in _MARKS if mark in message.content), None)
        if found:
            raise InputError(
                f"a message holds {found}, which marks turns in this template",
                key=f"messages[{n}]",
                expected="text without " + ", ".join(_MARKS),
                actual=found,
            )
    turns = list(messages)
    if turns[0].role == "system":
        content = f"<<SYS>>\n{turns[0].content}\n<</SYS>>\n\n{turns[1].content}"
        turns[:2] = [Message("user", content)]
    ids = []
    for question, answer in zip(turns[::2], turns[1::2], strict=False):
        text = f"[INST] {question.content.strip()} [/INST] {answer.content.strip()} "
        ids += tokenizer.encode(text, bos=True, eos=True)
    return ids + tokenizer.encode(f"[INST] {turns[-1].content.strip()} [/INST]", bos=True)


def llama_3_ids(tokenizer: Tokenizer, messages: Sequence[Message]) -> list[int]:
    """A begin token, each message behind a header with its role, and the header of the answer.

    Source: ``ChatFormat`` in ``models/llama3/chat_format.py`` of Meta's llama-models repository.
    """
    start, end, turn = (tokenizer.special_id(name) for name in _LLAMA_3)
    ids = [tokenizer.special_id("<|begin_of_text|>")]

    def header(role: str) -> list[int]:
        return [start, *tokenizer.encode(role), end, *tokenizer.encode("\n\n")]

    for message in messages:
        ids += [*header(message.role), *tokenizer.encode(message.content.strip()), turn]
    return ids + header("assistant")


#: Name of a template -> from tokenizer and messages to ids.
TEMPLATES: dict[str, Callable[[Tokenizer, Sequence[Message]], list[int]]] = {
    "llama-2": llama_2_ids,
    "llama-3": llama_3_ids,
}


def template_of(tokenizer: Tokenizer, template: str | None = None) -> str:
    """The template's name; None for the one that the vocabulary tells, which only Llama 3's does.

    Raises:
        InputError: there is no such template, or the vocabulary lacks its tokens, or tells none.
    """
    has_headers = all(tokenizer.has_special(name) for name in (*_LLAMA_3, "<|begin_of_text|>"))
    if template is None and has_headers:
        return "llama-3"
    if template not in TEMPLATES or (template == "llama-3" and not has_headers):
        reason = "the vocabulary does not tell its chat template" if template is None else f"no template {template!r}"
        lacks = template == "llama-3"
        raise InputError(
            "the vocabulary has no tokens for the template llama-3" if lacks else reason,
            key="template",
            expected=" | ".join(TEMPLATES) if not lacks else ", ".join(_LLAMA_3),
            actual=template,
            hint="name the one that the model was tuned on; a model that was tuned on none cannot chat",
        )
    return template


def check_messages(messages: Sequence[Message]) -> None:
    """Raises InputError unless it is the assistant's turn: [system] user (assistant user)*."""
    start = 1 if messages and messages[0].role == "system" else 0
    for n, message in enumerate(messages):
        expected = "system or user" if n == 0 else ROLES[1 + (n - start) % 2]
        if message.role not in expected.split(" or "):
            raise InputError(
                f"message {n} is by {message.role!r}", key=f"messages[{n}]", expected=expected, actual=message.role
            )
    if not messages or messages[-1].role != "user":
        raise InputError(
            "the last word must be the user's",
            key="messages",
            expected="a message by user",
            actual=messages[-1].role if messages else "none",
        )


class Chat:
    """A conversation: remembers what was said, and reads only what is new.

    Args:
        model, tokenizer: of one folder. template: see `chat_ids`. system: what the model is told first.
        parameters: how tokens are chosen. max_new_tokens: at most so many for an answer.
        max_length: tokens that the conversation may have; None for 4096, or the context where that is less.
        seed: of the first answer; each next one takes the next number. None: every chat differs.

    Attributes:
        messages: what was said, the system's words first.
    """

    def __init__(
        self,
        model: Llama,
        tokenizer: Tokenizer,
        template: str | None = None,
        system: str | None = None,
        parameters: SamplingParameters | None = None,
        max_new_tokens: int | None = None,
        max_length: int | None = None,
        seed: int | None = None,
    ):
        self._model, self._tokenizer = model, tokenizer
        self._template = template_of(tokenizer, template)
        self._system = [] if system is None else [Message("system", system)]
        self._parameters = parameters or SamplingParameters()
        self._limit, self._seed = max_new_tokens, seed
        length = min(context_length(model.config), max_length or 4096)
        self._cache = KVCache(model.config, 1, length, model.dtype, model.device)
        self._read: list[int] = []
        names = ("<|eot_id|>", "<|eom_id|>", "<|end_of_text|>") if self._template == "llama-3" else ()
        turn_ends = (tokenizer.special_id(name) for name in names if tokenizer.has_special(name))
        self._ends = frozenset((*tokenizer.eos_ids, *turn_ends))
        self.messages: list[Message] = list(self._system)

    def reset(self) -> None:
        """Forget everything that was said but the system's words."""
        self.messages = list(self._system)

    def say(self, text: str) -> Iterator[str]:
        """The answer, piece by piece. What was heard of it is remembered, however the stream ends.

        Raises:
            InputError, GenerationError, CacheError: before the model runs; the conversation is then as it was.
        """
        messages = [*self.messages, Message("user", text)]
        ids = chat_ids(self._tokenizer, messages, self._template)
        same = next((n for n, (a, b) in enumerate(zip(self._read, ids, strict=False)) if a != b), None)
        same = min(len(self._read), len(ids) - 1) if same is None else same
        same = min(same, len(ids) - 1)
        self._cache.truncate(min(same, self._cache.length))
        same = self._cache.length
        self._read = ids[:same]
        p = self._parameters
        tokens = generate(
            self._model,
            ids[same:],
            self._limit,
            p.temperature,
            p.top_k,
            p.top_p,
            min_p=p.min_p,
            repetition_penalty=p.repetition_penalty,
            seed=None if self._seed is None else self._seed + len(messages),
            eos_ids=self._ends,
            cache=self._cache,
        )
        return self._answer(messages, ids, tokens)

    def _answer(self, messages: list[Message], ids: list[int], tokens: Iterator[int]) -> Iterator[str]:
        stream = TextStream(self._tokenizer, ids)
        heard = ""
        new: list[int] = []
        try:
            for token in tokens:
                new.append(token)
                piece = stream.push(token)
                piece = piece if heard else piece.lstrip()
                if piece:
                    heard += piece
                    yield piece
            rest = stream.flush()
            if rest:
                heard += rest
                yield rest
        finally:
            self._read = [*ids, *new][: self._cache.length]
            self.messages = [*messages, Message("assistant", heard)] if new else self.messages
