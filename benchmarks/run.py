"""Prefill and decode beside transformers and llama.cpp, in one run, as ratios. What ``make bench`` does.

    python benchmarks/run.py                                   # stories, a 110M and a 1.1B model with random weights
    python benchmarks/run.py --models stories,110m --dtypes float32
    python benchmarks/run.py --device cuda --models stories,110m,1.1b,llama-2-7b --prompt 2048

All sides run the same weights (in the same memory, llama.cpp from a GGUF file of them), the same prompt, greedily, with
a cache, through what a user would call: ours ``generate``, with ``compile=True`` and without, transformers'
``model.generate``, llama.cpp's ``llama_decode``. Rounds alternate between the sides; the median round counts, and for a
ratio the median of the rounds' ratios. A ratio above 1 means that we are faster. ``bandwidth`` is the share of the
measured read bandwidth that decoding reaches, counting every weight once per token. llama.cpp takes part on a CPU where
llama-cpp-python is installed. Results go to ``benchmarks/results/speed-<device>.json`` and ``.md``.
"""

from __future__ import annotations

import argparse
import atexit
import gc
import json
import os
import platform
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import transformers
from llama_cpp_side import LlamaCpp, is_installed

from llama_core import Llama, LlamaConfig, generate, preset
from llama_core.dtypes import as_torch_dtype
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
#: Seconds after which a measurement has had rounds enough.
LONG = 20
NAMES = {"110m": LLAMA_110M, "1.1b": preset("tinyllama-1.1b")}


def load(name: str, dtype: str, device: str) -> Llama:
    """The embedded model, or random weights of a preset's size, drawn where they are to lie."""
    if name == "stories":
        return Llama.from_pretrained("stories", dtype=dtype, device=device)
    model = Llama(NAMES[name] if name in NAMES else preset(name))
    generator = torch.Generator(device).manual_seed(0)
    tensors = {}
    for key, parameter in model.named_parameters():
        value = torch.empty(parameter.shape, dtype=as_torch_dtype(dtype), device=device)
        mean, std = (1.0, 0.1) if key.endswith("norm.weight") else (0.0, parameter.shape[-1] ** -0.5)
        tensors[key] = value.normal_(mean, std, generator=generator)
    model.load_state_dict(tensors, assign=True)
    return model.to(device)


def compiled_copy(model: Llama) -> Llama:
    """Another model over the same tensors, whose decode step is compiled."""
    copy = Llama(model.config)
    copy.load_state_dict(model.state_dict(), assign=True)
    copy.to(model.device).compile_decode()
    return copy


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


def side_by_side(sides: dict[str, Callable[[], object]], rounds: int, device: str) -> list[dict[str, float]]:
    """Seconds of each side in every round, after one to warm up; fewer rounds, three at least, where they take long."""
    for run in sides.values():
        run()
    times: list[dict[str, float]] = []
    while len(times) < min(rounds, 3) or (len(times) < rounds and sum(sum(t.values()) for t in times) < LONG):
        times.append({side: seconds(run, device) for side, run in sides.items()})
    return times


def median(times: list[dict[str, float]], side: str) -> float:
    return statistics.median(each[side] for each in times)


def ratio(times: list[dict[str, float]], side: str) -> float:
    """How many times as fast as transformers, the median of the rounds: what slows a round down slows both."""
    return round(statistics.median(each["transformers"] / each[side] for each in times), 2)


def read_bandwidth(device: str) -> float:
    """Bytes per second of a sum over one gigabyte, the best of five."""
    x = torch.ones(256 * 1024 * 1024, device=device)
    best = min(seconds(x.sum, device) for _ in range(6))
    return x.nbytes / best


@torch.no_grad()
def measure(name: str, dtype: str, device: str, prompt: int, new: int, rounds: int, bandwidth: float) -> dict:
    """One row: tokens a second of every side, and what follows from them."""
    model = load(name, dtype, device)
    compiled, peer = compiled_copy(model), peer_of(model)
    prompt = min(prompt, model.config.max_position_embeddings - new)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, model.config.vocab_size, (1, prompt), generator=generator).to(device)
    prompt_ids = ids[0].tolist()

    def ours(which: Llama) -> list[int]:
        return list(generate(which, prompt_ids[:8], max_new_tokens=new, temperature=0, eos_ids=()))

    def theirs() -> list[int]:
        options = dict(do_sample=False, max_new_tokens=new, min_new_tokens=new, pad_token_id=0)
        return peer.generate(ids[:, :8], **options)[0, 8:].tolist()

    prefill = {
        "llama_core": lambda: model(ids, last_only=True),
        "transformers": lambda: peer(ids, logits_to_keep=1, use_cache=False),
    }
    decode = {"eager": lambda: ours(model), "compiled": lambda: ours(compiled), "transformers": theirs}
    with tempfile.TemporaryDirectory() as folder:
        llama_cpp = LlamaCpp(model, Path(folder)) if device == "cpu" and is_installed() else None
        if llama_cpp:
            prefill["llama.cpp"] = lambda: llama_cpp.prefill(prompt_ids)
            decode["llama.cpp"] = lambda: llama_cpp.generate(prompt_ids[:8], new)
        told, first = {}, {}
        for side, run in decode.items():
            first[side] = seconds(lambda side=side, run=run: told.update({side: run()}), device)
        prefill_times = side_by_side(prefill, rounds, device)
        decode_times = side_by_side(decode, rounds, device)
        if llama_cpp:
            llama_cpp.close()
    rates = {side: round(new / median(decode_times, side), 1) for side in decode}
    reads = {p for p in model.parameters() if p is not model.embed_tokens.weight or model.config.tie_word_embeddings}
    weights = sum(p.nbytes for p in reads)
    row = dict(
        model=name,
        dtype=dtype,
        parameters=model.config.num_parameters,
        prompt_tokens=prompt,
        new_tokens=new,
        prefill_tokens_per_second={side: round(prompt / median(prefill_times, side), 1) for side in prefill},
        decode_tokens_per_second=rates,
        rounds=[len(prefill_times), len(decode_times)],
        prefill_ratio=ratio(prefill_times, "llama_core"),
        decode_ratio_eager=ratio(decode_times, "eager"),
        decode_ratio_compiled=ratio(decode_times, "compiled"),
        weight_gigabytes_per_second={side: round(weights * rate / 1e9, 2) for side, rate in rates.items()},
        bandwidth_share={side: round(weights * rate / bandwidth, 2) for side, rate in rates.items()},
        same_ids={side: ids == told["eager"] for side, ids in told.items()},
        first_compiled_seconds=round(first["compiled"], 1),
    )
    del model, compiled, peer
    gc.collect()
    torch._dynamo.reset()
    if device == "cuda":
        torch.cuda.empty_cache()
    return row


def as_markdown(record: dict) -> str:
    """The record as a page: the machine, then one line for each model and type."""
    sides = [("llama_core", "eager"), ("compile=True", "compiled"), ("transformers",) * 2, ("llama.cpp",) * 2]
    names = [" ".join(("decode", shown)) for shown, _ in sides]
    head = [["model", "dtype", "prefill llama_core", "transformers", "llama.cpp", "ratio", *names]]
    head[0] += ["ratio eager", "ratio compiled", "compiled reads GB/s", "of bandwidth", "first compiled call s"]
    rows = [
        [
            r["model"],
            r["dtype"],
            *(r["prefill_tokens_per_second"].get(side, "") for side in ("llama_core", "transformers", "llama.cpp")),
            r["prefill_ratio"],
            *(r["decode_tokens_per_second"].get(side, "") for _, side in sides),
            r["decode_ratio_eager"],
            r["decode_ratio_compiled"],
            r["weight_gigabytes_per_second"]["compiled"],
            f"{r['bandwidth_share']['compiled']:.0%}",
            r.get("first_compiled_seconds", ""),
        ]
        for r in record["rows"]
    ]
    rule = [["---", "---", *["--:"] * (len(head[0]) - 2)]]
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in [*head, *rule, *rows]]
    machine = ", ".join(f"{k} {v}" for k, v in record["machine"].items())
    command = " ".join(["python benchmarks/run.py", *record["arguments"]])
    note = (
        "Tokens per second. A ratio is how many times as fast as transformers llama_core is, on the same weights in "
        "the same run. Decoding is batch 1, greedy, through `generate` on each side. The first compiled call compiles. "
        "The bandwidth is measured once, at the start: on a machine that others share it may be more or less later on."
    )
    return "\n".join(["# Speed", "", f"`{command}`: {machine}.", "", note, "", *lines, ""])


def machine(device: str, bandwidth: float) -> dict:
    cpu = next((line.split(":")[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else cpu or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "TF32": torch.backends.cuda.matmul.allow_tf32 if device == "cuda" else "not applicable",
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
    parser.add_argument("--rounds", type=int, default=25, help="at most; long ones are fewer")
    args = parser.parse_args()
    transformers.logging.set_verbosity_error()
    bandwidth = read_bandwidth(args.device)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache = tempfile.mkdtemp()  # so that the first compiled call compiles
    atexit.register(shutil.rmtree, cache, ignore_errors=True)
    record: dict = {"machine": machine(args.device, bandwidth), "arguments": sys.argv[1:], "rows": []}
    RESULTS.mkdir(exist_ok=True)
    for name in args.models.split(","):
        for dtype in args.dtypes.split(","):
            row = measure(name, dtype, args.device, args.prompt, args.new_tokens, args.rounds, bandwidth)
            record["rows"].append(row)
            print(json.dumps(row), flush=True)
            (RESULTS / f"speed-{args.device}.json").write_text(json.dumps(record, indent=1) + "\n")
            (RESULTS / f"speed-{args.device}.md").write_text(as_markdown(record))
    print("\n" + as_markdown(record))


if __name__ == "__main__":
    main()
