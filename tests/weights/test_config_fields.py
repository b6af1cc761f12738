"""Every field of transformers' configurations is used, harmless or refused by name: none is passed over unawares."""

import dataclasses
import json

import pytest
import torch
import transformers

from llama_core.errors import ConfigError
from llama_core.weights import read_config

KINDS = ("Llama", "Mistral", "Qwen2", "Qwen3")
SIZES = dict(
    vocab_size=40,
    hidden_size=32,
    intermediate_size=24,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)

#: What is read: another value gives another ``LlamaConfig``.
USED = {
    "vocab_size": 41,
    "hidden_size": 48,
    "intermediate_size": 25,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "max_position_embeddings": 65,
    "rms_norm_eps": 2e-5,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
    "dtype": "bfloat16",
    "bos_token_id": 3,
    "eos_token_id": 4,
    "pad_token_id": 5,
}
#: What changes nothing that is computed, whatever it holds.
HARMLESS = {
    "transformers_version": "5.0.0",
    "output_hidden_states": True,
    "output_attentions": True,
    "return_dict": False,
    "chunk_size_feed_forward": 2,
    "id2label": {"0": "a"},
    "label2id": {"a": 0},
    "problem_type": "regression",
    "initializer_range": 0.5,
    "use_cache": False,
    "attention_dropout": 0.5,
    "_name_or_path": "somewhere",
}
#: What would change the result, or says that this is another model.
REFUSED = {
    "model_type": "gemma",
    "architectures": ["GemmaForCausalLM"],
    "hidden_act": "gelu",
    "is_encoder_decoder": True,
}
_NO_WINDOW = {"sliding_window": 3, "max_window_layers": 1}  # read only with use_sliding_window
_SOME_WINDOW = {"use_sliding_window": True, "layer_types": ["full_attention", "sliding_attention"]}
#: The fields that a kind has of its own: (used, harmless, refused).
OWN = {
    "Llama": ({"head_dim": 10, "attention_bias": True, "mlp_bias": True}, {"pretraining_tp": 2}, {}),
    "Mistral": ({"head_dim": 10, "sliding_window": 5}, {}, {}),
    "Qwen2": ({}, _NO_WINDOW, _SOME_WINDOW),
    "Qwen3": ({"head_dim": 10, "attention_bias": True}, _NO_WINDOW, _SOME_WINDOW),
}
#: Fields of other models, and of code built on these, which would change the result here.
FOREIGN = {
    "quantization_config": {"quant_method": "gptq", "bits": 4},
    "partial_rotary_factor": 0.5,
    "attention_multiplier": 0.1,
    "embedding_multiplier": 12.0,
    "residual_multiplier": 0.2,
    "logits_scaling": 8.0,
    "logit_scale": 0.06,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
    "query_pre_attn_scalar": 256,
    "attention_chunk_size": 8192,
    "no_rope_layers": [1, 0],
    "num_local_experts": 8,
    "use_bidirectional_attention": True,
    "clip_qkv": 8.0,
}


def fields(kind):
    """Of the class, and those that it writes besides."""
    made = getattr(transformers, f"{kind}Config")
    return {field.name for field in dataclasses.fields(made)} | set(made(**SIZES).to_dict())


def table(kind):
    """Field -> what it is, and another value for it."""
    told = {}
    for what, common, own in zip(("used", "harmless", "refused"), (USED, HARMLESS, REFUSED), OWN[kind], strict=True):
        told |= {field: (what, value) for field, value in (common | own).items()}
    return told


ROWS = [(kind, field, *row) for kind in KINDS for field, row in table(kind).items()]


def read(tmp_path, kind, **changes):
    made = getattr(transformers, f"{kind}Config")(**SIZES)
    content = made.to_dict() | {"architectures": [f"{kind}ForCausalLM"]} | changes
    (tmp_path / "config.json").write_text(json.dumps(content))
    return read_config(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_the_table_has_every_field_of_transformers_and_no_other(kind):
    assert set(table(kind)) == fields(kind)


@pytest.mark.parametrize(("kind", "field", "what", "value"), ROWS)
def test_a_field_is_used_harmless_or_refused_as_the_table_says(tmp_path, kind, field, what, value):
    if what == "refused":
        with pytest.raises(ConfigError) as caught:
            read(tmp_path, kind, **{field: value})
        assert caught.value.key == field
    else:
        changed = read(tmp_path, kind, **{field: value}) != read(tmp_path, kind)
        assert changed == (what == "used")


#: Harmless fields by another value. ``return_dict`` decides the form of what comes back, not its values.
UNCHANGING = [
    (kind, field, {0: "a"} if field == "id2label" else value)
    for kind, field, what, value in ROWS
    if what == "harmless" and field != "return_dict"
]


@pytest.mark.parametrize(("kind", "field", "value"), UNCHANGING)
def test_what_is_called_harmless_changes_no_logit_of_transformers(kind, field, value):
    def logits(**changes):
        made = getattr(transformers, f"{kind}Config")(**(SIZES | changes))
        model = getattr(transformers, f"{kind}ForCausalLM")(made).eval()
        generator = torch.Generator().manual_seed(3)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            ids = torch.arange(12)[None]
            return model(ids).logits

    assert torch.equal(logits(**{field: value}), logits())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("field", FOREIGN)
def test_what_other_models_have_is_refused_by_name_in_every_kind(tmp_path, kind, field):
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, kind, **{field: FOREIGN[field]})
    assert caught.value.key == field


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_of_some_coordinates_only_is_refused_within_the_rotary_section(tmp_path, kind):
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, kind, rope_parameters=rope)
    assert "partial_rotary_factor" in caught.value.key
