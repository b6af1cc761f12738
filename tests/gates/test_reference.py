"""The float64 reference: against transformers in float64, and against numbers worked out by hand."""

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from right import peers

from llama_core.checkpoints import procedures
from llama_core.checkpoints import reference as r
from llama_core.checkpoints import sampling_steps as sampling
from llama_core.checkpoints.case_configs import BIASED, GROUPED, MISTRAL, QWEN2, QWEN3, SQUARE
from llama_core.checkpoints.cases import Stream, left_padding, make_weights
from llama_core.checkpoints.context import Context
from llama_core.checkpoints.procedures import run_procedure, streamed_length
from llama_core.config import RopeScaling

# transformers computes norms and rotary tables in float32 even in a float64 model. Measured: at most 2.4e-6 of a root
# mean square.
FLOAT32_INSIDE = 1e-5
FULL = np.ones((2, 24), np.int64)

MODELS = {
    "grouped": (GROUPED, FULL),
    "square": (SQUARE, FULL),
    "one key/value head": (GROUPED.replace(num_key_value_heads=1), FULL),
    "biases": (BIASED, FULL),
    "tied": (GROUPED.replace(tie_word_embeddings=True), FULL),
    "left padding": (GROUPED, left_padding(2, 24, 7, 0)),
    "right padding": (GROUPED, left_padding(2, 24, 7, 0)[:, ::-1]),
    "theta": (GROUPED.replace(rope_theta=500000.0), FULL),
    "eps": (GROUPED.replace(rms_norm_eps=0.05), FULL),
    "linear": (GROUPED.replace(rope_scaling=RopeScaling("linear", 4.0)), FULL),
    "dynamic": (GROUPED.replace(rope_scaling=RopeScaling("dynamic", 4.0), max_position_embeddings=16), FULL),
    "yarn": (
        GROUPED.replace(rope_scaling=RopeScaling("yarn", 8.0, original_max_position_embeddings=16), head_dim=16),
        FULL,
    ),
    "llama3": (
        GROUPED.replace(rope_scaling=RopeScaling("llama3", 8.0, original_max_position_embeddings=32), head_dim=16),
        FULL,
    ),
    "mistral": (MISTRAL, FULL),
    "mistral, left padding": (MISTRAL.replace(sliding_window=5), left_padding(2, 24, 7, 0)),
    "qwen2": (QWEN2, FULL),
    "qwen3": (QWEN3, left_padding(2, 24, 7, 0)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_whole_model_is_that_of_transformers_in_float64(name):
    config, mask = MODELS[name]
    stream = Stream(4321)
    inputs = {"input_ids": stream.ids(*mask.shape, below=config.vocab_size), "attention_mask": mask.copy()}
    weights = {n: w.astype(np.float64) for n, w in make_weights(config, stream).items()}
    expected = run_procedure(procedures.model, inputs, weights, config)
    tensors = ({n: torch.tensor(x) for n, x in given.items()} for given in (inputs, weights))
    found = peers.run_7(*tensors, config)
    real = mask != 0
    for key, value in found.items():
        difference = np.abs(value.numpy()[real] - expected[key][real]).max()
        assert difference / np.sqrt(np.mean(expected[key][real] ** 2)) < FLOAT32_INSIDE, key


def context(config=GROUPED, **values):
    return Context(config, {}, values)


def test_rms_norm_by_hand():
    # mean square (0.75² + 1²) / 2 = 0.78125; with ε = 0.21875 the root is 1
    x = np.array([[[0.75, -1.0]]])
    found = r.rms_norm(context(GROUPED.replace(rms_norm_eps=0.21875)), x, np.array([2.0, 10.0]))
    assert found.tolist() == [[[1.5, -10.0]]]


def test_rotation_by_hand():
    # One pair at position 1 turns by 1 radian: (1, 0) -> (cos 1, sin 1), (0, 1) -> (-sin 1, cos 1).
    config = GROUPED.replace(head_dim=2)
    x = np.array([[[[1.0, 0.0], [0.0, 1.0]]]])
    found = r.rotated(context(config), x, np.array([[1]]))
    assert found[0, 0] == pytest.approx(
        np.array([[0.5403023058681398, 0.8414709848078965], [-0.8414709848078965, 0.5403023058681398]]), abs=1e-15
    )


def test_the_two_layouts_by_hand():
    # At D = 4 and theta 10⁴ the pairs turn by 1 and by 0.01. Only coordinate 1 is set: in layout half it is the first
    # member of the slow pair (1, 3), interleaved the second of the fast pair (0, 1).
    x = np.array([[[[0.0, 1.0, 0.0, 0.0]]]])
    half = r.rotated(context(GROUPED.replace(head_dim=4)), x, np.array([[1]]))
    interleaved = r.rotated(context(GROUPED.replace(head_dim=4, rope_layout="interleaved")), x, np.array([[1]]))
    assert half.ravel() == pytest.approx([0, 0.9999500004166653, 0, 0.009999833334166664], abs=1e-15)
    assert interleaved.ravel() == pytest.approx([-0.8414709848078965, 0.5403023058681398, 0, 0], abs=1e-15)


def test_llama3_frequencies_by_hand():
    # D = 4, theta = 100: the pairs have frequencies 1 and 0.1, wavelengths 6.283 and 62.83.
    def frequencies(original):
        scaling = RopeScaling("llama3", 8.0, original_max_position_embeddings=original)
        return r.pair_frequencies(context(GROUPED.replace(head_dim=4, rope_theta=100.0, rope_scaling=scaling)), 1)

    # original 40: borders at 40 / 4 = 10 and 40 / 1 = 40: the first is kept, the second divided by 8.
    assert frequencies(40).tolist() == [1.0, 0.0125]
    # original 100: borders at 25 and 100; the second lies between, at (100 / 62.832 - 1) / 3 = 0.197183 of the way:
    # 0.1 · 0.197183 + 0.0125 · 0.802817 = 0.0297535
    assert frequencies(100) == pytest.approx([1.0, 0.0297535], rel=1e-5)


def test_dynamic_and_linear_frequencies_by_hand():
    base = GROUPED.replace(head_dim=4, rope_theta=100.0, max_position_embeddings=10)
    linear = base.replace(rope_scaling=RopeScaling("linear", 4.0))
    assert r.pair_frequencies(context(linear), 1) == pytest.approx([0.25, 0.025])
    # 20 positions of 10 with factor 4: theta grows by (4 · 2 - 3)^(4/2) = 25, to 2500, whose root is 50.
    dynamic = base.replace(rope_scaling=RopeScaling("dynamic", 4.0))
    assert r.pair_frequencies(context(dynamic), 20) == pytest.approx([1.0, 1 / 50])
    assert r.pair_frequencies(context(dynamic), 10) == pytest.approx([1.0, 0.1])


def test_yarn_attention_factor_by_hand():
    config = GROUPED.replace(rope_scaling=RopeScaling("yarn", math.e**5, original_max_position_embeddings=16))
    assert r.attention_factor(context(config)) == pytest.approx(1.5)  # 0.1 · ln e⁵ + 1


def test_attention_by_hand():
    # D = 4: scores are q·k / 2. Query 1 scores 0 and ln 3 = 2 · 0.5493…/ 2: weights 1/4 and 3/4.
    q = np.zeros((1, 2, 1, 4))
    q[0, :, 0, 0] = 2 * math.log(3)
    k = np.zeros((1, 1, 2, 4))
    k[0, 0, 1, 0] = 1.0
    v = np.array([[[[4.0, 0, 0, 0], [8.0, 0, 0, 0]]]])
    positions = np.array([[0, 1]])
    inputs = {"q_rotated": q, "cache_k": k, "cache_v": v, "position_ids": positions, "key_positions": positions}
    values = run_procedure(procedures.attention, inputs, {}, GROUPED.replace(head_dim=4))
    assert values["scores"][0, 0] == pytest.approx(np.array([[0, math.log(3)], [0, math.log(3)]]))
    assert values["masked_scores"][0, 0, 0].tolist() == [0, -math.inf]
    assert values["attention_weights"][0, 0] == pytest.approx(np.array([[1, 0], [0.25, 0.75]]))
    assert values["attention_context"][0, :, 0, 0] == pytest.approx([4, 7])


def test_a_window_by_hand():
    # A window of 2 is the query's own position and the one before it. The second row has padding in slot 1.
    positions = np.array([[0, 1, 2, 3], [0, -1, 1, 2]])
    found = r.visible(positions, positions, 2)[:, 0].astype(int)
    assert found[0].tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]
    assert found[1].tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 1, 1]]


def test_head_norms_by_hand():
    # Two heads of q, one of k, D = 2, ε = 0.5: (1, -1) has mean square 1, (3, 4) has 12.5: roots of 1.5 and of 13.
    ctx = context(GROUPED.replace(head_dim=2, rms_norm_eps=0.5))
    ctx.weights |= {"self_attn.q_norm.weight": np.array([2.0, 10.0]), "self_attn.k_norm.weight": np.array([1.0, 3.0])}
    q = r.project_query(ctx, np.array([[[1.0]]]), np.array([[1.0], [-1.0], [3.0], [4.0]]))[0, 0]
    k = r.project_key(ctx, np.array([[[1.0]]]), np.array([[3.0], [4.0]]))[0, 0]
    assert q == pytest.approx(np.array([[2 / 1.5**0.5, -10 / 1.5**0.5], [6 / 13**0.5, 40 / 13**0.5]]))
    assert k == pytest.approx(np.array([[3 / 13**0.5, 12 / 13**0.5]]))


def test_two_query_heads_share_the_key_head_before_them():
    x = np.arange(2).reshape(1, 2, 1, 1)
    assert r.repeat_heads(x, 4).ravel().tolist() == [0, 0, 1, 1]


def test_a_row_that_sees_nothing_has_weights_of_zero():
    assert r.softmax(context(), np.array([[-np.inf, -np.inf]])).tolist() == [[0, 0]]


def test_silu_by_hand():
    assert r.silu(context(), np.array([0.0, 1.0, -1.0])) == pytest.approx([0, 0.7310585786300049, -0.2689414213699951])


def test_positions_count_real_tokens_behind_a_past():
    mask = np.array([[0, 0, 1, 1, 1], [1, 1, 1, 1, 0]])
    found = r.count_positions(context(input_ids=np.zeros((2, 3))), mask)
    assert found.tolist() == [[0, 1, 2], [2, 3, -1]]


def test_the_nucleus_keeps_the_token_that_crosses_p():
    # probabilities 0.5, 0.3, 0.2: up to 0.5 the first alone; beyond it the second, too
    logits = np.log(np.array([[0.2, 0.5, 0.3]]))
    kept = [sampling.nucleus(context(), logits, p)[0].tolist() for p in (0.49, 0.51, 0.79, 0.81, 1.0)]
    assert kept == [[False, True, False], [False, True, True], [False, True, True], [True] * 3, [True] * 3]


def test_top_k_keeps_equals_of_the_kth():
    found = sampling.kept_by_top_k(context(), np.array([[1.0, 3.0, 2.0, 2.0]]), np.array([2]))
    assert found.tolist() == [[-np.inf, 3.0, 2.0, 2.0]]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (b"abc", 3),
        ("é".encode(), 2),
        (b"a\xc3", 1),
        (b"a\xe2\x82", 1),
        ("a€".encode(), 4),
        (b"\xf0\x9f\x98", 0),
        (b"", 0),
    ],
)
def test_an_unfinished_character_is_held_back(text, shown):
    assert streamed_length(context(), text) == shown


def test_the_reference_imports_neither_the_layers_nor_torch():
    code = (
        "import sys, llama_core.checkpoints.specification\n"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('llama_core.layers')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"
