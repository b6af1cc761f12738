"""GGUF files written: what llama.cpp's own reader finds in them, and that reading them back gives the same model."""

import gguf
import numpy as np
import pytest
import torch

from llama_core import Llama, LlamaConfig, RopeScaling
from llama_core.cli import main
from llama_core.errors import ConfigError, WeightsError
from llama_core.weights import convert
from llama_core.weights.open_folder import open_folder

CONFIG = LlamaConfig(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    rms_norm_eps=3e-6,
    rope_theta=50000.0,
    max_position_embeddings=96,
)
LLAMA3 = RopeScaling("llama3", 8.0, 32, low_freq_factor=2.0, high_freq_factor=6.0)
CONFIGS = {
    "plain": CONFIG,
    "tied": CONFIG.replace(tie_word_embeddings=True),
    "biases": CONFIG.replace(attention_bias=True, mlp_bias=True),
    "biases of q, k and v": CONFIG.replace(qkv_bias=True),
    "a head dimension of its own": CONFIG.replace(head_dim=16),
    "linear": CONFIG.replace(rope_scaling=RopeScaling("linear", 4.0)),
    "llama3": CONFIG.replace(rope_scaling=LLAMA3),
    "yarn": CONFIG.replace(rope_scaling=RopeScaling("yarn", 4.0, 32)),
}


def folder(place, config=CONFIG, dtype="float32"):
    Llama.random(config, seed=3, dtype=dtype).save_pretrained(place)
    return place


def permuted(weights, heads):
    """As ``convert_hf_to_gguf.py`` in llama.cpp has it."""
    shape = weights.shape
    return weights.reshape(heads, 2, shape[0] // heads // 2, *shape[1:]).swapaxes(1, 2).reshape(shape)


def test_llama_cpps_own_reader_finds_the_weights_in_its_own_order(tmp_path):
    source = folder(tmp_path / "hf")
    convert(source, tmp_path / "m.gguf", "gguf")
    state = {name: p.numpy() for name, p in Llama.from_pretrained(source).state_dict().items()}
    found = {t.name: t.data for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    layer = "layers.1.self_attn."
    assert (found["blk.1.attn_q.weight"] == permuted(state[layer + "q_proj.weight"], 4)).all()
    assert (found["blk.1.attn_k.weight"] == permuted(state[layer + "k_proj.weight"], 2)).all()
    assert (found["blk.1.attn_v.weight"] == state[layer + "v_proj.weight"]).all()
    assert (found["blk.0.ffn_down.weight"] == state["layers.0.mlp.down_proj.weight"]).all()
    assert (found["token_embd.weight"] == state["embed_tokens.weight"]).all()
    assert len(found) == len(state)


def test_llama_cpps_own_reader_finds_the_hyper_parameters_and_the_vocabulary(tmp_path):
    convert("stories", tmp_path / "m.gguf", "gguf")
    fields = gguf.GGUFReader(tmp_path / "m.gguf").fields
    numbers = {"block_count": 4, "attention.head_count_kv": 2, "rope.dimension_count": 64, "embedding_length": 256}
    assert {key: fields[f"llama.{key}"].contents() for key in numbers} == numbers
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    assert (len(tokens), tokens[:3], kinds[:3]) == (1024, ["<unk>", "<s>", "</s>"], [2, 3, 3])
    assert (tokens[3 + 10], kinds[3 + 10]) == ("<0x0A>", 6)
    scores = fields["tokenizer.ggml.scores"].contents()
    merged = [score for score, kind in zip(scores, kinds, strict=True) if kind == 1]
    assert merged == sorted(merged, reverse=True) and merged[0] > merged[-1]


@pytest.mark.parametrize("name", CONFIGS)
def test_reading_back_gives_the_same_model(tmp_path, name):
    source = folder(tmp_path / "hf", CONFIGS[name])
    convert(source, tmp_path / "m.gguf", "gguf")
    before, after = Llama.from_pretrained(source), Llama.from_pretrained(tmp_path / "m.gguf")
    assert all(torch.equal(p, after.state_dict()[n]) for n, p in before.state_dict().items())
    stated = after.config
    if name == "yarn":  # a length that is the default may be left out of a folder
        assert stated.rope_scaling.original_max_position_embeddings == 32
    assert stated == before.config


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_goes_there_and_back_bit_for_bit(tmp_path, dtype):
    source = folder(tmp_path / "hf", dtype=dtype)
    convert(source, tmp_path / "m.gguf", "gguf")
    convert(tmp_path / "m.gguf", tmp_path / "back", "hf")
    before, after = Llama.from_pretrained(source), Llama.from_pretrained(tmp_path / "back", dtype=dtype)
    assert all(torch.equal(p, after.state_dict()[n]) for n, p in before.state_dict().items())
    stored = {e.name: e.dtype for e in open_folder(tmp_path / "back").parameters.values()}
    assert stored["model.norm.weight"] == "F32"  # llama.cpp wants norms in float32
    assert stored["model.layers.0.mlp.up_proj.weight"] == {"float16": "F16", "bfloat16": "BF16"}[dtype]


def test_q8_0_is_within_half_a_step_of_each_block_and_norms_are_exact(tmp_path):
    source = folder(tmp_path / "hf")
    result = convert(source, tmp_path / "m.gguf", "gguf", "q8_0")
    before, after = Llama.from_pretrained(source).state_dict(), Llama.from_pretrained(tmp_path / "m.gguf").state_dict()
    assert torch.equal(before["layers.0.input_layernorm.weight"], after["layers.0.input_layernorm.weight"])
    wanted, found = (s["layers.0.mlp.down_proj.weight"].reshape(-1, 32).double() for s in (before, after))
    step = wanted.abs().amax(1, keepdim=True) / 127
    assert ((wanted - found).abs() <= step * 0.5 + wanted.abs() * 2**-11).all() and not torch.equal(wanted, found)
    assert "q8_0" in result.to_text() and "bit for bit" not in result.to_text()


@pytest.mark.parametrize("kind, number", [("f32", 0), ("f16", 1), ("q8_0", 7), ("bf16", 32)])
def test_the_file_says_the_type_of_its_matrices_by_llama_cpps_number(tmp_path, kind, number):
    convert(folder(tmp_path / "hf"), tmp_path / "m.gguf", "gguf", kind)
    assert gguf.GGUFReader(tmp_path / "m.gguf").get_field("general.file_type").contents() == number


def test_rows_that_are_no_blocks_stay_float32_and_it_says_so(tmp_path):
    source = folder(tmp_path / "hf", CONFIG.replace(intermediate_size=40))
    result = convert(source, tmp_path / "m.gguf", "gguf", "q8_0")
    kinds = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors}
    assert kinds["blk.0.ffn_down.weight"] == "F32" and kinds["blk.0.ffn_up.weight"] == "Q8_0"
    assert any("blk.0.ffn_down.weight" in note for note in result.notes)


def test_the_rotary_factors_are_what_llama_3_divides_by(tmp_path):
    """Wavelengths above 32 / 2 positions are stretched 8 times, below 32 / 6 kept, blended between."""
    convert(folder(tmp_path / "hf", CONFIGS["llama3"]), tmp_path / "m.gguf", "gguf")
    (factors,) = (t.data for t in gguf.GGUFReader(tmp_path / "m.gguf").tensors if t.name == "rope_freqs.weight")
    turns = 32 * 50000.0 ** (-np.arange(0, 8, 2) / 8) / (2 * np.pi)
    keep = np.clip((turns - 2) / 4, 0, 1)
    assert np.allclose(factors, 1 / (keep + (1 - keep) / 8), rtol=1e-6)
    assert len(set(factors.round(3).tolist())) > 1


def test_published_llama_3_factors_are_recognised_without_our_own_key(tmp_path):
    scaling = RopeScaling("llama3", 32.0, 8192)
    convert(folder(tmp_path / "hf", CONFIG.replace(rope_scaling=scaling, head_dim=64)), tmp_path / "m.gguf", "gguf")
    content = (tmp_path / "m.gguf").read_bytes().replace(b"llama_core.rope_scaling", b"another___.rope_scaling")
    (tmp_path / "m.gguf").write_bytes(content)
    assert Llama.from_pretrained(tmp_path / "m.gguf").config.rope_scaling == scaling


def test_factors_of_no_known_scaling_are_refused(tmp_path):
    convert(folder(tmp_path / "hf", CONFIGS["llama3"]), tmp_path / "m.gguf", "gguf")
    content = (tmp_path / "m.gguf").read_bytes().replace(b"llama_core.rope_scaling", b"another___.rope_scaling")
    (tmp_path / "m.gguf").write_bytes(content)
    with pytest.raises(ConfigError, match="does not hold the factors"):
        Llama.from_pretrained(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    "changes, what",
    [
        ({"sliding_window": 8}, "sliding window"),
        ({"qk_norm": True}, "norms of query and key heads"),
        ({"rope_scaling": RopeScaling("dynamic", 2.0)}, "dynamic scaling"),
        ({"rope_scaling": RopeScaling("yarn", 2.0, 32, attention_factor=1.5)}, "yarn"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(tmp_path, monkeypatch, changes, what):
    from llama_core.weights.gguf_config import gguf_metadata

    with pytest.raises(ConfigError, match=what):
        gguf_metadata(CONFIG.replace(**changes))


def test_a_file_that_is_there_is_not_overwritten_and_a_failed_one_leaves_nothing(tmp_path):
    source = folder(tmp_path / "hf")
    (tmp_path / "m.gguf").write_text("mine")
    with pytest.raises(WeightsError, match="in use"):
        convert(source, tmp_path / "m.gguf", "gguf")
    assert (tmp_path / "m.gguf").read_text() == "mine"
    large = Llama.from_pretrained(source)
    with torch.no_grad():
        large.layers[1].mlp.up_proj.weight[0, 0] = 1e6
    large.save_pretrained(source)
    with pytest.raises(WeightsError, match="float16 cannot hold"):
        convert(source, tmp_path / "new.gguf", "gguf", "f16")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf", "m.gguf"]


def test_the_command_writes_the_file_and_a_type_is_for_gguf_only(tmp_path, capsys):
    source = str(folder(tmp_path / "hf"))
    assert main(["convert", source, str(tmp_path / "m.gguf"), "--to", "gguf", "--type", "f16"]) == 0
    assert "matrices in f16" in capsys.readouterr().out
    assert main(["convert", source, str(tmp_path / "meta"), "--to", "meta", "--type", "f16"]) == 2
    assert "only GGUF files take a type" in capsys.readouterr().err


def test_without_the_gguf_package_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    import sys

    source = folder(tmp_path / "hf")
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(WeightsError) as caught:
        convert(source, tmp_path / "m.gguf", "gguf")
    assert "llama-core[gguf]" in caught.value.hint
