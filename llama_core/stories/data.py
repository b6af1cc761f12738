"""What the embedded model is trained on: a vocabulary made from its own stories, documents of token ids, batches."""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import sentencepiece
import torch
from torch import Tensor

from .text import story

UNKNOWN, BEGIN, END = 0, 1, 2
FIRST_BYTE, FIRST_ORDINARY = 3, 259
VOCABULARY = 1024
CONTEXT = 512
#: Positions whose next token is not learnt: padding, and the first copy of a random sequence, which nothing foretells.
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
    """Token ids from the begin token on, and the first position whose token is learnt."""

    ids: list[int]
    learnt_from: int = 1


def story_document(rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor) -> Document:
    """A story between begin and end token; one that is longer than the context is drawn again."""
    while len(ids := [BEGIN, *tokenizer.encode(story(rng)), END]) > CONTEXT:
        pass
    return Document(ids)


def repeated_document(rng: random.Random, longest: int = 255) -> Document:
    """The begin token and a random sequence over and over: 4 to ``longest`` tokens, short ones more often.

    Half of the sequences are of ordinary tokens, the others of bytes too. Only looking back at an earlier copy can tell
    how the others go on, whatever the tokens are: this is what teaches induction heads that serve for any text.
    """
    length = int(4 * ((longest + 1) / 4) ** rng.random())
    most = max(2, min(16, 160 // length))
    copies = 2 + int((most - 1) * rng.random())
    first = FIRST_ORDINARY if rng.random() < 0.5 else FIRST_BYTE
    sequence = [first + int((VOCABULARY - first) * rng.random()) for _ in range(length)]
    return Document([BEGIN, *sequence * copies], learnt_from=1 + length)


@dataclass(frozen=True)
class Stage:
    """A part of the training: how many documents, the share that are repeated sequences, and the longest of these."""

    documents: int
    repeated: float
    longest: int


#: Short sequences come first: there, to say again anything that stands before is already a good guess, from which
#: looking at the right place develops.
STAGES = (Stage(6000, 0.7, 48), Stage(4000, 0.4, 96))
LAST_STAGE = Stage(2000, 0.15, 255)


def batches(
    rng: random.Random, tokenizer: sentencepiece.SentencePieceProcessor, tokens: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches of inputs [B, S] and the token after each position [B, S]: the stages, then the last for ever.

    One document is one row, so that each begins at position 0 and sees nothing of another. Documents of like length
    are put together, B·S at most ``tokens``, which leaves little padding; it stands at the right, where no real
    position sees it.
    """
    for stage in chain(STAGES, repeat(LAST_STAGE)):
        pool = [
            repeated_document(rng, stage.longest) if rng.random() < stage.repeated else story_document(rng, tokenizer)
            for _ in range(stage.documents)
        ]
        pool.sort(key=lambda document: len(document.ids))
        groups: list[list[Document]] = [[]]
        for document in pool:
            if (len(groups[-1]) + 1) * len(document.ids) > tokens:
                groups.append([])
            groups[-1].append(document)
        rng.shuffle(groups)
        yield from map(pad, groups)


def pad(documents: list[Document]) -> tuple[Tensor, Tensor]:
    """Inputs and next tokens [B, S] of documents, one a row, padded at the right."""
    longest = max(len(document.ids) for document in documents)
    inputs = torch.full((len(documents), longest - 1), END)
    targets = torch.full((len(documents), longest - 1), IGNORED)
    for row, document in enumerate(documents):
        ids = torch.tensor(document.ids)
        inputs[row, : len(ids) - 1] = ids[:-1]
        targets[row, document.learnt_from - 1 : len(ids) - 1] = ids[document.learnt_from :]
    return inputs, targets
