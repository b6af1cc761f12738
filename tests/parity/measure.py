"""Print how far this model and transformers' are apart: ``python tests/parity/measure.py [DEVICE]``.

For each case the largest absolute difference in float32, per scenario, beside the size of the logits; in bfloat16 the
root mean square distance of both implementations from float32.
"""

import sys

import torch
import transformers
from cases import CASES, FIXED_ROPE_CASES, our_model, peer_model, token_ids
from scenarios import (
    activations,
    attention_weights,
    chunked,
    fused_logits,
    keys_and_values,
    padded,
    padded_decode,
)
from test_parity import bfloat16_weights_in_float32

COLUMNS = ("size", "logits", "hidden", "weights", "k, v", "left", "right", "chunks", "decode", "bf16", "theirs")


def largest(pairs) -> float:
    return max((ours.cpu() - theirs).abs().max().item() for _, ours, theirs in pairs)


def row(name: str, device: str) -> list[float | None]:
    logits = fused_logits(name, device=device)
    found = [logits[0][2].abs().max().item(), largest(logits), largest(activations(name, device=device))]
    if name in FIXED_ROPE_CASES:
        found += [largest(attention_weights(name, device)), largest(keys_and_values(name, 200, device))]
        found += [largest(padded(name, side, device)) for side in ("left", "right")]
        found += [largest(chunked(name, device))]
        found += [max(largest(padded_decode(name, side, device)) for side in ("left", "right"))]
    else:
        found += [None] * 6
    exact = bfloat16_weights_in_float32(name)
    ours = our_model(name, torch.bfloat16, device)(token_ids(name).to(device)).cpu()
    theirs = peer_model(name, torch.bfloat16)(token_ids(name)).logits
    return found + [(x.float() - exact).square().mean().sqrt().item() for x in (ours, theirs)]


@torch.no_grad()
def main(device: str = "cpu") -> None:
    torch.set_float32_matmul_precision("highest")
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, {device}; largest absolute differences")
    width = max(map(len, CASES))
    print(" " * width + "".join(f"{column:>9}" for column in COLUMNS))
    for name in CASES:
        figures = (f"{'·' if x is None else f'{x:.2f}' if x > 1 else f'{x:.1e}':>9}" for x in row(name, device))
        print(f"{name:{width}}" + "".join(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
