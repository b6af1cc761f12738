"""From one form of folder to the other and back: every byte of every tensor, and what cannot be carried."""

import json

import pytest
import torch
import transformers
from meta_folders import PARAMS, meta_weights, write_meta, write_shards
from model_folders import CONFIG, edit_config, edit_tensors, weights, write_folder
from safetensors.torch import load_file

from llama_core import Llama, LlamaConfig, RopeScaling, preset
from llama_core.cli import main
from llama_core.errors import ConfigError, WeightsError
from llama_core.weights import convert, load_model, read_config, save_model
from llama_core.weights.meta_params import feed_forward_size, read_params, write_params


def archive(folder):
    return torch.load(folder / "consolidated.00.pth", weights_only=True)


def assert_same_bytes(found, wanted):
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        assert found[name].numpy(force=True).view("u1").tobytes() == values.numpy(force=True).view("u1").tobytes(), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.float64])
def test_from_meta_and_back_every_byte_is_the_same(tmp_path, dtype):
    source = write_meta(tmp_path / "a", meta_weights(dtype=dtype))
    convert(source, tmp_path / "b", "hf")
    convert(tmp_path / "b", tmp_path / "c", "meta")
    assert_same_bytes(archive(tmp_path / "c"), meta_weights(dtype=dtype))


@pytest.mark.parametrize("tied", [False, True])
def test_from_hugging_face_and_back_every_byte_is_the_same(tmp_path, tied):
    tensors = weights()
    if tied:
        del tensors["lm_head.weight"]
    source = write_folder(tmp_path / "a", CONFIG | {"tie_word_embeddings": tied}, tensors)
    convert(source, tmp_path / "b", "meta")
    convert(tmp_path / "b", tmp_path / "c", "hf")
    assert_same_bytes(load_file(tmp_path / "c" / "model.safetensors"), tensors)
    assert read_config(tmp_path / "c") == read_config(source)


def test_bfloat16_and_mixed_dtypes_go_there_and_back(tmp_path):
    source = write_folder(tmp_path / "a")
    edit_tensors(source, lambda t: t.update({n: v.bfloat16() for n, v in t.items() if "mlp" in n}))
    convert(source, tmp_path / "b", "meta")
    convert(tmp_path / "b", tmp_path / "c", "hf")
    found, wanted = (load_file(folder / "model.safetensors") for folder in (tmp_path / "c", source))
    assert {name: v.dtype for name, v in found.items()} == {name: v.dtype for name, v in wanted.items()}
    assert all(torch.equal(found[name], values) for name, values in wanted.items())


def test_the_rows_are_those_of_transformers_own_conversion(tmp_path):
    """Its script reshapes q to [heads, D/2, 2, E] and swaps the middle axes; K is 2, H is 4."""
    tensors = meta_weights()
    convert(write_meta(tmp_path / "a"), tmp_path / "b", "hf")
    found = load_file(tmp_path / "b" / "model.safetensors")
    for n in range(2):
        for theirs, ours, heads in (("wq", "q_proj", 4), ("wk", "k_proj", 2)):
            rows = tensors[f"layers.{n}.attention.{theirs}.weight"]
            wanted = rows.view(heads, 4, 2, 32).transpose(1, 2).reshape(rows.shape)
            assert torch.equal(found[f"model.layers.{n}.self_attn.{ours}.weight"], wanted)


def test_transformers_and_we_compute_the_same_from_either_form(tmp_path):
    source = write_shards(tmp_path / "a", 2, 1)
    convert(source, tmp_path / "b", "hf")
    theirs = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "b").eval()
    ids = torch.arange(2 * 19).reshape(2, 19) * 7 % 40
    with torch.no_grad():
        wanted, from_meta, from_hf = theirs(ids).logits, load_model(source)(ids), load_model(tmp_path / "b")(ids)
    assert torch.equal(from_meta, from_hf)
    assert (from_hf - wanted).abs().max() < 1e-4


def test_someone_elses_two_forms_are_converted_into_each_other(real_models, tmp_path):
    home = real_models / "stories260K"
    convert(home / "meta", tmp_path / "hf", "hf")
    assert_same_bytes(load_file(tmp_path / "hf" / "model.safetensors"), load_file(home / "model.safetensors"))
    convert(home, tmp_path / "meta", "meta")
    assert_same_bytes(archive(tmp_path / "meta"), archive(home / "meta"))
    convert(tmp_path / "hf", tmp_path / "meta2", "meta")
    assert_same_bytes(archive(tmp_path / "meta2"), archive(home / "meta"))
    theirs = json.loads((home / "meta" / "params.json").read_text())
    assert theirs.items() <= json.loads((tmp_path / "meta" / "params.json").read_text()).items()
    for folder in ("hf", "meta"):
        assert (tmp_path / folder / "tokenizer.model").read_bytes() == (home / "tokenizer.model").read_bytes()


def test_what_the_target_cannot_say_is_listed(tmp_path):
    source = write_folder(tmp_path / "a", CONFIG | {"eos_token_id": [2, 7], "pad_token_id": 3})
    (source / "tokenizer.json").write_text("{}")
    notes = convert(source, tmp_path / "b", "meta").notes
    assert [
        words
        for words in ("64 tokens", "eos_token_ids 2, 7", "pad_token_id 3", "tokenizer.json")
        if not any(words in note for note in notes)
    ] == []
    assert len(notes) == 4


def test_a_folder_that_meta_says_completely_has_no_notes(tmp_path):
    source = write_folder(tmp_path / "a", CONFIG | {"max_position_embeddings": 4096})
    assert convert(source, tmp_path / "b", "meta").notes == ()


REFUSED = {
    "attention_bias": (dict(attention_bias=True), "attention_bias"),
    "mlp_bias": (dict(mlp_bias=True), "mlp_bias"),
    "head_dim": (dict(head_dim=6), "head_dim"),
    "linear scaling": (dict(rope_scaling=RopeScaling("linear", 2.0)), "rope_scaling"),
    "llama3 of another length": (dict(rope_scaling=RopeScaling("llama3", 8.0, 64, 1.0, 4.0)), "rope_scaling"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_change_the_result_is_refused_and_nothing_is_left_behind(tmp_path, case):
    changes, key = REFUSED[case]
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4, **changes
    )
    save_model(Llama.random(config), tmp_path / "a")
    with pytest.raises(ConfigError) as caught:
        convert(tmp_path / "a", tmp_path / "b", "meta")
    assert caught.value.key == key
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    "name",
    ["llama-2-7b", "llama-2-70b", "llama-3-8b", "llama-3.1-405b", "llama-3.2-1b", "codellama-34b", "tinyllama-1.1b"],
)
def test_a_published_configuration_survives_params(tmp_path, name):
    config = preset(name)
    write_params(config, tmp_path)
    back = read_params(tmp_path).config(config.vocab_size, config.dtype)
    different = {key for key in vars(config) if getattr(back, key) != getattr(config, key)}
    assert different <= {"tie_word_embeddings", "eos_token_ids"}  # Llama 3's end ids have grown since


@pytest.mark.parametrize("size", [1, 7, 24, 43, 100, 1000, 12345, 14336])
@pytest.mark.parametrize("dim", [16, 64, 4096])
def test_any_feed_forward_size_can_be_said(tmp_path, dim, size):
    config = LlamaConfig(
        vocab_size=40, hidden_size=dim, intermediate_size=size, num_hidden_layers=1, num_attention_heads=4
    )
    write_params(config, tmp_path)
    params = json.loads((tmp_path / "params.json").read_text())
    assert feed_forward_size(dim, params["multiple_of"], params.get("ffn_dim_multiplier")) == size


def test_the_target_must_be_new_or_empty(tmp_path):
    source = write_meta(tmp_path / "a")
    (tmp_path / "empty").mkdir()
    convert(source, tmp_path / "empty", "hf")
    before = (tmp_path / "empty" / "config.json").read_bytes()
    for target in (tmp_path / "empty", source, source / "params.json"):
        with pytest.raises(WeightsError, match="in use") as caught:
            convert(source, target, "hf")
        assert caught.value.key == "target"
    assert (tmp_path / "empty" / "config.json").read_bytes() == before


def test_a_folder_that_is_in_that_form_already_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="in that form already"):
        convert(write_meta(tmp_path / "a"), tmp_path / "b", "meta")
    assert not (tmp_path / "b").exists()


def test_a_full_disk_leaves_nothing_behind(tmp_path, monkeypatch):
    source = write_folder(tmp_path / "a")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("torch.save", full)
    with pytest.raises(WeightsError, match="No space left"):
        convert(source, tmp_path / "b", "meta")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_weights_that_are_not_finite_are_refused(tmp_path):
    source = write_folder(tmp_path / "a")
    edit_tensors(source, lambda t: t["model.norm.weight"].__setitem__(2, torch.inf))
    with pytest.raises(WeightsError) as caught:
        convert(source, tmp_path / "b", "meta")
    assert caught.value.key == "model.norm.weight"


def test_the_command_says_what_it_wrote_and_what_it_could_not(tmp_path, capsys):
    source = write_folder(tmp_path / "a")
    edit_config(source, eos_token_id=[2, 9])
    assert main(["convert", str(source), str(tmp_path / "b"), "--to", "meta"]) == 0
    out = capsys.readouterr().out
    assert "21 tensors" in out and "eos_token_ids 2, 9" in out
    assert main(["convert", str(source), str(tmp_path / "b"), "--to", "meta"]) == 2
    assert "in use" in capsys.readouterr().err


def test_params_without_n_kv_heads_convert(tmp_path):
    params = {key: value for key, value in PARAMS.items() if key != "n_kv_heads"}
    tensors = meta_weights()
    generator = torch.Generator().manual_seed(9)
    for n in range(2):
        for name in ("wk", "wv"):
            tensors[f"layers.{n}.attention.{name}.weight"] = torch.randn(32, 32, generator=generator)
    convert(write_meta(tmp_path / "a", tensors, params), tmp_path / "b", "hf")
    assert json.loads((tmp_path / "b" / "config.json").read_text())["num_key_value_heads"] == 4
    convert(tmp_path / "b", tmp_path / "c", "meta")
    assert_same_bytes(archive(tmp_path / "c"), tensors)
