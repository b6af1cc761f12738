"""Prefill and decode beside transformers, in one run, as ratios. What ``make bench`` does.

    python benchmarks/run.py                                   # stories, a 110M and a 1.1B model with random weights
    python benchmarks/run.py --models stories,110m --dtypes float32
    python benchmarks/run.py --device cuda --models llama-2-7b --dtypes bfloat16 --prompt 2048

Both sides run the same weights (the same memory), the same prompt, greedily, with a cache, through what a user would
call: ours ``generate``, theirs ``model.generate``. Rounds alternate between the two, and the median round counts. A
ratio above 1 means that we are faster. ``bandwidth`` is the share of the measured read bandwidth that decoding reaches,
counting every weight once per token. Results go to ``benchmarks/results/speed-<device>.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers

from llama_core import Llama, LlamaConfig, generate, preset
from llama_core.weights.config_file import write_config

RESULTS = Path(__file__).resolve().parent / "results"
LLAMA_110M = LlamaConfig(
    vocab_size=32000,
    hidden_size=768,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=12,
    max_position_embeddings=2048,
)
NAMES = {"110m": LLAMA_110M, "1.1b": preset("tinyllama-1.1b")}


def load(name: str, dtype: str, device: str) -> Llama:
    """The embedded model, or random weights of a preset's size."""
    if name == "stories":
        return Llama.from_pretrained("stories", dtype=dtype, device=device)
    return Llama.random(NAMES[name] if name in NAMES else preset(name), dtype=dtype, device=device)


def peer_of(model: Llama) -> transformers.LlamaForCausalLM:
    """transformers' model over the very same tensors."""
    with tempfile.TemporaryDirectory() as folder:
        write_config(model.config, Path(folder))
        config = transformers.LlamaConfig.from_pretrained(folder)
    config._attn_implementation = "sdpa"
    with torch.device("meta"):
        peer = transformers.LlamaForCausalLM(config)
    tensors = {name if name.startswith("lm_head") else f"model.{name}": t for name, t in model.state_dict().items()}
    peer.load_state_dict(tensors, assign=True)
    peer.model.rotary_emb = type(peer.model.rotary_emb)(config).to(model.device)
    peer.generation_config.eos_token_id = None
    return peer.eval()


def synchronised(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(run: Callable[[], object], device: str) -> float:
    synchronised(device)
    start = time.perf_counter()
    run()
    synchronised(device)
    return time.perf_counter() - start


def side_by_side(ours: Callable, theirs: Callable, rounds: int, device: str) -> tuple[float, float]:
    """Median seconds of each, the rounds alternating after one round to warm up."""
    ours(), theirs()
    times = [(seconds(ours, device), seconds(theirs, device)) for _ in range(rounds)]
    return statistics.median(a for a, _ in times), statistics.median(b for _, b in times)


def read_bandwidth(device: str) -> float:
    """Bytes per second of a sum over one gigabyte, the best of five."""
    x = torch.ones(256 * 1024 * 1024, device=device)
    best = min(seconds(x.sum, device) for _ in range(6))
    return x.nbytes / best


@torch.no_grad()
def measure(name: str, dtype: str, device: str, prompt: int, new: int, rounds: int, bandwidth: float) -> dict:
    model = load(name, dtype, device)
    peer = peer_of(model)
    prompt = min(prompt, model.config.max_position_embeddings - new)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (1, prompt), generator=generator).to(device)
    prompt_ids = ids[0].tolist()

    prefill_ours, prefill_theirs = side_by_side(
        lambda: model(ids, last_only=True), lambda: peer(ids, logits_to_keep=1, use_cache=False), rounds, device
    )

    def ours(count: int) -> list[int]:
        return list(generate(model, prompt_ids[:8], max_new_tokens=count, temperature=0, eos_ids=()))

    def theirs(count: int) -> list[int]:
        options = dict(do_sample=False, max_new_tokens=count, min_new_tokens=count, pad_token_id=0)
        return peer.generate(ids[:, :8], **options)[0, 8:].tolist()

    same = ours(new) == theirs(new)
    decode_ours, decode_theirs = side_by_side(lambda: ours(new), lambda: theirs(new), rounds, device)
    rate_ours, rate_theirs = new / decode_ours, new / decode_theirs
    weights = sum(p.nbytes for p in model.parameters()) - (
        0 if model.config.tie_word_embeddings else model.embed_tokens.weight.nbytes
    )
    row = dict(
        model=name,
        dtype=dtype,
        parameters=model.config.num_parameters,
        prompt_tokens=prompt,
        new_tokens=new,
        prefill_tokens_per_second=round(prompt / prefill_ours, 1),
        prefill_transformers=round(prompt / prefill_theirs, 1),
        prefill_ratio=round(prefill_theirs / prefill_ours, 2),
        decode_tokens_per_second=round(rate_ours, 1),
        decode_transformers=round(rate_theirs, 1),
        decode_ratio=round(rate_ours / rate_theirs, 2),
        weight_gigabytes_per_second=round(weights * rate_ours / 1e9, 2),
        bandwidth_share=round(weights * rate_ours / bandwidth, 2),
        same_ids=same,
    )
    del model, peer
    gc.collect()
    return row


def as_markdown(record: dict) -> str:
    """The record as a page: the machine, then one line for each model and type."""
    head = (
        "| model | dtype | prefill tok/s | transformers | ratio | decode tok/s | transformers | ratio "
        "| GB/s | of bandwidth |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    )
    rows = [
        f"| {r['model']} | {r['dtype']} | {r['prefill_tokens_per_second']} | {r['prefill_transformers']} "
        f"| {r['prefill_ratio']} | {r['decode_tokens_per_second']} | {r['decode_transformers']} | {r['decode_ratio']} "
        f"| {r['weight_gigabytes_per_second']} | {r['bandwidth_share']:.0%} |"
        for r in record["rows"]
    ]
    machine = ", ".join(f"{k} {v}" for k, v in record["machine"].items())
    note = "A ratio above 1 means that llama_core is faster than transformers on the same weights in the same run."
    return "\n".join(["# Speed", "", f"`python benchmarks/run.py`: {machine}.", note, "", *head, *rows, ""])


def machine(device: str, bandwidth: float) -> dict:
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "read bandwidth GB/s": round(bandwidth / 1e9, 1),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="stories,110m,1.1b", help="stories, 110m, 1.1b or presets, with commas")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--prompt", type=int, default=256, help="tokens of the prompt in the prefill measurement")
    parser.add_argument("--new-tokens", type=int, default=48, help="tokens to decode")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    bandwidth = read_bandwidth(args.device)
    rows = []
    for name in args.models.split(","):
        for dtype in args.dtypes.split(","):
            row = measure(name, dtype, args.device, args.prompt, args.new_tokens, args.rounds, bandwidth)
            rows.append(row)
            print(json.dumps(row), flush=True)
    record = {"machine": machine(args.device, bandwidth), "rows": rows}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"speed-{args.device}.json").write_text(json.dumps(record, indent=1) + "\n")
    page = as_markdown(record)
    (RESULTS / f"speed-{args.device}.md").write_text(page)
    print("\n" + page)


if __name__ == "__main__":
    main()
