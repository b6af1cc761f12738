"""Checkpoints 6 to 10: a block, the model, its cache, sampling and generation, with their cases."""

from __future__ import annotations

import numpy as np

from llama_core.checkpoints import procedures
from llama_core.checkpoints.case_configs import BIASED, GROUPED, MISTRAL, QWEN2, QWEN3, SQUARE
from llama_core.checkpoints.cases import Case, Stream, left_padding, positions_of
from llama_core.checkpoints.definition import Checkpoint
from llama_core.config import LlamaConfig, RopeScaling


def block() -> Checkpoint:
    def case(name, about, seed, config, positions, std=1.0):
        size = config.hidden_size
        return Case(
            name,
            about,
            config,
            seed,
            lambda s: {"layer_input": s.uniform(*positions.shape, size, std=std), "position_ids": positions},
            ("",),
        )

    offset = np.stack([np.arange(3, 9), np.arange(5, 11)])
    return Checkpoint(
        id="6",
        title="Transformer block",
        formula="h = x + A(n₁ x); y = h + F(n₂ h)",
        inputs={"layer_input": "B S E", "position_ids": "B S"},
        outputs={"attention_residual": "B S E", "output": "B S E"},
        must_hold="values at each residual point",
        procedure=procedures.block,
        cases=(
            case("grouped", "K < H, D ≠ E/H, positions above 0", 601, GROUPED, offset),
            case("square", "K = H, D = E/H", 602, SQUARE, offset),
            case("small", "hidden states of 1e-2: ε matters", 603, GROUPED, offset, std=1e-2),
            case("padded", "left padding", 604, GROUPED, positions_of(left_padding(2, 7, 2, 0))),
            case("biased", "with biases", 605, BIASED, offset),
        ),
        notebook="06_transformer_block",
        reads="those of 1, 1B and 2",
        welcome={
            "attention_norm": "B S E",
            "q": "B S H D",
            "k": "B S K D",
            "v": "B S K D",
            "q_rotated": "B S H D",
            "k_rotated": "B S K D",
            "scores": "B H S T",
            "masked_scores": "B H S T",
            "attention_weights": "B H S T",
            "attention_context": "B S H D",
            "attention_output": "B S E",
            "ffn_norm": "B S E",
            "ffn_gate": "B S F",
            "ffn_up": "B S F",
            "ffn_activation": "B S F",
            "ffn_hidden": "B S F",
            "ffn_output": "B S E",
        },
        neighbours=(
            case("mistral", "a window of 3, left padding", 606, MISTRAL, positions_of(left_padding(2, 7, 2, 0))),
            case("qwen2", "biases on q, k and v only", 607, QWEN2, offset),
            case("qwen3", "heads of q and k normalised before they are rotated", 608, QWEN3, offset),
        ),
    )


def _ids(config: LlamaConfig, mask: np.ndarray):
    return lambda s: {"input_ids": s.ids(*mask.shape, below=config.vocab_size), "attention_mask": mask}


def full_model() -> Checkpoint:
    def case(name, about, seed, config, mask):
        return Case(name, about, config, seed, _ids(config, mask), ("",), layers=True)

    full = np.ones((2, 9), np.int64)
    return Checkpoint(
        id="7",
        title="Full model",
        formula="embed → L blocks → norm → head",
        inputs={"input_ids": "B S", "attention_mask": "B S"},
        outputs={"layers.N.output": "B S E", "logits": "B S V"},
        must_hold="logits at every position, every layer's hidden state, tied and untied heads, padding",
        procedure=procedures.model,
        cases=(
            case("untied", "a head of its own, grouped heads", 701, GROUPED, full),
            case("tied", "the head is the embedding matrix", 702, GROUPED.replace(tie_word_embeddings=True), full),
            case("square", "K = H, D = E/H", 703, SQUARE, full),
            case("left padding", "rows of different length", 704, GROUPED, left_padding(2, 9, 3, 0)),
            case("right padding", "rows of different length", 705, GROUPED, left_padding(2, 9, 3, 0)[:, ::-1]),
            case(
                "llama3",
                "stretched rotary frequencies, biases",
                706,
                BIASED.replace(
                    rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_max_position_embeddings=16)
                ),
                np.ones((2, 24), np.int64),
            ),
        ),
        notebook="07_full_model",
        reads="those of 6, and num_hidden_layers",
        welcome={"embedding": "B S E", "final_norm": "B S E"},
        neighbours=(
            case("mistral", "a window of 3, rows of different length", 707, MISTRAL, left_padding(2, 9, 3, 0)),
            case("qwen2", "biases on q, k and v only", 708, QWEN2, full),
            case("qwen3", "heads of q and k normalised before they are rotated", 709, QWEN3, full),
        ),
    )


def kv_cache() -> Checkpoint:
    def case(name, about, seed, config, mask, *calls):
        def make(s: Stream) -> dict[str, np.ndarray]:
            return _ids(config, mask)(s) | {"calls": np.array(calls)}

        return Case(name, about, config, seed, make, ("",), layers=True)

    full = np.ones((2, 9), np.int64)
    singles = [(n, n + 1) for n in range(9)]
    return Checkpoint(
        id="8",
        title="KV cache",
        formula="one step at a time = all at once",
        inputs={"input_ids": "B S", "attention_mask": "B S", "calls": "N 2"},
        outputs={
            "position_ids": "B S",
            "logits": "B S V",
            "layers.N.cache_k": "B K T D",
            "layers.N.cache_v": "B K T D",
        },
        must_hold="single tokens, chunks of any size, batches with padding, a cache cut short and filled again",
        procedure=procedures.cached,
        cases=(
            case("single tokens", "nine calls of one token", 801, GROUPED, full, *singles),
            case("prefill and decode", "one chunk, then single tokens", 802, GROUPED, full, (0, 5), *singles[5:]),
            case("chunks", "chunks of 4, 3 and 2", 803, SQUARE, full, (0, 4), (4, 7), (7, 9)),
            case(
                "left padding",
                "rows of different length",
                804,
                GROUPED,
                left_padding(2, 9, 3, 0),
                (0, 5),
                (5, 7),
                *singles[7:],
            ),
            case(
                "cut and go on",
                "the cache is truncated after six slots and filled again",
                805,
                GROUPED,
                full,
                (0, 6),
                (6, 9),
                (6, 7),
                (7, 9),
            ),
        ),
        notebook="08_kv_cache",
        reads="those of 7",
        welcome={},
        neighbours=(
            case(
                "mistral",
                "a window of 3 over a cache of 9, chunks longer and shorter than it",
                806,
                MISTRAL,
                left_padding(2, 9, 2, 0),
                (0, 4),
                (4, 8),
                (8, 9),
            ),
            case("qwen2", "biases on q, k and v only", 807, QWEN2, full, (0, 7), (7, 8), (8, 9)),
            case("qwen3", "keys are stored normalised and rotated", 808, QWEN3, full, (0, 6), (6, 8), (8, 9)),
        ),
    )


def sampling() -> Checkpoint:
    def case(name, about, seed, temperature, top_k, top_p):
        def make(s: Stream) -> dict[str, np.ndarray]:
            # A permutation of evenly spaced logits: exact in every type, and no two are equal.
            logits = ((s.permutation(3, 41) - 20) * np.float32(0.125)).astype(np.float32)
            return {
                "logits": logits,
                "temperature": np.array([temperature], np.float32),
                "top_k": np.array([top_k]),
                "top_p": np.array([top_p], np.float32),
            }

        return Case(name, about, GROUPED.replace(vocab_size=41), seed, make)

    return Checkpoint(
        id="9",
        title="Sampling",
        formula="softmax(logits / T), cut to the top k, then to the top p",
        inputs={"logits": "B V", "temperature": "1", "top_k": "1", "top_p": "1"},
        outputs={"greedy_ids": "B", "kept": "B V", "probabilities": "B V"},
        must_hold="the exact set that may be drawn, its probabilities, and argmax at T = 0",
        procedure=procedures.sampling,
        cases=(
            case("plain", "T = 1, nothing cut", 901, 1.0, 0, 1.0),
            case("cold", "T = 0.5", 902, 0.5, 0, 1.0),
            case("hot", "T = 2", 903, 2.0, 0, 1.0),
            case("greedy", "T = 0 is argmax", 904, 0.0, 0, 1.0),
            case("top-k", "the 5 most likely", 905, 1.0, 5, 1.0),
            case("top-p", "the token that crosses 0.75 is kept", 906, 1.0, 0, 0.75),
            case("all", "T = 1.5, top-k 20, top-p 0.875", 907, 1.5, 20, 0.875),
        ),
        notebook="09_sampling",
        welcome={},
    )


#: A vocabulary for checkpoint 10. Ids 0, 1 and 2 pad, begin and end; the others are a letter and a number.
WORDS = [b"", b"", b"", *[f" {chr(97 + n % 26)}{n}".encode() for n in range(58)]]
#: Every token completes the é that the one before began, and begins another.
HALF_CHARACTERS = [b"", b"", b"", *[b"\xa9" + bytes([97 + n % 26]) + b"\xc3" for n in range(58)]]


def generation() -> Checkpoint:
    # The seeds are those of a few thousand at which the best logit leads by at least 0.2 at every step (several times
    # the noise of bfloat16), so that every right implementation chooses the same ids.
    def two_layers(config: LlamaConfig) -> LlamaConfig:
        return config.replace(num_hidden_layers=2)

    config = two_layers(GROUPED)

    def case(name, about, seed, mask, limit, eos, pieces=WORDS, config=config):
        def make(s: Stream) -> dict[str, np.ndarray]:
            ids = 3 + s.ids(*mask.shape, below=config.vocab_size - 3)
            ids[np.arange(len(mask)), mask.argmax(1)] = 1
            ids[mask == 0] = 0
            width = max(len(p) for p in pieces)
            return {
                "prompt_ids": ids,
                "attention_mask": mask,
                "max_new_tokens": np.array([limit]),
                "eos_ids": np.array(eos),
                "piece_bytes": np.array([list(p.ljust(width, b"\0")) for p in pieces]),
                "piece_lengths": np.array([len(p) for p in pieces]),
            }

        return Case(name, about, config, seed, make, ("",), layers=True)

    return Checkpoint(
        id="10",
        title="Generation",
        formula="prefill, then argmax by argmax, to text",
        inputs={
            "prompt_ids": "B P",
            "attention_mask": "B P",
            "max_new_tokens": "1",
            "eos_ids": "N",
            "piece_bytes": "V W",
            "piece_lengths": "V",
        },
        outputs={"token_ids": "B N", "position_ids": "B N", "streamed_bytes": "B N"},
        must_hold="exact greedy ids, batch = single, end ids, absolute positions, whole characters while streaming",
        procedure=procedures.generation,
        cases=(
            case("single", "one prompt", 2063, np.ones((1, 5), np.int64), 8, [2]),
            case("batch", "prompts of different length, padded on the left", 3044, left_padding(3, 6, 3, 0, 1), 4, [2]),
            case("ends", "each row meets one of two end ids", 2426, np.ones((2, 4), np.int64), 6, [52, 30]),
            case(
                "characters",
                "multi-byte characters arrive in pieces",
                2426,
                np.ones((2, 4), np.int64),
                5,
                [2],
                HALF_CHARACTERS,
            ),
        ),
        notebook="10_generation",
        reads="those of 7",
        welcome={},
        neighbours=(
            case("mistral", "a window of 3", 2019, left_padding(2, 6, 2, 0), 5, [2], config=two_layers(MISTRAL)),
            case(
                "qwen2", "biases on q, k and v only", 2078, left_padding(2, 5, 0, 1), 4, [2], config=two_layers(QWEN2)
            ),
            case(
                "qwen3", "heads of q and k normalised", 2051, left_padding(2, 5, 0, 1), 4, [2], config=two_layers(QWEN3)
            ),
        ),
    )
