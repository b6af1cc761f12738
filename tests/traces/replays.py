"""Bugs that people met in public, replayed in a whole model: what went wrong there, and what must be found here.

Each is planted in the hand-written Llama as the thread tells it, in every layer, as it was there. ``named`` are the
causes that say it; an empty set means that no cause can be named and that the honest answer is "unknown" in the right
place. Where a bug changes the prompt itself, the comparison refuses the trace and says why.
"""

from dataclasses import dataclass, field

import replayed_methods as told
import torch.nn.functional as F
from planted import ATTENTION, FEED_FORWARD, MODEL, NORM, OUTPUT, QKV, ROPE


@dataclass(frozen=True)
class Replay:
    """One bug.

    Attributes:
        id: in words. link: the thread. story: what went wrong there.
        methods: what it replaces in ``Plain``.
        first: the first wrong tensor and the call in which it is wrong.
        named: ids of causes, any of which names it.
        setting: of ``whole_models``.
        refused: for a prompt without its first token, what the comparison says when it does not accept the trace.
    """

    id: str
    link: str
    story: str
    methods: dict = field(repr=False)
    first: tuple[str, int]
    named: frozenset[str]
    setting: str = "plain"
    refused: str = ""

    @property
    def without_first(self) -> bool:
        """Whether the prompt lacks its first token."""
        return bool(self.refused)


_GITHUB = "https://github.com/"
_Q, _K = ("layers.0.q_rotated", 0), ("layers.0.k", 0)
_NORM = ("layers.0.attention_norm", 0)

REPLAYS = (
    Replay(
        "tinyllama-turned-in-pairs",
        _GITHUB + "jzhang38/TinyLlama/issues/24",
        "The model's rows pair halves, the engine's rotation turned neighbours: gibberish.",
        ROPE["rope-pairs-swapped"],
        _Q,
        frozenset({"rope-pairs-swapped"}),
    ),
    Replay(
        "keys-converted-with-heads-per-group",
        _GITHUB + "ggml-org/llama.cpp/pull/3364",
        "The converter reordered the rows of k_proj with H/K heads instead of K; in the 70B model these are equal.",
        told.keys_converted_with(lambda c: c.num_attention_heads // c.num_key_value_heads),
        _K,
        frozenset({"k-rows-converted-with-4-heads"}),
        "grouped",
    ),
    Replay(
        "keys-converted-with-all-heads",
        _GITHUB + "ggml-org/llama.cpp/issues/2376",
        "Converted from Hugging Face files, the 70B model spoke gibberish: k_proj was reordered as if it had H heads.",
        told.keys_converted_with(lambda c: c.num_attention_heads),
        _K,
        frozenset({"k-rows-converted-with-8-heads"}),
        "grouped",
    ),
    Replay(
        "gguf-rows-not-put-back",
        _GITHUB + "huggingface/transformers/issues/31766",
        "Read back from GGUF, q_proj and k_proj kept the file's order of rows, in pairs; the model turns halves.",
        dict(qkv=told.pairs_kept),
        ("layers.0.q", 0),
        frozenset({"rows-in-interleaved-layout"}),
    ),
    Replay(
        "eps-hard-coded",
        _GITHUB + "apache/tvm/pull/15856",
        "A kernel for RMSNorm had 1e-6 written into it, the model was trained with 1e-5.",
        told.eps(1e-6),
        _NORM,
        frozenset({"norm-eps-1e-6"}),
    ),
    Replay(
        "eps-of-neither-model",
        _GITHUB + "ggml-org/llama.cpp/pull/2384",
        "A default of 5e-6, between the 1e-6 of one generation of models and the 1e-5 of the next, was used for both.",
        told.eps(5e-6),
        _NORM,
        frozenset({"norm-eps-5e-06"}),
    ),
    Replay(
        "eps-outside-the-root",
        _GITHUB + "allenai/OLMo/issues/281",
        "The norm divided by the root mean square plus epsilon instead of the root of the mean square plus epsilon.",
        dict(norm=NORM["norm-eps-outside-root"]),
        _NORM,
        frozenset({"norm-eps-outside-root"}),
    ),
    Replay(
        "norm-in-float16",
        _GITHUB + "meta-llama/llama/issues/1048",
        "With RMSNorm computed in half precision the text fell apart; in float32 it was right.",
        dict(norm=told.half_norm),
        _NORM,
        frozenset({"norm-in-half-precision", "norm-in-float16"}),
    ),
    Replay(
        "theta-not-passed-on",
        _GITHUB + "lyogavin/airllm/issues/368",
        "rope_theta was not copied from the configuration, so a model trained with 500000 was turned with 10000.",
        dict(theta=lambda self, length: 10000.0),
        _Q,
        frozenset({"rope-theta-500000"}),  # 10000 where the configuration says 500000
        "theta",
    ),
    Replay(
        "llama3-scaling-not-read",
        _GITHUB + "lablup/mlxcel/issues/1355",
        "rope_scaling was parsed and never used: the frequencies stayed unscaled.",
        ROPE["rope-scaling-ignored"],
        _Q,
        frozenset({"rope-scaling-ignored"}),
        "llama3",
    ),
    Replay(
        "scaling-factor-of-another-model",
        _GITHUB + "meta-llama/llama-models/issues/241",
        "The factor 8 of the large models was hard-coded, the small ones need 32.",
        dict(llama3=told.factor_of_8),
        _Q,
        frozenset({"rope-scaling-factor-8"}),
        "llama32",
    ),
    Replay(
        "frequencies-cast-with-the-model",
        _GITHUB + "sgl-project/sglang-jax/issues/1472",
        "Inverse frequencies were cast to bfloat16 before they were multiplied by the positions.",
        ROPE["rope-frequencies-in-bfloat16"],
        _Q,
        frozenset({"rope-frequencies-in-bfloat16"}),
    ),
    Replay(
        "angles-cast-with-the-model",
        _GITHUB + "huggingface/transformers/pull/29285",
        "Under autocast the product of positions and frequencies came out in bfloat16, so distant angles were rounded.",
        dict(tables=told.angles_in_bfloat16),
        _Q,
        frozenset({"rope-angles-in-bfloat16"}),
    ),
    Replay(
        "positions-cast-with-the-model",
        _GITHUB + "nkalyanv99/UNI-D2/pull/6",
        "Positions took over the type of the frequencies; bfloat16 has no odd whole numbers beyond 256.",
        ROPE["rope-positions-in-bfloat16"],
        _Q,
        frozenset({"rope-positions-in-bfloat16"}),
        "long",
    ),
    Replay(
        "decoding-one-position-late",
        _GITHUB + "microsoft/onnxruntime-genai/pull/2354",
        "In decode steps the length of the past already counted the new token, so it was turned one position too far.",
        dict(rope_positions=told.one_late),
        ("layers.0.q_rotated", 1),
        frozenset({"rope-position-plus-one-when-decoding"}),
    ),
    Replay(
        "queries-at-position-zero",
        _GITHUB + "RobertCsordas/moeut/pull/6",
        "The query's offset was taken before the cached keys were joined: decoding turned queries from position 0.",
        dict(rotate_q=told.queries_restart),
        ("layers.0.q_rotated", 1),
        frozenset({"q-rope-positions-restart"}),
        "chunked",
    ),
    Replay(
        "a-window-at-one-position",
        _GITHUB + "jundot/omlx/pull/2363",
        "Of several tokens in one decode call all were turned at the position of the first.",
        dict(rope_positions=lambda self, p: p[:, :1].expand_as(p) if self.call else p),
        ("layers.0.q_rotated", 1),
        frozenset({"rope-positions-of-first-token-when-decoding"}),
        "chunked",
    ),
    Replay(
        "slots-for-positions",
        _GITHUB + "unslothai/unsloth/pull/3795",
        "All rows of a batch with padding on the left shared the cache's slot numbers as positions.",
        dict(rope_positions=lambda self, p: p.max(0, keepdim=True).values.expand_as(p)),
        _Q,
        frozenset({"positions-count-padding"}),
        "padded",
    ),
    Replay(
        "scores-without-scale",
        _GITHUB + "mlc-ai/mlc-llm/pull/3426",
        "A fallback path of attention was called with scale 1 instead of one over the root of the head dimension.",
        ATTENTION["attention-no-scale"],
        ("layers.0.scores", 0),
        frozenset({"attention-no-scale"}),
    ),
    Replay(
        "scores-scaled-by-hidden-size",
        _GITHUB + "FareedKhan-dev/train-llm-from-scratch/pull/3",
        "Scores were divided by the root of the embedding size, not of a head's.",
        ATTENTION["attention-scale-hidden-size"],
        ("layers.0.scores", 0),
        frozenset({"attention-scale-hidden-size"}),
    ),
    Replay(
        "mask-aligned-top-left",
        _GITHUB + "pytorch/executorch/pull/21749",
        "Behind a cache is_causal aligned the mask at the top left: a second chunk's first query saw key 0 alone.",
        ATTENTION["attention-mask-top-left"],
        ("layers.0.attention_context", 1),
        frozenset({"attention-mask-top-left"}),
        "chunked",
    ),
    Replay(
        "padding-attended",
        _GITHUB + "huggingface/transformers/pull/25284",
        "Generating from prompts padded on the left without a mask, real tokens looked at the padding.",
        ATTENTION["attention-padding-ignored"],
        ("layers.0.masked_scores", 0),
        frozenset({"attention-padding-ignored"}),
        "padded",
    ),
    Replay(
        "key-value-heads-tiled",
        _GITHUB + "onnx/onnx/pull/7274",
        "Grouped key and value heads were tiled (0 1 0 1) instead of repeated one by one (0 0 1 1).",
        ATTENTION["attention-heads-tiled"],
        ("layers.0.scores", 0),
        frozenset({"attention-heads-tiled"}),
    ),
    Replay(
        "output-columns-by-rank",
        _GITHUB + "nntile/nntile/pull/347",
        "The columns of o_proj were taken in the order rank within the group, group, instead of group, rank.",
        OUTPUT["output-heads-by-rank"],
        ("layers.0.attention_output", 0),
        frozenset({"output-heads-by-rank"}),
    ),
    Replay(
        "fused-rows-split-in-blocks",
        _GITHUB + "epfLLM/Megatron-LLM/pull/45",
        "A fused projection holds queries, key and value of each group in turn; it was cut in another order.",
        QKV["qkv-fused-split-by-group"],
        ("layers.0.q", 0),
        frozenset({"qkv-fused-split-by-group"}),
    ),
    Replay(
        "attention-biases-dropped",
        _GITHUB + "sbryngelson/ANEForge/pull/253",
        "The loader read the weights of q, k and v of a Qwen2 model, not their biases.",
        QKV["qkv-bias-ignored"],
        ("layers.0.q", 0),
        frozenset({"qkv-bias-ignored"}),
        "qwen2",
    ),
    Replay(
        "biases-left-at-random",
        _GITHUB + "huggingface/optimum/pull/1827",
        "A quantized layer had a bias that the model has not, and kept the random numbers it began with.",
        dict(linear=told.drawn_biases),
        ("layers.0.q", 0),
        frozenset({"qkv-spurious-bias"}),
    ),
    Replay(
        "silu-of-the-wrong-half",
        _GITHUB + "ml-explore/mlx-lm/pull/767",
        "The arguments of swiglu changed places in one of its callers: silu(up) · gate.",
        dict(hidden=lambda self, gate, up: F.silu(up) * gate),
        ("layers.0.ffn_hidden", 0),
        frozenset({"ffn-silu-of-up"}),
    ),
    Replay(
        "gelu-by-default",
        _GITHUB + "intelligent-machine-learning/dlrover/issues/1351",
        "A Llama was set up with the framework's default activation, gelu.",
        FEED_FORWARD["ffn-gelu"],
        ("layers.0.ffn_activation", 0),
        frozenset({"ffn-gelu"}),
    ),
    Replay(
        "head-overwritten-by-embedding",
        _GITHUB + "deepspeedai/DeepSpeed/pull/4088",
        "The head was set to the embedding matrix although the model does not tie them.",
        MODEL["model-head-tied"],
        ("logits", 0),
        frozenset({"model-head-tied"}),
    ),
    Replay(
        "head-not-tied",
        _GITHUB + "huggingface/transformers/pull/43429",
        "A tied head was not tied in one class of models and stayed random.",
        dict(head=told.random_head),
        ("logits", 0),
        frozenset(),
        "tied",
    ),
    Replay(
        "begin-token-missing",
        _GITHUB + "ggml-org/llama.cpp/pull/1303",
        "Without the begin token at the start some models failed completely.",
        {},
        ("input_ids", 0),
        frozenset(),
        refused="the ids of sequence 0 differ from the golden's at position 0",
    ),
)
