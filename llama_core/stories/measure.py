"""Measures a stories model: ``python -m llama_core.stories.measure [DIR]`` prints what training writes down.

Loss on stories it has not seen, how many of its own stories the rules accept, and how sharply its heads look at the
previous token and back at what followed a token before (induction; Olsson et al. 2022, "In-context Learning and
Induction Heads").
"""

import argparse
import json
import random
from collections import Counter
from pathlib import Path

import sentencepiece
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy

from llama_core.cache import KVCache
from llama_core.capture import capture
from llama_core.model import Llama

from .data import BEGIN, CONTEXT, END, FIRST_ORDINARY, VOCABULARY, Document, pad, story_document
from .rules import violations

HELD_OUT_SEED = 20_000_003
TEMPERATURE = 0.8


def held_out(tokenizer: sentencepiece.SentencePieceProcessor, stories: int) -> list[Document]:
    """Stories from seeds that training does not use."""
    return [story_document(random.Random(HELD_OUT_SEED + i), tokenizer) for i in range(stories)]


@torch.no_grad()
def story_loss(model: Llama, documents: list[Document]) -> float:
    """Mean cross-entropy of the next token, in nats, over all tokens behind the begin tokens."""
    total, count = 0.0, 0
    documents = sorted(documents, key=lambda document: len(document.ids))
    for start in range(0, len(documents), 20):
        inputs, targets = (t.to(model.device) for t in pad(documents[start : start + 20]))
        logits = model(inputs).float()
        total += cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        count += int((targets >= 0).sum())
    return total / count


@torch.no_grad()
def tell_stories(model: Llama, tokenizer: sentencepiece.SentencePieceProcessor, seeds: range) -> list[str | None]:
    """One story for each seed, from the begin token alone at temperature 0.8; None for one that finds no end.

    Each row draws from its own generator, so that its numbers do not depend on how many rows there are.
    """
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    cache = KVCache(model.config, len(generators), CONTEXT, dtype=model.dtype, device=model.device)
    rows: list[list[int]] = [[] for _ in generators]
    token = torch.full((len(rows), 1), BEGIN, device=model.device)
    for _ in range(CONTEXT - 1):
        logits = model(token, cache=cache)[:, -1].float().cpu()
        weights = torch.softmax(logits / TEMPERATURE, -1)
        drawn = [int(torch.multinomial(w, 1, generator=g)) for w, g in zip(weights, generators, strict=True)]
        for row, next_token in zip(rows, drawn, strict=True):
            if not row or row[-1] != END:
                row.append(next_token)
        if all(row[-1] == END for row in rows):
            break
        token = torch.tensor(drawn, device=model.device)[:, None]
    return [tokenizer.decode(row[:-1]) if row[-1] == END else None for row in rows]


def faults(stories: list[str | None]) -> list[list[str]]:
    """For each story what the rules object to."""
    return [["the story finds no end"] if story is None else violations(story) for story in stories]


def on_previous_token(weights: Float[Tensor, "... S S"]) -> Float[Tensor, "... N"]:
    """The weight that each position but the first gives the token before it."""
    return weights.diagonal(offset=-1, dim1=-2, dim2=-1)


def on_token_after_first(weights: Float[Tensor, "... S S"], length: int) -> Float[Tensor, "... N"]:
    """The weight that each of the last ``length`` positions gives the token behind the first occurrence of its own.

    The text is a begin token and N = ``length`` tokens twice: position 1 + N + i repeats position 1 + i, and the token
    behind that stands N - 1 positions back.
    """
    return weights.diagonal(offset=1 - length, dim1=-2, dim2=-1)[..., -length:]


@torch.no_grad()
def previous_token_weights(model: Llama, documents: list[Document]) -> Float[Tensor, "L H"]:
    """Mean weight that each head gives the token before, over all positions but the first of each document."""
    found = [on_previous_token(attention_weights(model, torch.tensor([d.ids]))).squeeze(1) for d in documents]
    return torch.cat(found, -1).mean(-1)


@torch.no_grad()
def induction_weights(model: Llama, rows: int = 20, length: int = 50, seed: int = 0) -> Float[Tensor, "L H"]:
    """Mean weight of each head, in second copies of random sequences, on what followed the first time."""
    return on_token_after_first(attention_weights(model, repeated_sequences(rows, length, seed)), length).mean((1, 3))


def repeated_sequences(rows: int, length: int, seed: int) -> Int[Tensor, "B S"]:
    """The begin token and ``length`` uniform ordinary tokens (neither control tokens nor bytes) twice."""
    generator = torch.Generator().manual_seed(seed)
    once = torch.randint(FIRST_ORDINARY, VOCABULARY, (rows, length), generator=generator)
    return torch.cat([torch.full((rows, 1), BEGIN), once, once], 1)


def attention_weights(model: Llama, ids: Int[Tensor, "B S"]) -> Float[Tensor, "L B H S S"]:
    """The attention weights of all layers, on the host."""
    with capture(model, "layers.*.attention_weights") as seen:
        model(ids.to(model.device))
    return torch.stack([weights.float().cpu() for weights in seen.values()])


def _sharpest(weights: Float[Tensor, "L H"]) -> dict[str, float | int]:
    layer, head = divmod(int(weights.argmax()), weights.shape[1])
    return {"layer": layer, "head": head, "mean_weight": round(weights.max().item(), 4)}


def measure(model: Llama, tokenizer: sentencepiece.SentencePieceProcessor) -> dict:
    """All measurements, as they stand in measurements.json."""
    documents = held_out(tokenizer, 400)
    objections = faults(tell_stories(model, tokenizer, range(100)))
    return {
        "parameters": model.config.num_parameters,
        "held_out_loss_nats_per_token": round(story_loss(model, documents), 4),
        "stories_told": len(objections),
        "stories_that_pass": sum(not found for found in objections),
        "previous_token_head": _sharpest(previous_token_weights(model, documents[:40])),
        "induction_head": _sharpest(induction_weights(model)),
    }


def write_measurements(folder: Path, measurements: dict) -> None:
    """Write measurements.json and print it."""
    text = json.dumps(measurements, indent=2)
    (folder / "measurements.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def main() -> None:
    """Print the measurements of a model folder, and what its stories got wrong."""
    parser = argparse.ArgumentParser(description="Measure a stories model.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).parent)
    folder = parser.parse_args().folder
    model = Llama.from_pretrained(folder, dtype="float32")
    tokenizer = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
    print(json.dumps(measure(model, tokenizer), indent=2))
    objections = faults(tell_stories(model, tokenizer, range(100)))
    for objection, count in Counter(fault for found in objections for fault in found).most_common():
        print(f"{count:4d}  {objection}")


if __name__ == "__main__":
    main()
