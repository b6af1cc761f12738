"""Presets: the published parameter counts, and the facts that copies get wrong."""

import pytest

from llama_core import Llama, preset
from llama_core.errors import ConfigError
from llama_core.presets import preset_names, preset_source

#: Sums over the shapes of the published files.
PARAMETERS = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-3-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "codellama-34b": 33_743_970_304,
    "tinyllama-1.1b": 1_100_048_384,
}


def test_all_presets_are_here():
    assert sorted(preset_names()) == sorted(PARAMETERS)


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_count(name):
    model = Llama(preset(name))  # on the meta device: shapes without memory
    assert sum(parameter.numel() for _, parameter in model.named_parameters()) == PARAMETERS[name]
    assert preset(name).num_parameters == PARAMETERS[name]


@pytest.mark.parametrize(
    "sizes",
    [
        dict(num_key_value_heads=1),
        dict(head_dim=14),
        dict(attention_bias=True, mlp_bias=True, num_key_value_heads=2),
        dict(tie_word_embeddings=True, vocab_size=1001),
    ],
    ids=str,
)
def test_the_formula_for_the_number_of_parameters_counts_what_the_model_has(sizes):
    config = preset("tinyllama-1.1b").replace(
        **dict(hidden_size=48, intermediate_size=100, num_hidden_layers=3, num_attention_heads=4, head_dim=12) | sizes
    )
    assert config.num_parameters == sum(parameter.numel() for parameter in Llama(config).parameters())


@pytest.mark.parametrize(
    "name, factor", [("llama-3.1-8b", 8), ("llama-3.1-405b", 8), ("llama-3.2-1b", 32), ("llama-3.2-3b", 32)]
)
def test_rotary_factor_is_8_for_3_1_and_32_for_3_2(name, factor):
    scaling = preset(name).rope_scaling
    assert (scaling.kind, scaling.factor, scaling.original_max_position_embeddings) == ("llama3", factor, 8192)


@pytest.mark.parametrize("name", ["llama-3.2-1b", "llama-3.2-3b"])
def test_only_the_small_models_tie_their_head(name):
    tied = [n for n in PARAMETERS if preset(n).tie_word_embeddings]
    assert name in tied and len(tied) == 2


def test_context_lengths():
    # 2: 4096; CodeLlama 16384; TinyLlama 2048; 3: 8192; 3.1 and 3.2: 131072
    lengths = [preset(name).max_position_embeddings for name in PARAMETERS]
    assert lengths == [4096] * 3 + [8192] * 2 + [131072] * 5 + [16384, 2048]


def test_rotary_bases():
    bases = {name: preset(name).rope_theta for name in PARAMETERS}
    assert {n: b for n, b in bases.items() if b == 10000} == dict.fromkeys(
        ["llama-2-7b", "llama-2-13b", "llama-2-70b", "tinyllama-1.1b"], 10000
    )
    assert bases["codellama-34b"] == 1e6 and bases["llama-3-8b"] == bases["llama-3.2-1b"] == 500000


def test_every_preset_names_its_source():
    assert preset_source("llama-2-7b") == "meta-llama/Llama-2-7b-hf"
    assert len({preset_source(name) for name in PARAMETERS}) == 12


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ConfigError, match="llama-4") as error:
        preset("llama-4")
    assert "llama-3.2-1b" in error.value.expected


def test_cache_of_llama_2_7b_takes_half_a_megabyte_per_position():
    # 2 · 32 layers · 32 heads · 128 coordinates · 2 bytes = 524288
    assert preset("llama-2-7b").kv_cache_bytes(1) == 524_288
    assert preset("llama-3-8b").kv_cache_bytes(8192, batch_size=2) == 2 * 8192 * 524_288 // 4
