"""Checkpoint 8: whatever way positions enter the cache, the logits are those of one pass over everything."""

import pytest
import torch
from small import CONFIG, assert_close, model, token_ids

from llama_core import KVCache, RopeScaling, capture
from llama_core.errors import CacheError, InputError


def through_a_cache(llama, ids, sizes, capacity=None):
    cache = KVCache(llama.config, len(ids), capacity or ids.shape[1], device=llama.device)
    return torch.cat([llama(chunk, cache=cache) for chunk in ids.split(sizes, dim=1)], dim=1), cache


@pytest.mark.parametrize("attention", ["fused", "eager"])
@pytest.mark.parametrize("sizes", [[1] * 12, [12], [11, 1], [1, 11], [5, 1, 1, 5], [2, 3, 7], [4, 4, 4]], ids=str)
def test_chunks_give_the_logits_of_one_pass(sizes, attention, device):
    llama, ids = model(device), token_ids(3, 12).to(device)
    expected = llama(ids)
    llama.attention = attention
    logits, cache = through_a_cache(llama, ids, sizes, capacity=20)
    assert_close(logits, expected)
    assert cache.length == 12


@pytest.mark.parametrize("dtype, tolerance", [("bfloat16", 0.15), ("float16", 0.02)])
def test_chunks_give_the_logits_of_one_pass_in_half_precision(dtype, tolerance, device):
    llama, ids = model(dtype=dtype, device=device), token_ids(2, 12).to(device)
    logits, _ = through_a_cache(llama, ids, [5, 1, 6])
    assert logits.dtype == llama.dtype
    assert_close(logits.float(), llama(ids).float(), tolerance)


@pytest.mark.parametrize("kind", ["linear", "yarn", "llama3"])
def test_chunks_with_a_rotary_scaling(kind):
    scaling = RopeScaling(kind=kind, factor=4.0, original_max_position_embeddings=8)
    llama, ids = model(rope_scaling=scaling), token_ids(2, 16)
    assert_close(through_a_cache(llama, ids, [6, 1, 9])[0], llama(ids))


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("sizes", [[9, 1, 1, 1], [4, 5, 3], [9, 3]], ids=str)
def test_a_padded_row_continues_like_the_same_row_alone(side, sizes, device):
    llama = model(device)
    prompt, rest = token_ids(1, 5).to(device), token_ids(1, 3, seed=1).to(device)
    other = token_ids(1, 12, seed=2).to(device)
    expected = llama(torch.cat([prompt, rest], 1))

    padding = torch.zeros(1, 4, dtype=torch.long, device=device)
    halves = [padding, prompt] if side == "left" else [prompt, padding]
    ids = torch.cat([torch.cat([*halves, rest], 1), other])
    mask = torch.cat(
        [ids.new_tensor([[0] * 4 + [1] * 5 if side == "left" else [1] * 5 + [0] * 4]), ids.new_ones(1, 3)], 1
    )
    mask = torch.cat([mask, torch.ones_like(mask)])
    cache, outputs = KVCache(llama.config, 2, 12, device=device), []
    for chunk in ids.split(sizes, dim=1):
        outputs.append(llama(chunk, attention_mask=mask[:, : cache.length + chunk.shape[1]], cache=cache))
    logits = torch.cat(outputs, 1)
    assert_close(logits[:1, mask[0].bool()], expected)
    assert_close(logits[1:], llama(other))


@pytest.mark.parametrize("side", ["left", "right"])
def test_after_a_padded_prefill_the_cache_knows_the_padding_without_being_told_again(side):
    llama = model()
    prompt, step, padding = token_ids(1, 5), token_ids(1, 1, seed=1), torch.zeros(1, 4, dtype=torch.long)
    ids = torch.cat([padding, prompt] if side == "left" else [prompt, padding], 1)
    cache = KVCache(llama.config, 1, 12)
    llama(ids, attention_mask=torch.tensor([[0] * 4 + [1] * 5 if side == "left" else [1] * 5 + [0] * 4]), cache=cache)
    assert_close(llama(step, cache=cache), llama(torch.cat([prompt, step], 1))[:, -1:])
    assert_close(llama(step, cache=cache), llama(torch.cat([prompt, step, step], 1))[:, -1:])


def test_a_mask_hides_earlier_positions_from_later_chunks():
    """attention_mask covers the past: zeros there hide what the cache holds."""
    llama, ids = model(), token_ids(1, 6)
    cache = KVCache(llama.config, 1, 8)
    llama(ids[:, :4], cache=cache)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1]])
    positions = torch.tensor([[4, 5]])
    with capture(llama, "layers.0.attention_weights") as seen:
        llama(ids[:, 4:], attention_mask=mask, position_ids=positions, cache=cache)
    weights = seen["layers.0.attention_weights"]
    assert (weights[..., :2] == 0).all() and (weights[..., 0, 2:5] > 0).all()
    assert_close(weights.sum(-1), torch.ones(1, 4, 2))


def test_overflow_is_an_error_before_anything_changes():
    llama, ids = model(), token_ids(2, 7)
    cache = KVCache(llama.config, 2, 6)
    llama(ids[:, :5], cache=cache)
    before = [tensor.clone() for tensor in (*cache.keys, *cache.values, cache.positions)]
    with pytest.raises(CacheError, match="2 new positions do not fit behind 5 in a cache of 6") as error:
        llama(ids[:, 5:], cache=cache)
    assert error.value.key == "max_length" and error.value.expected == "at least 7" and error.value.actual == 6
    assert cache.length == 5
    assert all(torch.equal(a, b) for a, b in zip(before, (*cache.keys, *cache.values, cache.positions), strict=True))
    assert_close(llama(ids[:, 5:6], cache=cache), llama(ids[:, :6])[:, -1:])


@pytest.mark.parametrize("activation", ["layers.0.cache_k", "layers.1.scores", "layers.2.output", "logits"])
@pytest.mark.parametrize("first", [0, 5])
def test_an_interrupted_pass_leaves_the_cache_as_it_was(activation, first):
    llama, ids = model(), token_ids(2, 9)
    cache = KVCache(llama.config, 2, 9)
    if first:
        llama(ids[:, :first], cache=cache)

    def interrupt(value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), capture(llama, replace={activation: interrupt}):
        llama(token_ids(2, 3, seed=5), cache=cache)
    assert cache.length == first
    assert_close(llama(ids[:, first:], cache=cache), llama(ids)[:, first:])


def test_truncate_forgets_the_end():
    llama, ids, other = model(), token_ids(1, 9), token_ids(1, 9, seed=3)
    _, cache = through_a_cache(llama, ids, [9], capacity=12)
    cache.truncate(4)
    assert_close(llama(other[:, 4:], cache=cache), llama(torch.cat([ids[:, :4], other[:, 4:]], 1))[:, 4:])


def test_padding_stays_hidden_when_positions_are_given():
    llama, ids = model(), token_ids(1, 5)
    cache = KVCache(CONFIG, 1, 8)
    padded, mask = torch.cat([torch.zeros(1, 2, dtype=torch.long), ids[:, :4]], 1), torch.tensor([[0] * 2 + [1] * 4])
    llama(padded, attention_mask=mask, position_ids=torch.tensor([[0, 0, 0, 1, 2, 3]]), cache=cache)
    step = llama(ids[:, 4:], position_ids=torch.tensor([[4]]), cache=cache)
    assert_close(step, llama(ids)[:, 4:])


def test_after_padding_and_truncate_positions_count_from_what_is_left():
    llama, ids, padding = model(), token_ids(1, 9), torch.zeros(1, 2, dtype=torch.long)
    cache = KVCache(CONFIG, 1, 12)
    llama(torch.cat([padding, ids[:, :7]], 1), attention_mask=torch.tensor([[0] * 2 + [1] * 7]), cache=cache)
    cache.truncate(6)  # two of padding, four tokens
    assert_close(llama(ids[:, 4:6], cache=cache), llama(ids[:, :6])[:, 4:])


def test_a_pass_over_the_whole_capacity_sees_nothing_of_what_was_truncated():
    cache = KVCache(CONFIG, 1, 6)
    model()(token_ids(1, 5), cache=cache)
    cache.truncate(2)
    assert cache.begin(torch.tensor([[2]]), read_all=True)[1].tolist() == [[0, 1, 2, -1, -1, -1]]


def test_reset_forgets_everything():
    llama, ids = model(), token_ids(1, 6)
    cache = KVCache(llama.config, 1, 6)
    llama(token_ids(1, 6, seed=3), attention_mask=torch.tensor([[0, 0, 1, 1, 1, 1]]), cache=cache)
    cache.reset()
    assert cache.length == 0
    assert_close(llama(ids, cache=cache), llama(ids))


@pytest.mark.parametrize("length", [-1, 4, 2.0, True])
def test_truncate_refuses_a_length_that_the_cache_does_not_have(length):
    llama = model()
    cache = KVCache(llama.config, 1, 6)
    llama(token_ids(1, 3), cache=cache)
    try:
        cache.truncate(length)
    except CacheError as error:
        assert error.key == "length" and error.expected == "0 to 3"
    except Exception as error:  # the type checks that only the tests switch on may speak first
        assert "beartype" in type(error).__module__ or "jaxtyping" in type(error).__module__
    else:
        pytest.fail("accepted")
    assert cache.length == 3


@pytest.mark.parametrize(
    "settings, key",
    [
        (dict(config=CONFIG.replace(num_key_value_heads=4)), "num_key_value_heads"),
        (dict(config=CONFIG.replace(num_hidden_layers=2)), "num_hidden_layers"),
        (dict(config=CONFIG.replace(head_dim=10)), "head_dim"),
        (dict(batch_size=3), "batch_size"),
        (dict(dtype="float16"), "dtype"),
        (dict(device="meta"), "device"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_cache_for_something_else_is_refused_by_name(settings, key):
    cache = KVCache(**(dict(config=CONFIG, batch_size=2, max_length=8) | settings))
    with pytest.raises(CacheError) as error:
        model()(token_ids(2, 3), cache=cache)
    assert error.value.key == key and error.value.hint or key == "batch_size"
    assert cache.length == 0


@pytest.mark.parametrize("place", ["cuda", "mps", "cuda:99", "abacus"])
def test_a_device_that_is_not_here_is_refused_by_name(place):
    kind = place.split(":")[0]
    if place != "cuda:99" and kind in ("cuda", "mps") and getattr(torch, kind).is_available():
        pytest.skip(f"{kind} is here")  # a machine that has the device has nothing to refuse
    with pytest.raises(InputError) as error:
        KVCache(CONFIG, device=place)
    assert error.value.key == "device" and place in str(error.value)


def test_its_device_is_the_one_that_its_tensors_lie_on():
    """``"cpu:0"`` stands for ``"cpu"``, and ``"cuda"`` for one of several."""
    llama = model()
    cache = KVCache(CONFIG, device="cpu:0")
    assert cache.device == cache.keys[0].device == llama.device
    llama(token_ids(1, 3), cache=cache)
    assert cache.length == 3


def test_a_cache_made_in_inference_mode_is_refused_outside_by_name():
    llama, ids = model(), token_ids(1, 4)
    with torch.inference_mode():
        cache = KVCache(CONFIG)
        llama(ids[:, :2], cache=cache)
    with pytest.raises(CacheError, match="made in torch.inference_mode"):
        llama(ids[:, 2:], cache=cache)
    with torch.inference_mode():
        assert_close(llama(ids[:, 2:], cache=cache), llama(ids)[:, 2:])


def gradients(llama, logits):
    logits[..., -1, :].square().sum().backward()
    found = [parameter.grad for parameter in llama.parameters()]
    llama.zero_grad()
    return found


@torch.enable_grad()
def test_a_pass_with_a_cache_has_the_gradients_of_one_without():
    llama, ids = model(), token_ids(2, 5)
    with_cache = gradients(llama, llama(ids, cache=KVCache(CONFIG, 2)))
    for found, expected in zip(with_cache, gradients(llama, llama(ids)), strict=True):
        assert_close(found / expected.abs().max(), expected / expected.abs().max())


@torch.enable_grad()
def test_gradients_stop_at_what_the_cache_held_before():
    """A prefill with gradients and one without leave the same behind, so nothing grows from step to step."""
    llama, ids = model(), token_ids(1, 6)
    found = []
    for enabled in (True, False):
        cache = KVCache(CONFIG, 1)
        with torch.set_grad_enabled(enabled):
            llama(ids[:, :5], cache=cache)
        assert not any(tensor.requires_grad for tensor in (*cache.keys, *cache.values))
        found.append(gradients(llama, llama(ids[:, 5:], cache=cache)))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("key", ["batch_size", "max_length"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one_are_refused(key, value):
    with pytest.raises(CacheError) as error:
        KVCache(CONFIG, **{key: value})
    assert error.value.key == key and error.value.actual == value


def test_bytes_are_those_of_the_configuration():
    # 2 · 3 layers · 4 rows · 2 heads · 10 positions · 12 coordinates · 4 bytes
    cache = KVCache(CONFIG, 4, 10)
    assert cache.nbytes == 23_040 == CONFIG.kv_cache_bytes(10, batch_size=4, bytes_per_value=4)


def test_dynamic_scaling_beyond_the_original_length_differs_with_a_cache_as_documented():
    """Keys written early keep the frequencies of their time: in the docstring of RoPE, and in transformers too."""
    scaling = RopeScaling(kind="dynamic", factor=4.0)
    llama, ids = model(rope_scaling=scaling, max_position_embeddings=8), token_ids(1, 16)
    logits, _ = through_a_cache(llama, ids, [8, 8])
    assert_close(logits[:, :8], llama(ids[:, :8]))
    assert (logits[:, 8:] - llama(ids)[:, 8:]).abs().max() > 1e-2
