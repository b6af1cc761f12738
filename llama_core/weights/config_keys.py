"""What the keys of a Hugging Face ``config.json`` mean to us: read, harmless, or refused unless they change nothing.

Source of names and defaults: transformers 5.23, ``configuration_*.py`` of ``models/llama mistral qwen2 qwen3``,
``configuration_utils.py`` and ``modeling_rope_utils.py``; older spellings as transformers 4 wrote them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """A ``model_type``: a Llama, or a neighbour that differs from it by a step or two.

    Attributes:
        architectures: the class names that go with it.
        fields: fields of ``LlamaConfig`` that the kind alone decides.
        biases: the switches for biases that it reads; in other kinds they must be off.
        required: keys whose default differs from Llama's, so that files must state them.
        defaults: what transformers takes where these are absent.
        harmless: keys that change nothing in this kind (see ``REFUSED_UNLESS`` for the others).
    """

    architectures: tuple[str, ...]
    fields: Mapping[str, Any] = field(default_factory=dict)
    biases: tuple[str, ...] = ()
    required: tuple[str, ...] = ("num_key_value_heads",)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    harmless: frozenset[str] = frozenset()


_QWEN = dict(max_position_embeddings=32768, bos_token_id=None, eos_token_id=())
_UNUSED_WINDOW = frozenset({"sliding_window", "max_window_layers"})  # use_sliding_window, which they need, is refused

#: model_type -> what it computes beside a Llama. The second architecture of llama: files of early 2023.
KINDS = {
    "llama": Kind(("LlamaForCausalLM", "LLaMAForCausalLM"), {}, ("attention_bias", "mlp_bias"), ()),
    "mistral": Kind(("MistralForCausalLM",), defaults=dict(max_position_embeddings=131072, sliding_window=4096)),
    "qwen2": Kind(("Qwen2ForCausalLM",), dict(qkv_bias=True), defaults=_QWEN, harmless=_UNUSED_WINDOW),
    "qwen3": Kind(
        ("Qwen3ForCausalLM",),
        dict(qk_norm=True),
        ("attention_bias",),
        defaults=_QWEN | dict(head_dim=128),
        harmless=_UNUSED_WINDOW,
    ),
}
ACTIVATION_NAMES = ("silu", "swish")  # two names of one function

#: Keys that become fields of LlamaConfig.
READ = frozenset(
    """
    model_type architectures vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads
    num_key_value_heads head_dim hidden_act max_position_embeddings rms_norm_eps rope_theta rope_scaling
    rope_parameters attention_bias mlp_bias tie_word_embeddings torch_dtype dtype bos_token_id eos_token_id
    pad_token_id
    """.split()
)

#: Keys that change nothing that the model computes, whatever they hold: training, bookkeeping, serving.
HARMLESS = frozenset(
    """
    _name_or_path transformers_version initializer_range use_cache pretraining_tp attention_dropout hidden_dropout
    return_dict output_hidden_states output_attentions chunk_size_feed_forward id2label label2id num_labels
    problem_type finetuning_task task_specific_params tokenizer_class prefix torchscript gradient_checkpointing
    _attn_implementation _attn_implementation_internal attn_implementation _flash_attn_2_enabled
    _attn_implementation_autoset max_sequence_length model_max_length tokenizer_model_max_length
    tokenizer_padding_side bad_words_ids begin_suppress_tokens suppress_tokens decoder_start_token_id
    sep_token_id forced_bos_token_id forced_eos_token_id do_sample early_stopping length_penalty max_length
    min_length no_repeat_ngram_size num_beams num_beam_groups num_return_sequences output_scores
    remove_invalid_values repetition_penalty encoder_no_repeat_ngram_size exponential_decay_length_penalty
    diversity_penalty temperature top_k top_p typical_p return_dict_in_generate use_bfloat16 tf_legacy_loss
    is_decoder cross_attention_hidden_size base_model_tp_plan base_model_pp_plan unsloth_version unsloth_fixed
    bos_token eos_token pad_token unk_token_id
    """.split()
)

ALL_FULL_ATTENTION = "a list with every entry full_attention"

#: Keys that would change the result, with the values that switch them off. Anything else in them is refused by name.
REFUSED_UNLESS: dict[str, tuple[Any, ...]] = {
    "quantization_config": (None,),
    "compression_config": (None,),
    "auto_map": (None, {}),
    "sliding_window": (None,),
    "use_sliding_window": (None, False),
    "max_window_layers": (None,),
    "attention_chunk_size": (None,),
    "layer_types": (None, ALL_FULL_ATTENTION),
    "per_layer_config": (None, {}),
    "block_configs": (None,),
    "no_rope_layers": (None, []),
    "partial_rotary_factor": (None, 1),
    "rotary_pct": (None, 1),
    "rope_interleaved": (None, False),
    "original_max_position_embeddings": (None,),
    "rope_local_base_freq": (None,),
    "pruned_heads": (None, {}),
    "is_encoder_decoder": (None, False),
    "add_cross_attention": (None, False),
    "tie_encoder_decoder": (None, False),
    "use_bidirectional_attention": (None, False),
    "is_causal": (None, True),
    "qkv_bias": (None, False),
    "use_qkv_bias": (None, False),
    "bias": (None, False),
    "use_bias": (None, False),
    "lm_head_bias": (None, False),
    "qk_norm": (None, False),
    "use_qk_norm": (None, False),
    "qk_layernorm": (None, False),
    "clip_qkv": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logits_soft_cap": (None,),
    "query_pre_attn_scalar": (None,),
    "attention_multiplier": (None,),
    "embedding_multiplier": (None, 1),
    "residual_multiplier": (None, 1),
    "logits_scaling": (None, 1),
    "logit_scale": (None, 1),
    "scale_emb": (None, 1),
    "scale_depth": (None,),
    "num_experts": (None, 0),
    "num_local_experts": (None, 0),
    "n_routed_experts": (None, 0),
    "vision_config": (None,),
    "text_config": (None,),
    "audio_config": (None,),
}

#: Keys of ``rope_scaling`` or ``rope_parameters`` -> the kinds of scaling that read them.
ROPE_KEYS = {
    "factor": ("linear", "dynamic", "yarn", "llama3"),
    "original_max_position_embeddings": ("yarn", "llama3"),
    "low_freq_factor": ("llama3",),
    "high_freq_factor": ("llama3",),
    "beta_fast": ("yarn",),
    "beta_slow": ("yarn",),
    "attention_factor": ("yarn",),
    "mscale": ("yarn",),
    "mscale_all_dim": ("yarn",),
    "truncate": ("yarn",),
}
#: What a scaling cannot do without. (transformers fills the original length of yarn with max_position_embeddings.)
ROPE_REQUIRED = {
    "linear": ("factor",),
    "dynamic": ("factor",),
    "yarn": (),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
ROPE_HARMLESS = frozenset({"finetuned"})  # a note in the files of the yarn authors
