"""Run by test_compile.py in a process without shape checks: those would become part of the graph.

python compile_child.py BACKEND DEVICE SCENARIO:DTYPE ...      prints one JSON object, scenario by scenario
"""

import json
import sys

import torch
from small import CONFIG, token_ids
from torch._dynamo.testing import CompileCounterWithBackend

from llama_core import KVCache, Llama, RopeScaling, capture, generate
from llama_core.layers import linear

STEPS = 16
LARGE = linear._LARGE


def decode(model: Llama, ids: torch.Tensor, mask: torch.Tensor | None = None, prefill: int = 3) -> torch.Tensor:
    """A prefill, then one step per position; the logits of all of them."""
    cache = KVCache(model.config, len(ids), 24, dtype=model.dtype, device=model.device)
    outputs = []
    for chunk in ids.split([prefill] + [1] * (ids.shape[1] - prefill), dim=1):
        seen = None if mask is None else mask[:, : cache.length + chunk.shape[1]]
        outputs.append(model(chunk, attention_mask=seen, cache=cache))
    return torch.cat(outputs, dim=1).float()


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return (a - b).abs().max().item()


def steps(model: Llama, counter: CompileCounterWithBackend, device: str) -> dict:
    """Decoding, compiled against uncompiled: contiguous, then padded on the left, then another cache."""
    ids = token_ids(2, 3 + STEPS).to(device)
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    plain, padded = decode(model, ids), decode(model, ids, mask)[mask.bool()]
    model.compile_decode(backend=counter)
    found = {"steps": STEPS, "contiguous": difference(decode(model, ids), plain), "size": plain.abs().max().item()}
    found["graphs after contiguous"] = counter.frame_count
    found["padded"] = difference(decode(model, ids, mask)[mask.bool()], padded)
    found["graphs"] = counter.frame_count
    return found


def captured(model: Llama, counter: CompileCounterWithBackend, device: str) -> dict:
    """A capture of a model whose decode step is compiled, before and after it has run compiled."""
    ids = token_ids(1, 8).to(device)
    model.compile_decode(backend=counter)
    decode(model, ids)
    graphs = counter.frame_count
    with capture(model, ["logits", "layers.*.attention_weights"], replace={"layers.0.v": torch.zeros_like}) as seen:
        watched = decode(model, ids)
    keys = sorted(seen)
    again = decode(model, ids)
    uncompiled = Llama(model.config)
    uncompiled.load_state_dict(model.state_dict(), assign=True)
    with capture(uncompiled, replace={"layers.0.v": torch.zeros_like}):
        expected = decode(uncompiled, ids)
    return {
        "seen": keys,
        "last logits": difference(seen["logits"].float(), watched[:, -1:]),
        "watched": difference(watched, expected),
        "afterwards": difference(again, decode(uncompiled, ids)),
        "more graphs": counter.frame_count - graphs,
    }


def capacities(model: Llama, counter: CompileCounterWithBackend, device: str) -> dict:
    """Caches of many capacities, one after the other: more than the compiler would make a graph for each."""
    ids = token_ids(1, 5).to(device)
    plain = decode(model, ids)
    model.compile_decode(backend=counter)
    found = []
    for capacity in range(8, 32, 2):
        cache = KVCache(model.config, 1, capacity, dtype=model.dtype, device=model.device)
        outputs = [model(chunk, cache=cache) for chunk in ids.split([3, 1, 1], dim=1)]
        found.append(difference(torch.cat(outputs, dim=1).float(), plain))
    return {"caches": len(found), "graphs": counter.frame_count, "difference": max(found)}


def generated(model: Llama, counter: CompileCounterWithBackend, device: str) -> dict:
    """``generate(compile=True)`` beside the same call without it, for prompts of several lengths, greedy and drawn."""
    found = {"same": [], "compiled before": model.decode_is_compiled}
    calls = [
        dict(ids=token_ids(1, length)[0], max_new_tokens=20, temperature=temperature, seed=3, eos_ids=())
        for length, temperature in ((1, 0), (7, 0), (30, 0), (7, 1.0))
    ]
    plain = [list(generate(model, **call)) for call in calls]
    if counter.backend != "inductor":  # where the argument itself would take the real compiler
        model.compile_decode(backend=counter)
    for call, expected in zip(calls, plain, strict=True):
        found["same"].append(list(generate(model, **call, compile=True)) == expected)
    return found | {"compiled after": model.decode_is_compiled, "graphs": counter.frame_count}


def whole(model: Llama, counter: CompileCounterWithBackend, device: str) -> dict:
    """``torch.compile(model)`` itself, watched through the compiled object and through the model."""
    ids = token_ids(1, 8).to(device)
    compiled = torch.compile(model, backend=counter)
    compiled(ids)
    found = {}
    for name, target in (("model", model), ("compiled", compiled)):
        with capture(target, "layers.1.output") as seen:
            compiled(ids)
        found[name] = sorted(seen)
    return found


def run(scenario: str, dtype: str, backend: str, device: str) -> dict:
    torch._dynamo.reset()
    scaling = RopeScaling(kind="dynamic", factor=4.0) if scenario == "dynamic" else None
    config = CONFIG.replace(rope_scaling=scaling, dtype=dtype, max_position_embeddings=64)
    model, counter = Llama.random(config, seed=1, device=device), CompileCounterWithBackend(backend)
    scenarios = {"steps": steps, "dynamic": steps, "capture": captured, "whole": whole}
    scenarios |= {"capacities": capacities, "generate": generated, "streams": generated}
    linear._LARGE = 0 if scenario == "streams" else LARGE
    return scenarios[scenario](model, counter, device)


def main(backend: str, device: str, *scenarios: str) -> None:
    torch.set_grad_enabled(False)
    torch.set_float32_matmul_precision("highest")
    print(json.dumps({scenario: run(*scenario.split(":"), backend, device) for scenario in scenarios}))


if __name__ == "__main__":
    main(*sys.argv[1:])
