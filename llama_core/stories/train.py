"""Trains the embedded model: ``python -m llama_core.stories.train [--out DIR]``.

Writes a model folder (config.json, generation_config.json, model.safetensors in bfloat16, tokenizer.model) and
measurements.json, all from one seed. The last checkpoint is kept in DIR/checkpoint.pt while training runs, and an
interrupted run goes on from there.
"""

import argparse
import random
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import sentencepiece
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from llama_core.config import LlamaConfig
from llama_core.model import Llama

from .data import BEGIN, CONTEXT, END, IGNORED, VOCABULARY, batches, train_tokenizer
from .measure import measure, write_measurements

CONFIG = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=5,
    num_attention_heads=6,
    num_key_value_heads=3,
    max_position_embeddings=CONTEXT,
    rope_theta=1000.0,  # short wavelengths for a short context: neighbours are easier to tell apart
    tie_word_embeddings=True,
    dtype="bfloat16",
    bos_token_id=BEGIN,
    eos_token_ids=(END,),
)

STEPS = 1800
#: A step takes two batches, one on each of two cores: matrices of this size gain nothing from two threads in each.
BATCHES_PER_STEP = 2
TOKENS_PER_BATCH = 1024
PEAK_LEARNING_RATE = 3e-3
WARM_UP_STEPS = 100
DEVIATION = 0.02
SHARED_DEVIATION = 0.03
DESCENT = 0.5
WEIGHT_DECAY = 0.1
GRADIENT_NORM = 1.0
STEPS_PER_CHECKPOINT = 100


def initial_model(seed: int) -> Llama:
    """The untrained model: matrices N(0, 0.02²), those that write to the residual stream smaller by √(2 L), norms one.

    All embeddings share one random vector, N(0, 0.03²). A head that looks at a place, such as the token before, turns
    a part that is the same in every query and key against the positions, and Llama has no biases to make one.
    """
    model = Llama.random(CONFIG, seed=seed, dtype="float32")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.fill_(1.0)
                continue
            parameter.mul_(DEVIATION * parameter.shape[-1] ** 0.5)  # it is N(0, 1/fan_in)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.div_((2 * CONFIG.num_hidden_layers) ** 0.5)
        shared = torch.randn(CONFIG.hidden_size, generator=torch.Generator().manual_seed(seed + 1))
        model.embed_tokens.weight.add_(SHARED_DEVIATION * shared)
    return model


def learning_rate(step: int, steps: int) -> float:
    """Linear warm-up, a plateau, and a linear descent to zero over the last share of the steps.

    Until the descent begins it does not matter how many steps there are to be, so a checkpoint from the plateau can be
    brought down early, or a run made longer.
    """
    rising = (step + 1) / WARM_UP_STEPS
    falling = (steps - step) / (DESCENT * steps)
    return PEAK_LEARNING_RATE * min(1.0, rising, falling)


def optimizer_for(model: Llama) -> torch.optim.AdamW:
    """AdamW; weight decay on matrices only."""
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98))


def loss_of(model: Llama, inputs: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the learnt tokens of a batch, in nats; bfloat16 autocast on an accelerator."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=model.device.type != "cpu"):
        logits = model(inputs)
    return cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED)


def gradients(model: Llama, inputs: Tensor, targets: Tensor) -> tuple[float, tuple[Tensor, ...]]:
    """Loss of a batch and its gradient for every parameter."""
    loss = loss_of(model, inputs.to(model.device), targets.to(model.device))
    return loss.item(), torch.autograd.grad(loss, list(model.parameters()))


def train(
    model: Llama, documents: Iterator[tuple[Tensor, Tensor]], steps: int, checkpoint: Path, pool: ThreadPoolExecutor
) -> None:
    """Run all steps, from the checkpoint on where there is one."""
    optimizer, first = optimizer_for(model), 0
    if checkpoint.exists():
        saved = torch.load(checkpoint, map_location=model.device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        first = saved["step"]
    started, mean = time.perf_counter(), None
    documents = islice(documents, first * BATCHES_PER_STEP, None)
    for step in range(first, steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps)
        found = list(pool.map(lambda batch: gradients(model, *batch), islice(documents, BATCHES_PER_STEP)))
        for parameter, *parts in zip(model.parameters(), *(part for _, part in found), strict=True):
            parameter.grad = torch.stack(parts).mean(0)
        torch.nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        optimizer.step()
        loss = sum(loss for loss, _ in found) / len(found)
        mean = loss if mean is None else 0.95 * mean + 0.05 * loss
        if (step + 1) % 25 == 0:
            print(f"step {step + 1:5d} of {steps}  loss {mean:.3f}  {time.perf_counter() - started:5.0f} s", flush=True)
        if (step + 1) % STEPS_PER_CHECKPOINT == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            torch.save(state, checkpoint.with_suffix(".part"))
            checkpoint.with_suffix(".part").replace(checkpoint)


def main() -> None:
    """Train, save, measure."""
    parser = argparse.ArgumentParser(description="Train the embedded model of stories and measure it.")
    parser.add_argument(
        "--out", type=Path, default=Path("build/stories"), help="folder to write; an interrupted run in it goes on"
    )
    parser.add_argument("--device", default="cpu", help="cpu (two cores suffice), cuda or mps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=STEPS)
    options = parser.parse_args()
    wall, processor = time.perf_counter(), time.process_time()

    options.out.mkdir(parents=True, exist_ok=True)
    vocabulary = train_tokenizer(random.Random(f"vocabulary {options.seed}"))
    (options.out / "tokenizer.model").write_bytes(vocabulary)
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    documents = batches(random.Random(f"documents {options.seed}"), tokenizer, TOKENS_PER_BATCH)

    model = initial_model(options.seed).to(options.device)
    checkpoint = options.out / "checkpoint.pt"
    torch.set_num_threads(1)
    with ThreadPoolExecutor(BATCHES_PER_STEP if options.device == "cpu" else 1) as pool:
        train(model, documents, options.steps, checkpoint, pool)
    model.to("cpu", torch.bfloat16).save_pretrained(options.out)
    training = {
        "device": options.device,
        "seed": options.seed,
        "steps": options.steps,
        "tokens_per_step": BATCHES_PER_STEP * TOKENS_PER_BATCH,
        "wall_seconds": round(time.perf_counter() - wall),
        "cpu_seconds": round(time.process_time() - processor),
        "torch": torch.__version__,
    }
    write_measurements(options.out, {"training": training, **measure(model.float(), tokenizer)})
    checkpoint.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
