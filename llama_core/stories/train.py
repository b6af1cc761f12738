"""Trains the embedded model: ``python -m llama_core.stories.train [--out DIR]``.

Writes a model folder (config.json, generation_config.json, model.safetensors in bfloat16, tokenizer.model) and
measurements.json, all from one seed. The last checkpoint is kept in DIR/checkpoint.pt while training runs, and an
interrupted run goes on from there.
"""

import argparse
import os
import random
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from llama_core.config import LlamaConfig
from llama_core.model import Llama

from .data import BEGIN, CONTEXT, END, IGNORED, VOCABULARY, Batch, batches, train_tokenizer
from .measure import attention_weights, measure, repeated_sequences, write_measurements
from .recorded import Gradients, RecordedGradients

CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=256,
    intermediate_size=384,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=CONTEXT,
    tie_word_embeddings=True,
    dtype="bfloat16",
    bos_token_id=BEGIN,
    eos_token_ids=(END,),
)


@dataclass(frozen=True)
class Recipe:
    """What depends on the machine: how many steps there are, and what a step reads.

    A step of the stories takes ``batches`` batches of ``story_tokens`` tokens, one after the other or each on a core of
    its own; before them come the random sequences, 2,048 tokens a step on every machine.
    """

    steps: int
    batches: int
    story_tokens: int
    peak_learning_rate: float
    writers: int


#: Two batches, one on each of two cores: matrices of this size gain nothing from two threads in each. A GPU takes a
#: step of four times as many tokens in less time; ten processes write as fast as it reads.
ON_CPU = Recipe(steps=10_000, batches=2, story_tokens=1024, peak_learning_rate=1e-3, writers=0)
ON_GPU = Recipe(steps=12_000, batches=1, story_tokens=8192, peak_learning_rate=2e-3, writers=10)
FIRST_TOKENS = 2048
WARM_UP_STEPS = 50
DEVIATION = 0.02
#: The first two layers learn to copy alone; then the later ones join.
FIRST_LAYERS, FIRST_STEPS = 2, 600
#: Shortly before the stories begin.
MOVING_STEP = 790
DESCENT = 0.4
WEIGHT_DECAY = 0.05
GRADIENT_NORM = 1.0
STEPS_PER_CHECKPOINT = 250


def initial_model(seed: int) -> Llama:
    """The untrained model: norms one, matrices N(0, 0.02²); zero what the later layers write to the residual stream.

    So it starts out as a model of `FIRST_LAYERS` layers.
    """
    model = Llama.random(CONFIG, seed=seed, dtype="float32")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
            else:
                parameter.mul_(DEVIATION * parameter.shape[-1] ** 0.5)  # it is N(0, 1/fan_in)
        for layer in model.layers[FIRST_LAYERS:]:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
    return model


@torch.no_grad()
def turn_queries(model: Llama, layer: int, heads: list[int], places: int) -> None:
    """Make each query of these heads the one that stood ``places`` positions further: ``R(places) W_q``."""
    projection = model.layers[layer].self_attn.q_proj
    queries = projection.weight.unflatten(0, (-1, CONFIG.head_dim))  # [H, D, E], a view
    as_positions = queries.permute(2, 0, 1)[None]  # [1, E, H, D], as the rotation takes queries
    everywhere = torch.full(as_positions.shape[:2], places, device=queries.device)
    turned = model.rope.rotate(as_positions, *model.rope.cos_sin(everywhere))[0].permute(1, 2, 0)
    queries[heads] = turned[heads]


def move_heads(model: Llama, optimizer: torch.optim.Optimizer) -> None:
    """Move the first layers' heads by whole places, so that one of them looks at the token before.

    To find what followed a token the heads need not look at neighbours. Those of the first layer may look two and
    three places back, those of the second at the third place behind the earlier occurrence: it does as well, unless
    that occurrence is near. Rotary embeddings make this easy to mend. With ``R(n)`` the rotation of position n,
    ``q·R(n)`` at position p is q at position p + n: a head that looked n + 1 places back looks one place back. What
    the heads hand on, and to whom, stays as it was learnt.
    """
    length = 20
    weights = attention_weights(model, repeated_sequences(32, length, seed=0))  # [L, B, H, S, S]

    def mean_weight(offset: int) -> Tensor:
        return weights.diagonal(offset=offset, dim1=-2, dim2=-1)[..., -length:].mean((1, 3))

    behind = torch.stack([mean_weight(place - length)[1].max() for place in range(1, 10)])
    places = int(behind.argmax())
    looks_back = torch.stack([mean_weight(-back)[0] for back in range(10)]).argmax(0)
    far = [head for head, back in enumerate(looks_back.tolist()) if back >= places]
    for layer, heads in ((0, far), (1, list(range(CONFIG.num_attention_heads)))):
        turn_queries(model, layer, heads, places)
        optimizer.state.pop(model.layers[layer].self_attn.q_proj.weight, None)
    print(f"moved the heads of the first layers by {places} places", flush=True)


def learning_rate(step: int, steps: int) -> float:
    """The share of the peak: linear warm-up, a plateau, and a linear descent to zero over the last share of the steps.

    Until the descent begins it does not matter how many steps there are to be, so a checkpoint from the plateau can be
    brought down early, or a run made longer.
    """
    rising = (step + 1) / WARM_UP_STEPS
    falling = (steps - step) / (DESCENT * steps)
    return min(1.0, rising, falling)


def optimizer_for(model: Llama) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), fused=True)


def loss_of(model: Llama, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the learnt tokens of a batch, in nats; products of matrices in bfloat16."""
    positions = torch.arange(inputs.shape[1], device=inputs.device).expand_as(inputs)
    with torch.autocast(model.device.type, torch.bfloat16):
        logits = model.compute(inputs, positions, None, None)
    return cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def compile_blocks(model: Llama) -> None:
    """Compile the blocks, once for all of them and for every shape of batch.

    Half the time of a step goes into the small steps between the products of matrices. Without a C++ compiler training
    goes on as it is, at half the speed.
    """
    if shutil.which(os.environ.get("CXX", "g++")):
        for block in model.layers:
            block.compile(dynamic=True)


def gradients(model: Llama, inputs: Tensor, targets: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Loss of a batch and its gradient for every parameter."""
    loss = loss_of(model, inputs.to(model.device), targets.to(model.device))
    return loss.detach(), torch.autograd.grad(loss, list(model.parameters()))


def train(
    model: Llama,
    documents: Iterator[Batch],
    recipe: Recipe,
    checkpoint: Path,
    compute: Gradients,
    pool: ThreadPoolExecutor,
) -> tuple[float, float]:
    """Run all steps, from the checkpoint on where there is one; returns the seconds it took by the clock and the
    processor's, summed over the cores, those before the checkpoint included."""
    optimizer, first, seconds, cpu_seconds = optimizer_for(model), 0, 0.0, 0.0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=model.device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first, seconds, cpu_seconds = saved["step"], saved["seconds"], saved["cpu_seconds"]
    started, cpu_started, mean = time.perf_counter() - seconds, time.process_time() - cpu_seconds, None
    documents = islice(documents, first * recipe.batches, None)
    for step in range(first, recipe.steps):
        if step == MOVING_STEP:
            move_heads(model, optimizer)
        for group in optimizer.param_groups:
            group["lr"] = recipe.peak_learning_rate * learning_rate(step, recipe.steps)
        # The first step compiles, and does so alone.
        run = pool.map if step > first and recipe.batches > 1 else map
        found = list(run(lambda batch: compute(model, *batch), islice(documents, recipe.batches)))
        for parameter, *parts in zip(model.parameters(), *(part for _, part in found), strict=True):
            parameter.grad = torch.stack(parts).mean(0) if len(parts) > 1 else parts[0]
        if step < FIRST_STEPS:
            for parameter in model.layers[FIRST_LAYERS:].parameters():
                parameter.grad = None
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        loss = torch.stack([loss for loss, _ in found]).mean()
        mean = loss if mean is None else 0.95 * mean + 0.05 * loss
        if (step + 1) % 25 == 0:
            taken = time.perf_counter() - started
            print(f"step {step + 1:5d} of {recipe.steps}  loss {mean:.3f}  {taken:5.0f} s", flush=True)
        if (step + 1) % STEPS_PER_CHECKPOINT == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            state |= {"step": step + 1, "seconds": time.perf_counter() - started}
            state |= {"cpu_seconds": time.process_time() - cpu_started}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)
    return time.perf_counter() - started, time.process_time() - cpu_started


def main() -> None:
    """Train, save, measure."""
    parser = argparse.ArgumentParser(description="Train the embedded model of stories and measure it.")
    parser.add_argument(
        "--out", type=Path, default=Path("build/stories"), help="folder to write; an interrupted run in it goes on"
    )
    parser.add_argument("--device", default="cpu", help="cpu (two cores suffice), cuda or mps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="fewer or more than the recipe has")
    options = parser.parse_args()
    recipe = ON_GPU if options.device.startswith("cuda") else ON_CPU
    if options.steps:
        recipe = replace(recipe, steps=options.steps)

    options.out.mkdir(parents=True, exist_ok=True)
    vocabulary = train_tokenizer(random.Random(f"vocabulary {options.seed}"))
    (options.out / "tokenizer.model").write_bytes(vocabulary)
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    documents = batches(
        f"documents {options.seed}",
        tokenizer,
        FIRST_TOKENS // recipe.batches,
        recipe.story_tokens,
        recipe.batches,
        recipe.writers,
    )

    model = initial_model(options.seed).to(options.device)
    if options.device == "cpu":
        model.attention = "eager"  # a step takes a tenth less: PyTorch's fused attention is slow in its gradient
        compile_blocks(model)
    compute = RecordedGradients(gradients) if model.device.type == "cuda" else gradients
    checkpoint = options.out / "checkpoint.pt"
    torch.set_num_threads(1)
    with ThreadPoolExecutor(recipe.batches if options.device == "cpu" else 1) as pool:
        seconds, cpu_seconds = train(model, documents, recipe, checkpoint, compute, pool)
    documents.close()
    device = torch.cuda.get_device_name() if model.device.type == "cuda" else options.device
    model.to("cpu", torch.bfloat16).save_pretrained(options.out)
    training = {
        "device": device,
        "seed": options.seed,
        "steps": recipe.steps,
        "tokens_per_step": recipe.batches * recipe.story_tokens,
        "wall_seconds": round(seconds),
        "cpu_seconds": round(cpu_seconds),
        "torch": torch.__version__,
    }
    write_measurements(options.out, {"training": training, **measure(model.float(), tokenizer)})
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
