"""Checkpoint 7: positions, masks, dtypes and devices, the head, and what is refused."""

import pytest
import torch
from small import CONFIG, assert_close, model, token_ids

from llama_core import KVCache, Llama, capture
from llama_core.errors import InputError


def test_eager_and_fused_attention_agree(device):
    llama, ids = model(device), token_ids(2, 11).to(device)
    fused = llama(ids)
    llama.attention = "eager"
    assert llama.attention == "eager"
    assert_close(llama(ids), fused)


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.3), ("float16", 0.03)])
def test_half_precision_is_float32_within_its_rounding(dtype, tolerance, device):
    llama, ids = model(dtype=dtype), token_ids(2, 11)
    exact = Llama(CONFIG)
    exact.load_state_dict({name: value.float() for name, value in llama.state_dict().items()}, assign=True)
    logits = llama.to(device)(ids.to(device))
    assert logits.dtype == llama.dtype == getattr(torch, dtype)
    assert_close(logits.float().cpu(), exact(ids), tolerance)


def test_rotary_frequencies_survive_a_cast_of_the_model(device):
    llama = model().to(device, torch.bfloat16)
    expected = torch.tensor([10000.0 ** (-2 * i / 12) for i in range(6)])
    assert llama.rope.frequencies.dtype == torch.float32
    assert_close(llama.rope.frequencies.cpu(), expected, 1e-7)


def test_assigned_weights_bring_the_rotary_table_to_their_device(device):
    llama, ids = model(device), token_ids(1, 5).to(device)
    other = Llama(CONFIG)
    other.load_state_dict(llama.state_dict(), assign=True)
    assert_close(other(ids), llama(ids))


def test_the_rotary_table_follows_assigned_weights_to_another_device():
    other = Llama(CONFIG)  # its table lies on the CPU
    other.load_state_dict({name: value.to("meta") for name, value in model().state_dict().items()}, assign=True)
    assert other.rope.frequencies.device == other.device == torch.device("meta")


def test_a_row_does_not_depend_on_its_batch():
    llama, ids = model(), token_ids(3, 8)
    assert_close(llama(ids)[1:2], llama(ids[1:2]))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing_for_real_tokens(side):
    llama, ids, padding = model(), token_ids(1, 6), torch.full((1, 3), 60)
    padded = torch.cat([padding, ids] if side == "left" else [ids, padding], 1)
    real = torch.tensor([[False] * 3 + [True] * 6 if side == "left" else [True] * 6 + [False] * 3])
    assert_close(llama(padded, attention_mask=real)[real], llama(ids)[0])


def test_padding_in_the_middle_counts_no_position():
    llama, ids = model(), token_ids(1, 6)
    holes = torch.cat([ids[:, :2], torch.zeros(1, 2, dtype=torch.long), ids[:, 2:]], 1)
    real = torch.tensor([[1, 1, 0, 0, 1, 1, 1, 1]])
    assert_close(llama(holes, attention_mask=real)[real.bool()], llama(ids)[0])


@pytest.mark.parametrize("dtype", [torch.long, torch.bool, torch.float32], ids=str)
def test_a_mask_that_hides_nothing_changes_no_bit(dtype):
    llama, ids = model(), token_ids(2, 6)
    assert torch.equal(llama(ids, attention_mask=torch.ones(2, 6, dtype=dtype)), llama(ids))


def test_a_row_of_nothing_but_padding_gives_no_nan_and_leaves_the_others_alone():
    llama, ids = model(), token_ids(2, 6)
    mask = torch.tensor([[1] * 6, [0] * 6])
    for attention in ("fused", "eager"):
        llama.attention = attention
        logits = llama(ids, attention_mask=mask)
        assert not logits.isnan().any()
        assert_close(logits[0], llama(ids[:1])[0])


def test_attention_is_relative_so_shifted_positions_give_the_same_logits():
    llama, ids = model(), token_ids(2, 8)
    shifted = (torch.arange(8) + 40).expand(2, 8)
    assert_close(llama(ids, position_ids=shifted), llama(ids), 1e-4)


def test_explicit_positions_are_the_ones_that_rotate():
    llama, ids = model(), token_ids(1, 4)
    positions = torch.tensor([[0, 3, 4, 9]])
    with capture(llama, ["position_ids", "layers.0.k", "layers.0.k_rotated"]) as seen:
        logits = llama(ids, position_ids=positions)
    assert torch.equal(seen["position_ids"], positions)
    k = seen["layers.0.k"].double()
    pairs = torch.complex(k[..., :6], k[..., 6:])
    angles = positions[..., None, None] * torch.tensor([10000.0 ** (-2 * i / 12) for i in range(6)]).double()
    turned = pairs * torch.exp(1j * angles)
    assert_close(seen["layers.0.k_rotated"].double(), torch.cat([turned.real, turned.imag], -1), 1e-5)
    assert (logits - llama(ids)).abs().max() > 1e-2


def test_visibility_follows_from_positions_not_from_the_order_in_the_row():
    """The same tokens at the same positions, in another order: the same logits, in that order."""
    llama, ids = model(), token_ids(1, 5)
    order = torch.tensor([3, 0, 4, 1, 2])
    logits = llama(ids[:, order], position_ids=order[None])
    assert_close(logits, llama(ids)[:, order])


@pytest.mark.parametrize("cached", [False, True])
def test_last_only_is_the_last_row(cached):
    llama, ids = model(), token_ids(2, 7)
    cache = KVCache(llama.config, 2, 7) if cached else None
    logits = llama(ids, cache=cache, last_only=True)
    assert logits.shape == (2, 1, 61)
    assert_close(logits, llama(ids)[:, -1:])


def test_the_same_call_gives_the_same_bits():
    llama, ids = model(), token_ids(2, 9)
    assert torch.equal(llama(ids), llama(ids))


def test_a_tied_head_is_the_embedding_itself():
    llama = model(tie_word_embeddings=True)
    assert llama.lm_head.weight is llama.embed_tokens.weight
    assert "lm_head.weight" not in dict(llama.named_parameters()) and "lm_head.weight" in llama.state_dict()
    moved = llama.to(torch.float64)
    assert moved.lm_head.weight is moved.embed_tokens.weight


def test_a_new_model_has_no_weights_until_given_some():
    assert all(parameter.is_meta for parameter in Llama(CONFIG).parameters())


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_a_model_without_weights_says_so(place):
    with pytest.raises(InputError, match="no weights yet"):
        Llama(CONFIG)(torch.zeros(1, 2, dtype=torch.long, device=place))


def test_torchs_default_type_and_device_change_nothing():
    ids, config = torch.tensor([[1, 2, 3]]), CONFIG.replace(dtype="bfloat16")
    expected, stories = Llama.random(config).state_dict(), Llama.from_pretrained("stories")(ids)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            found, loaded = Llama.random(config).state_dict(), Llama.from_pretrained("stories")
            converted = Llama.from_pretrained("stories", dtype="float32")
    finally:
        torch.set_default_dtype(torch.float32)
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert torch.equal(loaded(ids), stories)
    assert torch.equal(converted.lm_head.weight, loaded.lm_head.weight.float())


def test_weights_are_taken_over_without_a_copy():
    tensors = {name: value.clone() for name, value in model().state_dict().items()}
    llama = Llama(CONFIG)
    llama.load_state_dict(tensors, assign=True)
    assert all(value.data_ptr() == tensors[name].data_ptr() for name, value in llama.state_dict().items())


def test_random_weights_have_the_stated_spread_and_follow_the_seed():
    config = CONFIG.replace(vocab_size=2000, hidden_size=256, intermediate_size=512, head_dim=64)
    weights = Llama.random(config, seed=3).state_dict()
    assert weights["embed_tokens.weight"].std().item() == pytest.approx(1 / 16, rel=0.02)
    assert weights["layers.0.mlp.down_proj.weight"].std().item() == pytest.approx(512**-0.5, rel=0.02)
    norm = weights["norm.weight"]
    assert norm.min() >= 0.5 and norm.max() <= 1.5 and norm.std().item() == pytest.approx(12**-0.5, rel=0.15)
    assert weights["layers.1.self_attn.q_proj.bias"].std().item() == pytest.approx(0.1, rel=0.2)
    again, other = Llama.random(config, seed=3).state_dict(), Llama.random(config, seed=4).state_dict()
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not any(torch.equal(weights[name], other[name]) for name in weights)


def refused(key: str, *args, **kwargs) -> InputError:
    with pytest.raises(InputError) as error:
        model()(*args, **kwargs)
    assert error.value.key == key
    return error.value


@pytest.mark.parametrize("wrong", [61, -1])
def test_an_id_outside_the_vocabulary_is_refused(wrong):
    ids = token_ids(1, 4)
    ids[0, 2] = wrong
    error = refused("input_ids", ids)
    assert error.expected == "0 to 60" and error.actual == wrong and "tokenizer" in error.hint


def test_no_ids_are_refused():
    assert refused("input_ids", torch.zeros(1, 0, dtype=torch.long)).actual == [1, 0]


def test_a_mask_that_forgets_the_cached_positions_is_refused():
    llama = model()
    cache = KVCache(llama.config, 1, 8)
    llama(token_ids(1, 3), cache=cache)
    with pytest.raises(InputError, match="attention_mask") as error:
        llama(token_ids(1, 2), attention_mask=torch.ones(1, 2), cache=cache)
    assert "3 cached and 2 new" in error.value.expected and cache.length == 3


def test_negative_positions_are_refused():
    assert "-1" in refused("position_ids", token_ids(1, 2), position_ids=torch.tensor([[0, -1]])).actual


def test_an_unknown_attention_path_is_refused():
    with pytest.raises(InputError, match="flash") as error:
        model().attention = "flash"
    assert error.value.expected == "fused | eager"
