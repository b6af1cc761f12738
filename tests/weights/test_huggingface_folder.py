"""Folders: which tensors there are, where the index says they lie, and what links lead to."""

import json

import pytest
import torch
from model_folders import (
    CONFIG,
    edit_config,
    edit_tensors,
    read_index,
    weights,
    write_folder,
    write_index,
    write_shards,
)
from safetensors.torch import save_file

from llama_core.errors import WeightsError
from llama_core.weights import load_model, model_folder

Q0 = "model.layers.0.self_attn.q_proj.weight"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def rename(tensors, change):
    for name in list(tensors):
        tensors[change(name)] = tensors.pop(name)


def only(tensors, names):
    for name in set(tensors) - set(names):
        del tensors[name]


META = {
    "model.embed_tokens": "tok_embeddings",
    "self_attn.q_proj": "attention.wq",
    "lm_head": "output",
    "model.layers": "layers",
}


def to_meta(name):
    for ours, theirs in META.items():
        name = name.replace(ours, theirs)
    return name


#: what is wrong -> (how the tensors are changed, the key that is named, words of the whole error)
BAD_TENSORS = {
    "one missing": (lambda t: t.pop(Q0), Q0, ["1 missing", Q0, "download"]),
    "norm missing": (lambda t: t.pop("model.norm.weight"), "model.norm.weight", ["1 missing"]),
    "head missing": (lambda t: t.pop("lm_head.weight"), "lm_head.weight", ["tie_word_embeddings"]),
    "one too many": (lambda t: t.update(extra=torch.ones(3)), "extra", ["1 unexpected", "extra"]),
    "misnamed": (
        lambda t: t.update({"model.layers.0.self_attn.query.weight": t.pop(Q0)}),
        Q0,
        ["1 missing", "1 unexpected", "self_attn.query"],
    ),
    "a layer missing": (
        lambda t: [t.pop(n) for n in list(t) if ".layers.1." in n],
        "model.layers.1.input_layernorm.weight",
        ["9 missing", "hold 1 layers"],
    ),
    "a layer too many": (
        lambda t: t.update({n.replace(".1.", ".2."): v.clone() for n, v in t.items() if ".layers.1." in n}),
        "model.layers.2.input_layernorm.weight",
        ["9 unexpected", "hold 3 layers"],
    ),
    "no prefix": (lambda t: rename(t, lambda n: n.removeprefix("model.")), None, ["lack the prefix 'model.'"]),
    "a wrapper's prefix": (lambda t: rename(t, lambda n: "module." + n), None, ["begin with 'module.'"]),
    "a compiler's prefix": (lambda t: rename(t, lambda n: "_orig_mod." + n), None, ["begin with '_orig_mod.'"]),
    "Meta's names": (lambda t: rename(t, to_meta), None, ["Meta's names"]),
    "GGUF's names": (
        lambda t: rename(t, lambda n: n.replace("model.layers", "blk")),
        None,
        ["GGUF's names", "18 unexpected"],
    ),
    "an adapter": (
        lambda t: (
            t.clear(),
            t.update({"base_model.model." + Q0.replace("weight", "lora_A.weight"): torch.ones(2, 16)}),
        ),
        None,
        ["adapter", "21 missing"],
    ),
    "quantised": (
        lambda t: t.update({Q0.replace("weight", "qweight"): t.pop(Q0)}),
        Q0,
        ["quantised", "qweight"],
    ),
    "biases": (
        lambda t: t.update({Q0.replace("weight", "bias"): torch.ones(16)}),
        Q0.replace("weight", "bias"),
        ["attention_bias"],
    ),
    "transposed": (
        lambda t: t.update({"model.layers.1.mlp.down_proj.weight": torch.ones(24, 16)}),
        "model.layers.1.mlp.down_proj.weight",
        ["1 of the wrong shape", "[24, 16] instead of [16, 24]", "transposed"],
    ),
    "vocabulary padded": (
        lambda t: t.update({"model.embed_tokens.weight": torch.ones(48, 16), "lm_head.weight": torch.ones(48, 16)}),
        "model.embed_tokens.weight",
        ["set vocab_size to 48"],
    ),
    "key heads": (
        lambda t: t.update({Q0.replace("q_proj", "k_proj"): torch.ones(16, 16)}),
        Q0.replace("q_proj", "k_proj"),
        ["num_key_value_heads"],
    ),
    "an axis too many": (
        lambda t: t.update({"model.norm.weight": torch.ones(16, 1)}),
        "model.norm.weight",
        ["[16, 1] instead of [16]"],
    ),
    "int8": (lambda t: t.update({Q0: t[Q0].to(torch.int8)}), Q0, ["1 not floating-point", "I8"]),
    "bool": (lambda t: t.update({Q0: t[Q0] > 0}), Q0, ["BOOL"]),
    "complex": (lambda t: t.update({Q0: t[Q0].to(torch.complex64)}), Q0, ["C64"]),
    "float8": (lambda t: t.update({Q0: t[Q0].to(torch.float8_e4m3fn)}), Q0, ["F8_E4M3"]),
    "nothing": (lambda t: t.clear(), None, ["weight files are missing"]),
}


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_wrong_tensors_are_all_listed_with_a_hint(tmp_path, case):
    edit, key, words = BAD_TENSORS[case]
    folder = write_folder(tmp_path / "model")
    edit_tensors(folder, edit)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    error = caught.value
    assert error.file.startswith(str(folder))
    assert key in (None, error.key) and error.key
    assert error.expected and error.actual and error.hint
    for word in words:
        assert word in str(error)


def test_every_difference_is_in_the_one_error(tmp_path):
    folder = write_folder(tmp_path / "model")

    def spoil(tensors):
        del tensors["model.norm.weight"]
        tensors["stray"] = torch.ones(2)
        tensors["lm_head.weight"] = torch.ones(3, 16)
        tensors[Q0] = tensors[Q0].to(torch.int32)

    edit_tensors(folder, spoil)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    for words in ("missing: model.norm.weight", "unexpected: stray", "wrong shape: lm_head.weight", f"{Q0}: I32"):
        assert words in caught.value.message


@pytest.mark.parametrize(
    "changes",
    [{"num_hidden_layers": 1_000_000}, {"hidden_size": 2**20, "head_dim": 4}, {"vocab_size": 2**31 - 1}],
    ids=str,
)
def test_a_configuration_far_larger_than_the_files_is_refused_before_building(tmp_path, changes):
    folder = write_folder(tmp_path / "model")
    edit_config(folder, **changes)
    with pytest.raises(WeightsError, match="much larger model") as caught:
        load_model(folder)
    assert caught.value.file == str(folder / "config.json")
    assert "parameters" in caught.value.expected and "parameters" in caught.value.actual


def harmless(tensors):
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    tensors["model.rotary_emb.inv_freq"] = torch.ones(2)


def test_stored_rotary_frequencies_are_passed_over(tmp_path):
    folder = write_folder(tmp_path / "model")
    edit_tensors(folder, harmless)
    assert torch.equal(load_model(folder).lm_head.weight, weights()["lm_head.weight"])


def test_a_tied_head_that_is_stored_and_equal_is_accepted(tmp_path):
    folder = write_folder(tmp_path / "model")
    edit_config(folder, tie_word_embeddings=True)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    model = load_model(folder)
    assert model.lm_head.weight is model.embed_tokens.weight


@pytest.mark.parametrize("dtype", [None, "float16"])
def test_a_tied_head_that_is_stored_and_differs_is_refused(tmp_path, dtype):
    folder = write_folder(tmp_path / "model")
    edit_config(folder, tie_word_embeddings=True)
    with pytest.raises(WeightsError, match="not the embedding") as caught:
        load_model(folder, dtype=dtype)
    assert (caught.value.key, caught.value.file) == ("lm_head.weight", str(folder / "model.safetensors"))


def test_a_tied_head_of_another_shape_is_refused(tmp_path):
    folder = write_folder(tmp_path / "model")
    edit_config(folder, tie_word_embeddings=True)
    edit_tensors(folder, lambda t: t.update({"lm_head.weight": torch.ones(8, 16)}))
    with pytest.raises(WeightsError, match="another shape") as caught:
        load_model(folder)
    assert caught.value.key == "lm_head.weight"


def test_shards_load_as_the_single_file_does(tmp_path):
    model = load_model(write_shards(tmp_path / "model"))
    for name, values in weights().items():
        assert torch.equal(model.state_dict()[name.removeprefix("model.")], values)


#: file names that an index must not lead to
OUTSIDE = [
    "../model.safetensors",
    "..",
    ".",
    "",
    "/etc/passwd",
    "sub/model.safetensors",
    "..\\m",
    "C:m",
    "a\0b",
    "a\nb",
]


@pytest.mark.parametrize("name", OUTSIDE, ids=repr)
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path, name):
    save_file({Q0: torch.ones(16, 16)}, tmp_path / "model.safetensors")
    folder = write_shards(tmp_path / "model")
    (folder / "sub").mkdir()
    write_index(folder, read_index(folder) | {Q0: name})
    with pytest.raises(WeightsError, match="not a plain name") as caught:
        load_model(folder)
    assert caught.value.key == Q0
    assert caught.value.file == str(folder / "model.safetensors.index.json")


def in_both(folder):
    tensors = weights()
    save_file({n: t for n, t in tensors.items() if ".layers.0." in n or n == "lm_head.weight"}, folder / FIRST)


def swapped(folder):
    write_index(folder, read_index(folder) | {Q0: SECOND})


def unnamed(folder):
    write_index(folder, {name: file for name, file in read_index(folder).items() if name != Q0})


def promised(folder):
    write_index(folder, read_index(folder) | {"model.ghost": FIRST})


#: what is wrong -> (how the folder is spoilt, file, key, words)
BAD_SHARDS = {
    "a tensor in two shards": (in_both, FIRST, "lm_head.weight", "but the index says " + SECOND),
    "a tensor in the wrong shard": (swapped, FIRST, Q0, "but the index says " + SECOND),
    "a tensor that the index does not name": (unnamed, FIRST, Q0, "does not name it"),
    "a tensor that is in no shard": (promised, FIRST, "model.ghost", "but it is not"),
    "a shard missing": (lambda f: (f / SECOND).unlink(), SECOND, "weight_map", "incomplete"),
    "a shard cut off": (
        lambda f: (f / SECOND).write_bytes((f / SECOND).read_bytes()[:-4]),
        SECOND,
        "model.norm.weight",
        "cut off",
    ),
    "both forms": (
        lambda f: save_file(weights(), f / "model.safetensors"),
        "model.safetensors.index.json",
        "weight_map",
        "two sets",
    ),
    "weight_map missing": (
        lambda f: (f / "model.safetensors.index.json").write_text("{}"),
        "model.safetensors.index.json",
        "weight_map",
        "no weight_map",
    ),
    "weight_map a list": (
        lambda f: write_index(f, [FIRST]),
        "model.safetensors.index.json",
        "weight_map",
        "no weight_map",
    ),
    "weight_map empty": (lambda f: write_index(f, {}), "model.safetensors.index.json", "weight_map", "no weight_map"),
    "a number for a file": (
        lambda f: write_index(f, read_index(f) | {Q0: 1}),
        "model.safetensors.index.json",
        Q0,
        "the number 1",
    ),
    "index no JSON": (
        lambda f: (f / "model.safetensors.index.json").write_text("<html>"),
        "model.safetensors.index.json",
        None,
        "not JSON",
    ),
    "index with a key twice": (
        lambda f: (f / "model.safetensors.index.json").write_text('{"weight_map": {"a": "b", "a": "c"}}'),
        "model.safetensors.index.json",
        "a",
        "more than once",
    ),
}


@pytest.mark.parametrize("case", BAD_SHARDS)
def test_bad_shards_are_refused_with_file_and_tensor(tmp_path, case):
    spoil, file, key, words = BAD_SHARDS[case]
    folder = write_shards(tmp_path / "model")
    spoil(folder)
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert caught.value.file == str(folder / file)
    assert key is None or caught.value.key == key
    assert words in str(caught.value)


def test_a_tensor_in_two_shards_is_refused_wherever_the_index_puts_it(tmp_path):
    folder = write_shards(tmp_path / "model")
    tensors = weights()
    save_file({n: t for n, t in tensors.items() if ".layers.0." not in n or n == Q0}, folder / SECOND)
    with pytest.raises(WeightsError, match="is in two shards") as caught:
        load_model(folder)
    assert caught.value.key == Q0


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
def test_a_link_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    folder = write_folder(tmp_path / "model")
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="leads out of the folder") as caught:
        load_model(folder)
    assert caught.value.file == str(folder / name)
    assert caught.value.actual == str(tmp_path / "elsewhere")


def test_a_link_within_the_folder_is_followed(tmp_path):
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").rename(folder / "step-1000.weights")
    (folder / "model.safetensors").symlink_to("step-1000.weights")
    assert torch.equal(load_model(folder).lm_head.weight, weights()["lm_head.weight"])


def test_the_links_of_the_hub_cache_are_followed(tmp_path):
    repository = tmp_path / "models--someone--small"
    snapshot = repository / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    (repository / "blobs").mkdir()
    write_folder(snapshot)
    for number, name in enumerate(["config.json", "model.safetensors"]):
        (snapshot / name).rename(repository / "blobs" / f"{number:064x}")
        (snapshot / name).symlink_to(f"../../blobs/{number:064x}")
    assert torch.equal(load_model(snapshot).lm_head.weight, weights()["lm_head.weight"])


def test_a_link_from_the_hub_cache_to_elsewhere_is_refused(tmp_path):
    snapshot = tmp_path / "models--someone--small" / "snapshots" / "0123456789abcdef"
    snapshot.mkdir(parents=True)
    write_folder(snapshot)
    (snapshot / "model.safetensors").rename(tmp_path / "elsewhere")
    (snapshot / "model.safetensors").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(WeightsError, match="leads out of the folder"):
        load_model(snapshot)


def test_a_broken_link_is_called_one(tmp_path):
    folder = write_folder(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("gone")
    with pytest.raises(WeightsError, match="a link to a file that is not there"):
        load_model(folder)


#: files in place of model.safetensors -> a word of the error
NO_WEIGHTS = {
    "nothing": ([], "incomplete"),
    "an adapter": (["adapter_config.json", "adapter_model.safetensors"], "adapter"),
    "shards without an index": ([FIRST, SECOND], "without model.safetensors.index.json"),
    "GGUF": (["model.Q4_K_M.gguf"], "GGUF"),
    "pickles": (["pytorch_model.bin"], "pickle"),
    "a Meta folder": (["params.json", "consolidated.00.pth"], "Meta"),
    "another name": (["weights.safetensors"], "rename it to model.safetensors"),
}


@pytest.mark.parametrize("case", NO_WEIGHTS)
def test_a_folder_without_weights_says_what_it_holds(tmp_path, case):
    names, words = NO_WEIGHTS[case]
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for name in names:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError) as caught:
        load_model(tmp_path)
    assert (caught.value.file, caught.value.key) == (str(tmp_path), "model.safetensors")
    assert words in f"{caught.value.actual} {caught.value.hint}"


@pytest.mark.parametrize("name", ["llama-2-7b", "no/such/folder", "a\0b", ""])
def test_a_name_that_is_no_folder_lists_what_there_is(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError) as caught:
        load_model(name)
    assert caught.value.key == "folder"
    assert "stories" in str(caught.value)


def test_a_file_is_not_taken_for_its_folder(tmp_path):
    folder = write_folder(tmp_path / "model")
    with pytest.raises(WeightsError, match="a regular file, not a folder"):
        model_folder(folder / "model.safetensors")


def test_stories_is_the_folder_that_comes_with_the_package():
    assert model_folder("stories").parts[-2:] == ("llama_core", "stories")


@pytest.mark.parametrize(("key", "value"), [("dtype", "int8"), ("dtype", torch.int64), ("device", "abacus")])
def test_an_impossible_argument_is_named(tmp_path, key, value):
    folder = write_folder(tmp_path / "model")
    with pytest.raises(ValueError) as caught:
        load_model(folder, **{key: value})
    assert caught.value.key == key
