"""Folders that transformers writes and reads: the same bits in, the same numbers out."""

import json

import pytest
import torch
import transformers

from llama_core import Llama, LlamaConfig, RopeScaling
from llama_core.weights import load_model, save_model

SIZES = dict(vocab_size=53, hidden_size=24, intermediate_size=36, num_hidden_layers=3, num_attention_heads=4)

#: name -> (what differs from SIZES in transformers' configuration, options of its save_pretrained)
VARIANTS = {
    "plain": ({}, {}),
    "grouped heads": (dict(num_key_value_heads=2), {}),
    "one key head": (dict(num_key_value_heads=1), {}),
    "tied": (dict(tie_word_embeddings=True), {}),
    "biases": (dict(attention_bias=True, mlp_bias=True), {}),
    "head_dim": (dict(head_dim=10), {}),
    "sharded": ({}, dict(max_shard_size="8KB")),
    "tied and sharded": (dict(tie_word_embeddings=True), dict(max_shard_size="8KB")),
    "bfloat16": (dict(dtype="bfloat16"), {}),
    "float16": (dict(dtype="float16"), {}),
    "float64": (dict(dtype="float64"), {}),
}


def their_model(**changes):
    """A model of transformers whose every parameter, biases and norms too, is random."""
    config = transformers.LlamaConfig(**(SIZES | changes))
    model = transformers.LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2 + (parameter.ndim == 1))
    return model.to(config.dtype or torch.float32).eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_transformers_saves_loads_with_equal_bits(tmp_path, variant):
    changes, options = VARIANTS[variant]
    theirs = their_model(**changes)
    theirs.save_pretrained(tmp_path, **options)
    assert ("max_shard_size" in options) == (tmp_path / "model.safetensors.index.json").exists()
    ours = load_model(tmp_path)
    wanted = {name.removeprefix("model."): values for name, values in theirs.state_dict().items()}
    found = ours.state_dict()
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype and torch.equal(found[name], values), name
    assert ours.config.dtype == str(theirs.dtype).removeprefix("torch.")


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_is_saved_here_gives_transformers_the_same_weights_and_logits(tmp_path, variant):
    changes, options = VARIANTS[variant]
    ours = Llama.random(LlamaConfig(**(SIZES | dict(num_key_value_heads=4) | changes)), seed=5)
    save_model(ours, tmp_path / "model", max_shard_bytes=8_000 if options else 10**9)
    theirs, report = transformers.LlamaForCausalLM.from_pretrained(
        tmp_path / "model", output_loading_info=True, dtype="auto"
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    for name, values in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name.removeprefix("model.")], values), name
    assert theirs.dtype == ours.dtype
    ids = torch.arange(2 * 17).reshape(2, 17) * 7 % 53
    with torch.no_grad():
        wanted = theirs.double()(ids).logits
        found = ours.double()(ids)
    assert (found - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(
    "scaling",
    [
        RopeScaling("linear", 3.0),
        RopeScaling("yarn", 4.0, 32, beta_fast=16.0),
        RopeScaling("llama3", 8.0, 32, 1.0, 4.0),
        RopeScaling("dynamic", 2.0),
    ],
    ids=lambda s: s.kind,
)
def test_the_rotary_scaling_survives_the_way_to_transformers(tmp_path, scaling):
    config = LlamaConfig(**SIZES, head_dim=16, max_position_embeddings=128, rope_theta=500.0, rope_scaling=scaling)
    ours = Llama.random(config, seed=6)
    save_model(ours, tmp_path / "model")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "model").eval()
    ids = torch.arange(100).reshape(1, 100) * 11 % 53
    with torch.no_grad():
        wanted, found = theirs(ids).logits, ours(ids)
        plain = Llama(config.replace(rope_scaling=None))
        plain.load_state_dict(ours.state_dict(), assign=True)
        dropped = plain(ids)
    assert (found - wanted).abs().max() < 3e-4
    if scaling.kind != "dynamic":  # within the original length dynamic scaling changes nothing
        assert (dropped - wanted).abs().max() > 3e-2


def test_a_folder_survives_both_directions_unchanged(tmp_path):
    first = Llama.random(LlamaConfig(**SIZES, tie_word_embeddings=True, eos_token_ids=(2, 7)), dtype="bfloat16")
    save_model(first, tmp_path / "a")
    save_model(load_model(tmp_path / "a"), tmp_path / "b")
    for name in ("config.json", "generation_config.json", "model.safetensors"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
@pytest.mark.parametrize("mmap", [True, False])
def test_weights_are_rounded_as_torch_rounds_them(tmp_path, dtype, mmap):
    model = Llama.random(LlamaConfig(**SIZES), seed=7)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model", dtype=dtype, mmap=mmap)
    assert loaded.config.dtype == dtype
    for name, values in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], values.to(getattr(torch, dtype))), name


def test_files_of_several_dtypes_take_the_one_that_the_configuration_states(tmp_path):
    model = Llama.random(LlamaConfig(**SIZES), seed=8)
    for block in model.layers:
        block.mlp.to(torch.bfloat16)
    save_model(model, tmp_path / "model")
    loaded = load_model(tmp_path / "model")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    assert torch.equal(loaded.layers[1].mlp.up_proj.weight, model.layers[1].mlp.up_proj.weight.float())
    assert torch.equal(loaded.norm.weight, model.norm.weight)


def test_the_files_dtype_wins_over_the_configurations(tmp_path):
    model = Llama.random(LlamaConfig(**SIZES), dtype="bfloat16")
    save_model(model, tmp_path / "model")
    content = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(content | {"torch_dtype": "float16"}))
    loaded = load_model(tmp_path / "model")
    assert (loaded.dtype, loaded.config.dtype) == (torch.bfloat16, "bfloat16")


def test_weights_arrive_on_the_device(tmp_path, device):
    model = Llama.random(LlamaConfig(**SIZES), seed=9)
    save_model(model.to(device), tmp_path / "model")
    loaded = load_model(tmp_path / "model", device=device)
    assert {p.device.type for p in loaded.parameters()} == {device.type}
    for name, values in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], values)
    ids = torch.tensor([[1, 5, 9]], device=device)
    assert torch.equal(loaded(ids), model(ids))


def test_someone_elses_trained_folder_loads_with_equal_bits(real_models):
    folder = real_models / "stories260K"
    theirs = transformers.LlamaForCausalLM.from_pretrained(folder).state_dict()
    ours = load_model(folder).state_dict()
    assert all(torch.equal(ours[name.removeprefix("model.")], values) for name, values in theirs.items())
    assert len(ours) == len(theirs) == 48
