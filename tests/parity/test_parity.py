"""This model against transformers' on the same random weights; see ``measure.py`` for the differences in figures."""

import pytest
import scenarios
import torch
from cases import CASES, FIXED_ROPE_CASES, our_model, peer_model, token_ids

from llama_core import Llama

#: For float32 values of order 5. `python tests/parity/measure.py` prints what the differences are.
TOLERANCE = 3e-4


def assert_same(pairs: scenarios.Pairs, tolerance: float = TOLERANCE) -> None:
    assert pairs
    for name, ours, theirs in pairs:
        assert ours.dtype == theirs.dtype
        torch.testing.assert_close(
            ours.cpu(), theirs, rtol=0, atol=tolerance, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("case", CASES)
def test_logits(case, device):
    assert_same(scenarios.fused_logits(case, device=device))


@pytest.mark.parametrize("case", CASES)
def test_every_hidden_state(case, device):
    assert_same(scenarios.activations(case, device=device))


@pytest.mark.parametrize("case", FIXED_ROPE_CASES)
def test_attention_weights_on_real_rows(case, device):
    assert_same(scenarios.attention_weights(case, device=device))


@pytest.mark.parametrize("case", FIXED_ROPE_CASES)
def test_rotated_keys_and_values_at_later_positions(case, device):
    assert_same(scenarios.keys_and_values(case, first=200 if "dynamic" in case else 1000, device=device))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", FIXED_ROPE_CASES)
def test_padding(case, side, device):
    assert_same(scenarios.padded(case, side, device=device))


@pytest.mark.parametrize("case", FIXED_ROPE_CASES)
def test_chunks_through_a_cache(case, device):
    assert_same(scenarios.chunked(case, device=device))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("case", FIXED_ROPE_CASES)
def test_decoding_behind_a_padded_prefill(case, side, device):
    assert_same(scenarios.padded_decode(case, side, device=device))


@pytest.mark.parametrize("case", ["heads-gqa-4-to-1", "tied-head", "rope-llama3", "attention-bias"])
def test_a_sharded_folder_that_transformers_saved(case, tmp_path, device):
    peer_model(case).save_pretrained(tmp_path, max_shard_size="60KB")
    assert len(list(tmp_path.glob("model-*-of-*.safetensors"))) > 1
    model = Llama.from_pretrained(tmp_path, device=device)
    assert_same([("logits", model(token_ids(case).to(device)), peer_model(case)(token_ids(case)).logits)])


@pytest.mark.parametrize(
    "case", ["heads-mha", "heads-gqa-4-to-1", "attention-bias", "rope-yarn", "odd-sizes-one-layer"]
)
def test_bfloat16_is_as_close_to_float32_as_transformers_bfloat16_is(case, device):
    exact = bfloat16_weights_in_float32(case)
    ours = our_model(case, torch.bfloat16, device)(token_ids(case).to(device)).float().cpu()
    theirs = peer_model(case, torch.bfloat16)(token_ids(case)).logits.float()
    our_error, their_error = (ours - exact).square().mean().sqrt(), (theirs - exact).square().mean().sqrt()
    assert our_error < 1.5 * their_error, f"root mean square {our_error:.4f}, transformers {their_error:.4f}"


def bfloat16_weights_in_float32(case: str) -> torch.Tensor:
    peer = peer_model(case)
    exact = {name: value.bfloat16().float() for name, value in peer.named_parameters()}
    return torch.func.functional_call(peer, exact, (token_ids(case),), tie_weights=True).logits
