"""Meta folders as they load: names, rows, sizes that follow, files that belong together."""

import json
import shutil

import pytest
import torch
from bad_meta import BAD_PARAMS, BAD_TENSORS
from meta_folders import PARAMS, as_state_dict, meta_weights, write_meta, write_shards

from llama_core import Llama, RopeScaling, Tokenizer, generate
from llama_core.errors import ConfigError, WeightsError
from llama_core.weights import describe, load_model
from llama_core.weights.meta_params import feed_forward_size, read_params


def assert_same_bits(found, wanted):
    assert set(found) == set(wanted)
    for name, values in wanted.items():
        assert found[name].dtype == values.dtype and torch.equal(found[name], values), name


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_every_value_arrives_under_our_name_and_in_our_order(tmp_path, dtype, mmap):
    tensors = meta_weights(dtype=dtype)
    model = load_model(write_meta(tmp_path / "m", tensors), mmap=mmap)
    assert_same_bits(model.state_dict(), as_state_dict(tensors))
    assert model.config.dtype == str(dtype).removeprefix("torch.")


@pytest.mark.parametrize("embedding_axis", [0, 1])
@pytest.mark.parametrize("vocab_size", [40, -1])
@pytest.mark.parametrize("count", [2, 4])
def test_a_model_in_several_files_is_the_model_in_one(tmp_path, count, vocab_size, embedding_axis):
    if count == 4:  # each file needs a whole key head
        params = PARAMS | {"vocab_size": vocab_size, "n_heads": 8, "n_kv_heads": 4}
    else:
        params = PARAMS | {"vocab_size": vocab_size}
    whole = load_model(write_meta(tmp_path / "whole", params=params))
    parts = load_model(write_shards(tmp_path / "parts", count, embedding_axis, params))
    assert parts.config == whole.config
    assert_same_bits(parts.state_dict(), whole.state_dict())


def test_a_dtype_that_was_asked_for_is_converted_to(tmp_path):
    tensors = meta_weights()
    model = load_model(write_meta(tmp_path / "m", tensors), dtype="bfloat16")
    assert_same_bits(model.state_dict(), {name: t.bfloat16() for name, t in as_state_dict(tensors).items()})


def test_tensors_that_share_a_storage_or_lie_in_columns_are_read_as_they_are(tmp_path):
    tensors = meta_weights()
    tensors["output.weight"] = tensors["tok_embeddings.weight"]
    tensors["layers.0.attention.wo.weight"] = tensors["layers.0.attention.wo.weight"].T
    assert_same_bits(load_model(write_meta(tmp_path / "m", tensors)).state_dict(), as_state_dict(tensors))


def test_the_state_dict_of_a_module_loads_like_a_dictionary(tmp_path):
    module = torch.nn.Module()
    tensors = meta_weights()
    for name, values in tensors.items():
        inner = module
        for part in name.split(".")[:-1]:
            if not hasattr(inner, part):
                inner.add_module(part, torch.nn.Module())
            inner = getattr(inner, part)
        inner.register_parameter("weight", torch.nn.Parameter(values))
    state = module.state_dict()
    assert_same_bits(load_model(write_meta(tmp_path / "m", state)).state_dict(), as_state_dict(tensors))


def test_rope_freqs_are_passed_over_and_listed(tmp_path):
    folder = write_meta(tmp_path / "m", meta_weights() | {"rope.freqs": torch.ones(2)})
    assert_same_bits(load_model(folder).state_dict(), as_state_dict(meta_weights()))
    assert describe(folder).ignored == ("rope.freqs",)


def test_describe_tells_the_form_and_the_sizes_that_follow(tmp_path):
    params = {key: value for key, value in PARAMS.items() if key != "n_kv_heads"} | {"vocab_size": -1}
    tensors = meta_weights()
    for n in range(2):
        for name in ("wk", "wv"):
            tensors[f"layers.{n}.attention.{name}.weight"] = torch.ones(32, 32)
    found = describe(write_meta(tmp_path / "m", tensors, params))
    assert found.format == "meta" and found.files == ("consolidated.00.pth",)
    assert (found.config.vocab_size, found.config.num_key_value_heads, found.config.intermediate_size) == (40, 4, 96)
    assert found.parameters == sum(t.numel() for t in tensors.values())
    assert "Meta" in found.to_text()


#: (dim, multiple_of, ffn_dim_multiplier) -> F as the published Hugging Face configurations state it
PUBLISHED = {
    (4096, 256, None): 11008,  # Llama 2 7B
    (5120, 256, None): 13824,  # Llama 2 13B
    (8192, 4096, 1.3): 28672,  # Llama 2 70B
    (4096, 1024, 1.3): 14336,  # Llama 3 8B
    (16384, 4096, 1.2): 53248,  # Llama 3.1 405B
    (2048, 256, 1.5): 8192,  # Llama 3.2 1B
    (3072, 256, 1.0): 8192,  # Llama 3.2 3B
}


@pytest.mark.parametrize("sizes", PUBLISHED, ids=str)
def test_the_feed_forward_size_is_the_published_one(sizes):
    assert feed_forward_size(*sizes) == PUBLISHED[sizes]


#: what params.json says beside PARAMS -> (context, theta, rotary factor) of the published models
FAMILIES = {
    "Llama 1": ({"norm_eps": 1e-6}, (2048, 1e4, None)),
    "Llama 2": ({}, (4096, 1e4, None)),
    "Code Llama": ({"rope_theta": 1e6}, (16384, 1e6, None)),
    "Llama 3": ({"rope_theta": 5e5}, (8192, 5e5, None)),
    "Llama 3.1": ({"rope_theta": 5e5, "use_scaled_rope": True}, (131072, 5e5, 8.0)),
    "Llama 3.2 1B": ({"rope_theta": 5e5, "use_scaled_rope": True, "dim": 2048, "n_layers": 16}, (131072, 5e5, 32.0)),
    "stated": ({"use_scaled_rope": True, "rope_scaling_factor": 16, "max_seq_len": 77}, (77, 1e4, 16.0)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_context_and_rotary_scaling_are_those_of_the_family(tmp_path, family):
    changes, (context, theta, factor) = FAMILIES[family]
    (tmp_path / "params.json").write_text(json.dumps(PARAMS | changes))
    config = read_params(tmp_path).config(40, "float32")
    assert (config.max_position_embeddings, config.rope_theta) == (context, theta)
    wanted = None if factor is None else RopeScaling("llama3", factor, 8192, 1.0, 4.0)
    assert config.rope_scaling == wanted


def test_llama_3s_vocabulary_has_its_own_ids(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    params = read_params(tmp_path)
    assert params.config(128256, "float32").bos_token_id == 128000
    assert 128009 in params.config(128256, "float32").eos_token_ids
    assert (params.config(32000, "float32").bos_token_id, params.config(32000, "float32").eos_token_ids) == (1, (2,))


@pytest.mark.parametrize("case", BAD_PARAMS)
def test_params_that_cannot_be_right_are_refused_by_name(tmp_path, case):
    changes, key = BAD_PARAMS[case]
    params = {k: v for k, v in (PARAMS | changes).items() if v is not ...}
    folder = write_meta(tmp_path / "m", params=params)
    with pytest.raises(ConfigError) as caught:
        load_model(folder)
    assert (caught.value.key, caught.value.file) == (key, str(folder / "params.json"))
    assert caught.value.expected is not None


@pytest.mark.parametrize("case", BAD_TENSORS)
def test_tensors_that_params_do_not_ask_for_are_listed(tmp_path, case):
    edit, key, words = BAD_TENSORS[case]
    tensors = meta_weights()
    edit(tensors)
    with pytest.raises(WeightsError) as caught:
        load_model(write_meta(tmp_path / "m", tensors))
    assert caught.value.key == key
    assert words in str(caught.value)


def test_a_billion_layers_are_refused_before_anything_is_made_of_them(tmp_path):
    folder = write_meta(tmp_path / "m", params=PARAMS | {"n_layers": 10**9})
    with pytest.raises(WeightsError, match="params.json describes a much larger model"):
        load_model(folder)


def test_a_missing_file_among_several_is_named(tmp_path):
    folder = write_shards(tmp_path / "m", 4, 0)
    (folder / "consolidated.02.pth").unlink()
    with pytest.raises(WeightsError, match="consolidated.02.pth is missing"):
        load_model(folder)


def test_norms_that_differ_between_files_are_refused(tmp_path):
    folder = write_shards(tmp_path / "m", 2, 0)
    shard = torch.load(folder / "consolidated.01.pth", weights_only=True)
    shard["layers.1.ffn_norm.weight"][0] += 1
    torch.save(shard, folder / "consolidated.01.pth")
    with pytest.raises(WeightsError, match="differs") as caught:
        load_model(folder)
    assert (caught.value.key, caught.value.file) == ("layers.1.ffn_norm.weight", str(folder / "consolidated.01.pth"))


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda t: t.pop("norm.weight"), "is not in consolidated.01.pth"),
        (lambda t: t.update({"norm.weight": torch.ones(3)}), "another shape or dtype in consolidated.01.pth"),
        (lambda t: t.update({"norm.weight": t["norm.weight"].half()}), "another shape or dtype in consolidated.01.pth"),
    ],
)
def test_files_of_different_models_are_refused(tmp_path, edit, words):
    folder = write_shards(tmp_path / "m", 2, 1)
    shard = torch.load(folder / "consolidated.01.pth", weights_only=True)
    edit(shard)
    torch.save(shard, folder / "consolidated.01.pth")
    with pytest.raises(WeightsError, match=words) as caught:
        load_model(folder)
    assert caught.value.file == str(folder / "consolidated.01.pth")


def test_params_without_weights_say_what_is_there(tmp_path):
    (tmp_path / "params.json").write_text(json.dumps(PARAMS))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(WeightsError, match="no consolidated.00.pth") as caught:
        load_model(tmp_path)
    assert caught.value.actual == "pytorch_model.bin"


@pytest.fixture(scope="module")
def published(real_models):
    return json.loads((real_models / "stories260K" / "expected.json").read_text())


@pytest.mark.parametrize("files", [1, 2, 4])
def test_someone_elses_meta_folder_gives_the_published_ids(real_models, published, tmp_path, files):
    source = real_models / "stories260K" / "meta"
    folder = tmp_path / "m"
    if files == 1:
        folder = source
    else:
        from meta_folders import cut

        folder.mkdir()
        shutil.copy(source / "params.json", folder)
        shutil.copy(source / "tokenizer.model", folder)
        whole = torch.load(source / "consolidated.00.pth", weights_only=True)
        for n, shard in enumerate(cut(whole, files, embedding_axis=1)):
            torch.save(shard, folder / f"consolidated.{n:02d}.pth")
    model, tokenizer = Llama.from_pretrained(folder, dtype="float32"), Tokenizer.from_pretrained(folder)
    for case in published:
        ids = tokenizer.encode(case["prompt"], bos=True)
        assert ids == case["prompt_ids"]
        expected = case["token_ids"][len(ids) :]
        assert list(generate(model, ids, len(expected), temperature=0)) == expected
