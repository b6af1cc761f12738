"""What the embedded model is trained on: a vocabulary made from its own stories, documents of token ids, batches."""

import io
import random
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from multiprocessing import get_context

import numpy as np
import sentencepiece
import torch
from torch import Tensor

from .text import story

UNKNOWN, BEGIN, END = 0, 1, 2
FIRST_BYTE, FIRST_ORDINARY = 3, 259
VOCABULARY = 1024
CONTEXT = 512
#: Target where the next token is not learnt: padding, and random tokens that nothing foretells.
IGNORED = -100


def train_tokenizer(rng: random.Random, stories: int = 4000) -> bytes:
    """The bytes of a sentencepiece BPE model with byte fallback, made from generated stories.

    Nothing is normalised. Lines with letters beyond ASCII are left out, so that such letters are spelled in byte
    tokens. The first ids are 0 unknown, 1 begin, 2 end, then the 256 bytes.
    """
    lines = [line for _ in range(stories) for line in story(rng).split("\n")]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([line for line in lines if line.isascii()]),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCABULARY,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        character_coverage=1.0,
        split_digits=True,
        unk_id=UNKNOWN,
        bos_id=BEGIN,
        eos_id=END,
        pad_id=-1,
        num_threads=1,
        minloglevel=2,
    )
    return model.getvalue()


@dataclass(frozen=True)
class Document:
    """Token ids from the begin token on, and the positions whose tokens are not learnt."""

    ids: list[int]
    ignored: frozenset[int] = frozenset()


def story_document(rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor) -> Document:
    """A story between begin and end token; one that is longer than the context is drawn again."""
    while len(ids := [BEGIN, *tokenizer.encode(story(rng)), END]) > CONTEXT:
        pass
    return Document(ids)


def _random_tokens(rng: random.Random) -> Callable[[int], list[int]]:
    """What draws random tokens for one document: ordinary ones, or, at times, bytes too."""
    first = FIRST_ORDINARY if rng.random() < 0.7 else FIRST_BYTE
    return lambda length: [rng.randrange(first, VOCABULARY) for _ in range(length)]


def repeated_document(rng: random.Random, shortest: int = 8, longest: int = 100) -> Document:
    """The begin token and a random sequence twice.

    Only looking back at the first copy can tell how the second goes on, whatever the tokens are: this is what teaches
    induction heads that serve for any text. Nothing tells when the second copy begins, so its first token is not
    learnt. Shorter sequences are as common, token for token, as longer ones.
    """
    sequence = _random_tokens(rng)(round(shortest * (longest / shortest) ** rng.random()))
    return Document([BEGIN, *sequence, *sequence], frozenset(range(1, len(sequence) + 2)))


def shuffled_document(rng: random.Random, length: int = 48) -> Document:
    """The begin token and a few random sequences of two to four tokens, over and over in random order.

    How far back a sequence stood tells nothing here: what counts is the token right before. Learnt is how a sequence
    goes on that has been there.
    """
    draw = _random_tokens(rng)
    sequences = [draw(rng.randint(2, 4)) for _ in range(rng.randint(2, 8))]
    ids, ignored, seen = [BEGIN], set(), set()
    while len(ids) <= length:
        which = rng.randrange(len(sequences))
        ignored |= {len(ids) + i for i in range(len(sequences[which])) if i == 0 or which not in seen}
        ids += sequences[which]
        seen.add(which)
    return Document(ids, frozenset(ignored))


#: The first documents are short repeated sequences only, those of one length together. There, to look a fixed number of
#: places back is a good first guess; it teaches to copy, and heads that find the place by what stands there come next.
#: Spread among the stories from the start, such documents did not teach it within two million tokens.
FIRST_REPEATED, FIRST_LENGTHS, FIRST_SHUFFLED = 28_000, (10, 30), 10_000
#: From then on the share of the documents that are random sequences; the others are stories.
RANDOM = 0.15
DOCUMENTS_AT_A_TIME = 2000


def _mixture(rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor) -> list[Document]:
    def draw() -> Document:
        if rng.random() > RANDOM:
            return story_document(rng, tokenizer)
        return repeated_document(rng) if rng.random() < 0.5 else shuffled_document(rng)

    return [draw() for _ in range(DOCUMENTS_AT_A_TIME)]


Batch = tuple[Tensor, Tensor]


def batches(
    seed: str,
    tokenizer: sentencepiece.SentencePieceProcessor,
    tokens: int,
    story_tokens: int | None = None,
    per_step: int = 1,
    writers: int = 0,
) -> Generator[Batch, None, None]:
    """Endless batches of inputs [B, S] and the token after each position [B, S].

    One document is one row, so that each begins at position 0 and sees nothing of another. Documents of like length
    are put together, which leaves little padding; it stands at the right, where no real position sees it.

    Args:
        seed: what all chance follows from.
        tokenizer: spells the stories.
        tokens, story_tokens: the most that B·S may be among the first documents and once the stories come; None for
            the same.
        per_step: batches in one step. Those of the first documents are of one length.
        writers: processes that write ahead, for a device that learns faster than one process writes. The batches are
            the same whatever their number.
    """
    rng = random.Random(seed)
    yield from _grouped([repeated_document(rng, *FIRST_LENGTHS) for _ in range(FIRST_REPEATED)], tokens, rng, per_step)
    yield from _grouped([shuffled_document(rng) for _ in range(FIRST_SHUFFLED)], tokens, rng)
    write = partial(_story_batches, tokenizer.serialized_model_proto(), story_tokens or tokens)
    seeds = (f"{seed} stories {n}" for n in count())
    yield from chain.from_iterable(_written_ahead(write, seeds, writers) if writers else map(write, seeds))


def _story_batches(vocabulary: bytes, tokens: int, seed: str) -> list[Batch]:
    """The batches of some stories and random sequences, in random order."""
    rng, tokenizer = random.Random(seed), sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    return _grouped(_mixture(rng, tokenizer), tokens, rng)


def _as_arrays(write: Callable[[str], list[Batch]], seed: str) -> list[tuple[np.ndarray, ...]]:
    return [tuple(tensor.numpy() for tensor in batch) for batch in write(seed)]


def _written_ahead(write: Callable[[str], list[Batch]], seeds: Iterator[str], writers: int) -> Iterator[list[Batch]]:
    """What ``write`` makes of each seed, in their order, from processes that are a few ahead."""
    # Arrays: a tensor is sent between processes as an open file, and there would be thousands.
    ahead: deque[Future[list[tuple[np.ndarray, ...]]]] = deque()
    with ProcessPoolExecutor(writers, get_context("spawn")) as pool:
        try:
            for seed in seeds:
                ahead.append(pool.submit(_as_arrays, write, seed))
                if len(ahead) > 3 * writers:
                    arrays = ahead.popleft().result()
                    yield [(torch.from_numpy(inputs), torch.from_numpy(targets)) for inputs, targets in arrays]
        finally:
            pool.shutdown(cancel_futures=True)


def _grouped(documents: list[Document], tokens: int, rng: random.Random, together: int = 1) -> list[Batch]:
    """Documents of like length as batches of at most ``tokens`` each, in random order, ``together`` of like length in
    a row: those fall into one step."""
    documents = sorted(documents, key=lambda document: len(document.ids))
    groups: list[list[Document]] = [[]]
    for document in documents:
        if (len(groups[-1]) + 1) * len(document.ids) > tokens:
            groups.append([])
        groups[-1].append(document)
    rows = [groups[i : i + together] for i in range(0, len(groups), together)]
    rng.shuffle(rows)
    return [pad(group) for group in chain.from_iterable(rows)]


def pad(documents: list[Document]) -> tuple[Tensor, Tensor]:
    """Inputs and next tokens [B, S] of documents, one a row, padded at the right."""
    longest = max(len(document.ids) for document in documents)
    inputs = torch.full((len(documents), longest - 1), END)
    targets = torch.full((len(documents), longest - 1), IGNORED)
    for row, document in enumerate(documents):
        ids = torch.tensor(document.ids)
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, : len(ids) - 1] = ids[1:]
        targets[row, [position - 1 for position in document.ignored]] = IGNORED
    return inputs, targets
