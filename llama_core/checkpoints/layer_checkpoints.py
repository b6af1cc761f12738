"""Checkpoints 0 to 5: sizes, and the steps within a layer, with the cases that expose their mistakes."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints import procedures
from llama_core.checkpoints.case_configs import BIASED, GROUPED, LLAMA_2_7B, MISTRAL, QWEN2, QWEN3, SQUARE
from llama_core.checkpoints.cases import Case, Stream, left_padding, positions_of
from llama_core.checkpoints.definition import Checkpoint
from llama_core.config import LlamaConfig, RopeScaling
from llama_core.presets import preset, preset_names


def foundation() -> Checkpoint:
    odd = {
        "head_dim-is-not-E/H": GROUPED,
        "biased": BIASED,
        "tied": GROUPED.replace(tie_word_embeddings=True),
    }
    configs = {name: preset(name) for name in preset_names()} | odd
    return Checkpoint(
        id="0",
        title="Foundation",
        formula="sizes that follow from the hyper-parameters",
        inputs={},
        outputs=dict.fromkeys(
            (
                "head_dim",
                "query_size",
                "key_value_size",
                "cache_values_per_position",
                "layer_parameters",
                "num_parameters",
            ),
            "1",
        ),
        must_hold="sizes and parameter counts follow from the configuration, for the published models and odd ones",
        procedure=procedures.foundation,
        cases=tuple(
            Case(name, "a configuration's sizes", config, n, lambda s: {})
            for n, (name, config) in enumerate(configs.items())
        ),
        notebook="00_foundation",
        reads="all",
        welcome={},
    )


def rms_norm() -> Checkpoint:
    def rows(s: Stream) -> dict[str, np.ndarray]:
        x = s.uniform(2, 4, 24)
        x[0, 0] = 0
        x[0, 1] = -np.abs(x[0, 1])
        x[1, 2] *= np.float32(2**-12)
        x[1, 3] *= np.float32(2**9)
        return {"layer_input": x}

    def case(name, about, seed, make, config=GROUPED, large=False, float16_scale=1.0):
        return Case(name, about, config, seed, make, ("input_layernorm",), large=large, float16_scale=float16_scale)

    return Checkpoint(
        id="1",
        title="RMSNorm",
        formula="x / √(mean(x²) + ε) · w",
        inputs={"layer_input": "B S E"},
        outputs={"attention_norm": "B S E"},
        must_hold="values for ordinary, tiny (only these show ε), huge, zero and negative inputs",
        procedure=procedures.rms_norm,
        cases=(
            case("ordinary", "values of order 1", 101, lambda s: {"layer_input": s.uniform(2, 7, 24)}),
            case("tiny", "1e-3: ε matters", 102, lambda s: {"layer_input": s.uniform(2, 5, 24, std=1e-3)}),
            case(
                "huge",
                "1e6 (3e4 in float16): squares overflow half precision",
                103,
                lambda s: {"layer_input": s.uniform(2, 5, 24, std=1e6 / 3**0.5)},
                float16_scale=0.03,
            ),
            case("rows", "a zero row, a negative row, rows of very different size", 104, rows),
            case(
                "square",
                "S = E: the wrong axis fits",
                105,
                lambda s: {"layer_input": s.uniform(2, 8, 8)},
                GROUPED.replace(hidden_size=8, rms_norm_eps=3e-4),
            ),
            case(
                "llama-2-7b",
                "E = 4096",
                106,
                lambda s: {"layer_input": s.uniform(1, 2, 4096)},
                LLAMA_2_7B,
                large=True,
            ),
        ),
        notebook="01_rms_norm",
        reads="rms_norm_eps",
        welcome={},
    )


def rope() -> Checkpoint:
    wide = GROUPED.replace(head_dim=16)

    def scaled(kind: str, **parameters) -> LlamaConfig:
        return wide.replace(rope_scaling=RopeScaling(kind=kind, factor=4.0, **parameters))

    def inputs(config: LlamaConfig, *rows: range):
        def make(s: Stream) -> dict[str, np.ndarray]:
            h, k, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
            b, length = len(rows), len(rows[0])
            return {
                "q": s.uniform(b, length, h, d),
                "k": s.uniform(b, length, k, d),
                "v": s.uniform(b, length, k, d),
                "position_ids": np.array([list(row) for row in rows]),
            }

        return make

    def case(name, about, seed, config, *rows, large=False):
        return Case(name, about, config, seed, inputs(config, *rows), large=large)

    return Checkpoint(
        id="1B",
        title="RoPE",
        formula="turn pair i at position p by p · theta^(-2i/D)",
        inputs={"q": "B S H D", "k": "B S K D", "v": "B S K D", "position_ids": "B S"},
        outputs={"q_rotated": "B S H D", "k_rotated": "B S K D", "v": "B S K D"},
        must_hold="both layouts, positions above 0, every frequency scaling; v comes out untouched",
        procedure=procedures.rope,
        cases=(
            case("half", "pairs (i, i + D/2), as in Hugging Face files", 111, GROUPED, range(3, 9), range(11, 17)),
            case(
                "interleaved",
                "pairs (2i, 2i + 1), as in Meta's files",
                112,
                GROUPED.replace(rope_layout="interleaved"),
                range(3, 9),
                range(11, 17),
            ),
            case("square", "K = H, S = H", 113, SQUARE, range(2, 6), range(5, 9)),
            case("decode", "one new token, far from position 0", 114, GROUPED, range(9, 10), range(17, 18)),
            case("far", "positions near 4095", 115, wide.replace(max_position_embeddings=4096), range(4085, 4091)),
            case("linear", "frequencies divided by 4", 116, scaled("linear"), range(20, 27)),
            case("dynamic", "beyond the context of 64 positions", 117, scaled("dynamic"), range(90, 96)),
            case(
                "llama3",
                "kept, blended and divided",
                118,
                scaled("llama3", original_max_position_embeddings=64),
                range(150, 157),
            ),
            case(
                "yarn",
                "blended, with an attention factor",
                119,
                scaled("yarn", original_max_position_embeddings=64),
                range(150, 157),
            ),
            case("llama-2-7b", "H = 32, D = 128", 120, LLAMA_2_7B, range(2046, 2050), large=True),
        ),
        notebook="01b_rope",
        reads="head_dim, rope_theta, rope_layout, rope_scaling, max_position_embeddings",
        welcome={},
    )


def qkv_projection() -> Checkpoint:
    def case(name, about, seed, config, tokens=5, batch=2, large=False):
        size = config.hidden_size
        return Case(
            name,
            about,
            config,
            seed,
            lambda s: {"attention_norm": s.uniform(batch, tokens, size)},
            ("q_proj", "k_proj", "v_proj", "q_norm", "k_norm"),
            large=large,
        )

    return Checkpoint(
        id="2",
        title="QKV projection",
        formula="q = x·Wqᵀ, k = x·Wkᵀ, v = x·Wvᵀ, split into heads",
        inputs={"attention_norm": "B S E"},
        outputs={"q": "B S H D", "k": "B S K D", "v": "B S K D"},
        must_hold="values per head, the order of rows, K ≠ H, biases only where there are some",
        procedure=procedures.projection,
        cases=(
            case("grouped", "K < H and D ≠ E/H", 201, GROUPED),
            case("square", "K = H and D = E/H: transposed and swapped weights fit", 202, SQUARE),
            case("biased", "with biases", 203, BIASED),
            case("llama-2-7b", "E = 4096, H = K = 32, D = 128", 204, LLAMA_2_7B, tokens=2, batch=1, large=True),
        ),
        notebook="02_qkv_projection",
        reads="head_dim",
        welcome={},
        neighbours=(
            case("qwen2", "biases here, though attention_bias is off", 205, QWEN2),
            case("qwen3", "every head of q and k normalised, with other weights for q than for k", 206, QWEN3),
        ),
    )


def attention() -> Checkpoint:
    def inputs(config, positions, key_positions, std):
        def make(s: Stream) -> dict[str, np.ndarray]:
            h, k, d = config.num_attention_heads, config.num_key_value_heads, config.head_dim
            (b, queries), keys = positions.shape, key_positions.shape[1]
            return {
                "q_rotated": s.uniform(b, queries, h, d, std=std),
                "cache_k": s.uniform(b, k, keys, d, std=std),
                "cache_v": s.uniform(b, k, keys, d),
                "position_ids": positions,
                "key_positions": key_positions,
            }

        return make

    def case(name, about, seed, config, positions, key_positions=None, std=1.4, large=False):
        keys = positions if key_positions is None else key_positions
        return Case(name, about, config, seed, inputs(config, positions, keys, std), large=large)

    rows = np.arange(12)
    two = np.stack([rows, rows])
    left = positions_of(left_padding(2, 8, 3, 0))
    right = positions_of(left_padding(2, 8, 2, 0)[:, ::-1])
    gap = positions_of(np.array([[1, 1, 1, 1, 0, 0, 1, 1], [1] * 8]))
    return Checkpoint(
        id="3",
        title="Attention",
        formula="softmax(q·kᵀ/√D + mask)·v",
        inputs={
            "q_rotated": "B S H D",
            "cache_k": "B K T D",
            "cache_v": "B K T D",
            "position_ids": "B S",
            "key_positions": "B T",
        },
        outputs={"attention_context": "B S H D"},
        must_hold="scale, causal mask for S = T and S < T, padding on both sides, grouped heads, zeros for a row that "
        "sees nothing",
        procedure=procedures.attention,
        cases=(
            case("prefill", "S = T, grouped heads", 301, GROUPED, two[:, :6]),
            case("square", "S = T = H = K = 4", 302, SQUARE, two[:, :4]),
            case("decode", "one query, a cache of 7", 303, GROUPED, two[:, 7:8], two[:, :8]),
            case(
                "chunk",
                "three queries behind a cache of 5: the mask is not square",
                304,
                GROUPED,
                two[:, 5:8],
                two[:, :8],
            ),
            case("left padding", "padding queries see nothing: zeros", 305, GROUPED, left),
            case("right padding", "padding keys are hidden", 306, GROUPED, right),
            case("padded decode", "padding in the cache", 307, GROUPED, left[:, -1:], left),
            case("llama-2-7b", "H = 32, D = 128", 308, LLAMA_2_7B, two[:1, :6], std=1.0, large=True),
        ),
        notebook="03_attention",
        welcome={"scores": "B H S T", "masked_scores": "B H S T", "attention_weights": "B H S T"},
        neighbours=(
            case("mistral prefill", "a prompt longer than the window of 3", 309, MISTRAL, two[:, :8]),
            case("mistral decode", "one query, a cache longer than the window", 310, MISTRAL, two[:, 8:9], two[:, :9]),
            case("mistral chunk", "three queries behind a cache of 6", 311, MISTRAL, two[:, 6:9], two[:, :9]),
            case("mistral left padding", "the window counts no padding", 312, MISTRAL, left),
            case(
                "mistral padding in the cache",
                "a row that was padded on the right goes on: positions are not slots",
                313,
                MISTRAL,
                gap[:, -2:],
                gap,
            ),
        ),
    )


def output_projection() -> Checkpoint:
    def case(name, about, seed, config, tokens=5, batch=2, large=False):
        h, d = config.num_attention_heads, config.head_dim
        return Case(
            name,
            about,
            config,
            seed,
            lambda s: {"attention_context": s.uniform(batch, tokens, h, d)},
            ("o_proj",),
            large=large,
        )

    return Checkpoint(
        id="4",
        title="Output projection",
        formula="heads side by side, times Woᵀ",
        inputs={"attention_context": "B S H D"},
        outputs={"attention_output": "B S E"},
        must_hold="it exists; values; the order of heads",
        procedure=procedures.output_projection,
        cases=(
            case("grouped", "H·D ≠ E", 401, GROUPED),
            case("square", "H·D = E: skipped and transposed fit", 402, SQUARE),
            case("biased", "with a bias", 403, BIASED),
            case("llama-2-7b", "E = 4096", 404, LLAMA_2_7B, tokens=2, batch=1, large=True),
        ),
        notebook="04_output_projection",
        welcome={},
        neighbours=(case("qwen2", "no bias, although q, k and v have one", 405, QWEN2),),
    )


def feed_forward() -> Checkpoint:
    def case(name, about, seed, config, tokens=5, batch=2, large=False):
        size = config.hidden_size
        return Case(
            name, about, config, seed, lambda s: {"ffn_norm": s.uniform(batch, tokens, size)}, ("mlp.",), large=large
        )

    return Checkpoint(
        id="5",
        title="Feed-forward",
        formula="down(silu(gate x) ⊙ up x)",
        inputs={"ffn_norm": "B S E"},
        outputs={"ffn_output": "B S E"},
        must_hold="values; gate and up are not interchangeable; silu, not gelu or relu",
        procedure=procedures.feed_forward,
        cases=(
            case("ordinary", "F ≠ E", 501, GROUPED),
            case("square", "F = E: transposed weights fit", 502, SQUARE.replace(intermediate_size=32)),
            case("biased", "with biases", 503, BIASED),
            case("llama-2-7b", "E = 4096, F = 11008", 504, LLAMA_2_7B, tokens=2, batch=1, large=True),
        ),
        notebook="05_feed_forward",
        welcome={"ffn_gate": "B S F", "ffn_up": "B S F", "ffn_activation": "B S F", "ffn_hidden": "B S F"},
    )
