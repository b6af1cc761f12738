"""Text to token ids and back, whole or token by token.

The leading space. Llama's vocabularies write a space as ``▁`` and put it in front of words: ``▁day``. So that a word at
the very start is the same piece as elsewhere, encoding adds one space in front of the text, and decoding drops one from
the front of the first piece: ``decode(encode(text)) == text``, also when the text itself begins with spaces. It follows
that ids from the middle of a text must be decoded by a stream that has seen what came before, or their first space goes
missing; `Tokenizer.decode_stream` takes the ids before as ``after``.
"""

from __future__ import annotations

import codecs
import operator
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from llama_core.errors import TokenizerError
from llama_core.vocabulary import SentencePieceVocabulary, Vocabulary

FILE, JSON_FILE, JSON_SETTINGS = "tokenizer.model", "tokenizer.json", "tokenizer_config.json"
MAX_FILE_BYTES = 64 * 2**20  # the largest published sentencepiece vocabularies have a few megabytes

#: Models pad their embeddings by a few rows, to sizes that suit the hardware (Qwen2 7B by 399); more than this is
#: another vocabulary.
MAX_PADDING = 512

# One replacement character for each byte that belongs to no character, as sentencepiece has it. (Python's own "replace"
# gives one for several bytes.)
_REPLACE_EACH_BYTE = "llama_core.replace_each_byte"


def _replace_each_byte(error: Any) -> tuple[str, int]:
    return "\ufffd" * (error.end - error.start), error.end


codecs.register_error(_REPLACE_EACH_BYTE, _replace_each_byte)


class Tokenizer:
    """A vocabulary, and the ids that begin and end a text.

    Args:
        vocabulary: what turns text into ids and ids into bytes.
        eos_ids: the ids that end a text; the vocabulary's own when none are given.
        model_vocab_size: V of the model it belongs to, when that is larger than the vocabulary: the ids beyond the
            vocabulary decode to nothing.

    Attributes:
        vocab_size: the number of pieces. bos_id: begins a text, or None. eos_ids: any of these ends one.
    """

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        eos_ids: Iterable[int] = (),
        model_vocab_size: int | None = None,
    ):
        own = () if vocabulary.eos_id is None else (vocabulary.eos_id,)
        self._vocabulary = vocabulary
        self._num_ids = max(vocabulary.size, model_vocab_size or 0)
        self.vocab_size = vocabulary.size
        self.bos_id = vocabulary.bos_id
        self.eos_ids = tuple(eos_ids) or own

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike) -> Tokenizer:
        """The tokenizer of a model folder, or of the embedded model, ``"stories"``.

        Args:
            folder: it holds ``tokenizer.model`` (sentencepiece's, or tiktoken's format: told by its content) or
                ``tokenizer.json``. Where ``config.json`` is there too, the vocabulary must fit it, and the ids that end
                a text are the configuration's.

        Raises:
            TokenizerError: the vocabulary is absent, damaged, or another model's.
            ConfigError: ``config.json`` is there and wrong.
        """
        from llama_core.weights import model_folder, read_config

        folder = model_folder(folder)
        file, content = _read(folder)
        if not os.path.lexists(folder / "config.json"):  # a broken link is an error, not an absent file
            vocabulary = _vocabulary(folder, file, content, None, frozenset())
            return cls(vocabulary, eos_ids=getattr(vocabulary, "end_ids", ()))
        config = read_config(folder)
        special = frozenset(
            i for i in (config.bos_token_id, config.pad_token_id, *config.eos_token_ids) if i is not None
        )
        vocabulary = _vocabulary(folder, file, content, config.bos_token_id, special)
        padding = config.vocab_size - vocabulary.size
        if not 0 <= padding <= min(MAX_PADDING, vocabulary.size):
            raise TokenizerError(
                "the vocabulary is not this model's",
                file=file,
                key="vocab_size",
                expected=f"{config.vocab_size} pieces, as in {folder / 'config.json'} (or up to {MAX_PADDING} fewer)",
                actual=f"{vocabulary.size} pieces",
                hint=f"take {file.name} and config.json from the same model",
            )
        return cls(vocabulary, eos_ids=config.eos_token_ids, model_vocab_size=config.vocab_size)

    def encode(self, text: object, bos: bool = False, eos: bool = False) -> list[int]:
        """The ids of a text.

        What a user types is text, whatever it looks like: ``</s>`` becomes the pieces of four characters. (A
        vocabulary's user-defined symbols are text by sentencepiece's definition, unless the model's configuration
        names them as begin, end or padding.) ``▁`` (U+2581) in the text reads as a space.

        Args:
            text: a string. bos: put the begin id in front. eos: put the vocabulary's end id behind.

        Raises:
            TokenizerError: the text is no string or no valid Unicode, or the vocabulary has no such id.
        """
        if not isinstance(text, str):
            raise TokenizerError("only text can be encoded", expected="a string", actual=type(text).__name__)
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as problem:
            raise TokenizerError(
                "the text is not valid Unicode: half of a surrogate pair stands alone",
                expected="whole characters",
                actual=f"U+{ord(text[problem.start]):04X} at character {problem.start}",
                hint="it was probably read with the wrong encoding; read it as UTF-8",
            ) from None
        begin = [_there(self.bos_id, "begin")] if bos else []
        end = [_there(self._vocabulary.eos_id, "end")] if eos else []
        return begin + self._vocabulary.encode(text) + end

    def decode(self, ids: Iterable[object]) -> str:
        """The text of some ids. Begin, end and padding read as nothing, bytes of no character as U+FFFD each.

        Raises:
            TokenizerError: an id is no whole number, or outside the vocabulary.
        """
        stream = self.decode_stream()
        return stream.extend(ids) + stream.flush()

    def decode_stream(self, after: Iterable[object] = ()) -> DecodeStream:
        """A decoder that takes ids one at a time and gives text as soon as its characters are whole.

        Args:
            after: ids that came before, whose text was shown already.
        """
        stream = DecodeStream(self)
        stream.extend(after)
        return stream

    def token(self, token: object) -> str:
        """A label for one id, for figures and tables: its piece, as in ``▁day``, ``<0x0A>``, ``<s>``.

        Raises:
            TokenizerError: the id is no whole number, or outside the vocabulary.
        """
        token = self._checked(token)
        return self._vocabulary.label(token) if token < self.vocab_size else f"<{token}>"

    def has_special(self, name: str) -> bool:
        """Whether the vocabulary has a token of that name that no text becomes, such as ``<|eot_id|>``."""
        token = getattr(self._vocabulary, "tokens", {}).get(name)
        return token is not None and self._vocabulary.surfaces[token] is None

    def special_id(self, name: str) -> int:
        """The id of a special token by its name. Raises TokenizerError where there is none."""
        if not self.has_special(name):
            raise TokenizerError(f"this vocabulary has no special token {name}", key=name, expected=name)
        return self._vocabulary.tokens[name]  # type: ignore[attr-defined]

    def _checked(self, token: object) -> int:
        try:
            number = operator.index(token)  # type: ignore[arg-type]  # also numpy's and torch's integers
        except TypeError:
            number = -1
        if isinstance(token, bool) or not 0 <= number < self._num_ids:
            raise TokenizerError(
                f"{token!r} is not an id of this vocabulary",
                key="id",
                expected=f"a whole number from 0 to {self._num_ids - 1}",
                actual=token,
            )
        return number


class DecodeStream:
    """Ids in, text out: what all `push` and the last `flush` return, joined, is what `Tokenizer.decode` returns.

    Bytes are held back, three at most, until they make a character or turn out to make none.
    """

    def __init__(self, tokenizer: Tokenizer):
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors=_REPLACE_EACH_BYTE)
        self._at_start = True

    def push(self, token: object) -> str:
        """The text that this id completes; empty when a character is not whole yet.

        Raises:
            TokenizerError: the id is no whole number, or outside the vocabulary. The stream is as before.
        """
        return self.extend((token,))

    def extend(self, ids: Iterable[object]) -> str:
        """The text that several ids complete. Raises as `push` does."""
        vocabulary, check = self._tokenizer._vocabulary, self._tokenizer._checked
        # A call for each id would take most of the time in a long text.
        limit = vocabulary.size
        numbers = [i if type(i) is int and 0 <= i < limit else check(i) for i in ids]
        text: list[str] = []
        run: list[bytes] = []
        for number in numbers:
            data = vocabulary.surfaces[number] if number < limit else None
            if data is None:  # no character reaches across a control id
                text += [self._decoder.decode(b"".join(run)), self.flush()]
                run.clear()
                continue
            if self._at_start:
                data = vocabulary.at_start(number)
                self._at_start = not data and vocabulary.merges_spaces
            run.append(data or b"")
        return "".join([*text, self._decoder.decode(b"".join(run))])

    def flush(self) -> str:
        """What is left when no more ids come: U+FFFD for each byte of a character that was never finished."""
        return self._decoder.decode(b"", final=True)


def _there(token: int | None, what: str) -> int:
    if token is None:
        raise TokenizerError(f"this vocabulary has no {what} id", expected=f"one with a {what} id", actual="none")
    return token


def _vocabulary(folder: Path, file: Path, content: bytes, begin: int | None, special: frozenset[int]) -> Vocabulary:
    """The vocabulary in a file, by the file's content; ``begin`` and ``special`` are the configuration's."""
    if file.name == JSON_FILE:
        from llama_core.tokenizers_vocabulary import TokenizersVocabulary

        names = _named_tokens(folder)
        return TokenizersVocabulary(content, file=file, special_ids=special, **{"begin": begin} | names)
    from llama_core.tiktoken_vocabulary import TiktokenVocabulary, is_tiktoken

    if is_tiktoken(content):
        return TiktokenVocabulary(content, file=file)
    return SentencePieceVocabulary(content, file=file, special_ids=special)


def _named_tokens(folder: Path) -> dict[str, Any]:
    """The begin and end tokens that ``tokenizer_config.json`` names, if there is one."""
    from llama_core.weights.folder import read_small_file
    from llama_core.weights.strict_json import parse_object

    if not os.path.lexists(folder / JSON_SETTINGS):
        return {}
    content = read_small_file(folder, JSON_SETTINGS, MAX_FILE_BYTES, TokenizerError)
    settings = parse_object(content, folder / JSON_SETTINGS, TokenizerError)
    found = {}
    for key, name in (("begin", "bos_token"), ("end", "eos_token")):
        value = settings.get(name)
        value = value.get("content") if isinstance(value, dict) else value
        if value is not None and not isinstance(value, str):
            raise TokenizerError(
                f"{name} is no text", file=folder / JSON_SETTINGS, key=name, expected="a token", actual=repr(value)[:80]
            )
        found[key] = value
    return found


def _read(folder: Path) -> tuple[Path, bytes]:
    from llama_core.weights.folder import read_small_file

    others = sorted(path.name for path in folder.glob("tokenizer.*"))
    if FILE not in others and JSON_FILE in others:
        return folder / JSON_FILE, read_small_file(folder, JSON_FILE, MAX_FILE_BYTES, TokenizerError)
    if FILE not in others:
        raise TokenizerError(
            f"there is no {FILE} in the folder",
            file=folder / FILE,
            expected=f"{FILE} or {JSON_FILE}",
            actual=", ".join(others) or "nothing of that name",
            hint=f"fetch {FILE} or {JSON_FILE} into the folder",
        )
    return folder / FILE, read_small_file(folder, FILE, MAX_FILE_BYTES, TokenizerError)
