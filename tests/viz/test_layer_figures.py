import numpy as np
import pytest
from drawing import WORDS, heading, images, looks, panels, residual, row_labels, softmax, wave, words

from llama_core import viz
from llama_core.errors import InputError
from llama_core.viz.lens import softmax as lens_softmax
from llama_core.viz.norms import root_mean_square


def bars(ax, label):
    """Heights of a histogram or of bars, by their label."""
    return [p.get_height() for p in ax.patches if p.get_gid() == label]


def test_root_mean_square_by_hand_and_for_numbers_whose_squares_overflow():
    assert root_mean_square(np.array([[3.0, 4.0], [0, 0], [1e200, 1e200]])).tolist() == pytest.approx(
        [12.5**0.5, 0, 1e200]
    )


def test_histograms_of_the_norm_count_every_value():
    fig = viz.rms_norm_distribution(3 * wave(4, 25), wave(4, 25))
    assert [sum(bars(fig.axes[n], name)) for n, name in enumerate(("before", "after"))] == [100, 100]


def test_the_norm_states_sizes_before_and_after():
    fig = viz.rms_norm_distribution([[3.0, -3.0], [5.0, 5.0]], [[1.0, -1.0], [1.0, 1.0]])
    assert heading(fig) == "The root mean square of tokens goes from 3 to 5 before the norm to 1 after it"


def test_epsilon_curves_are_what_was_given_in_order_of_size():
    fig = viz.rms_norm_epsilon([1.0, 0.01], {"ε = 1e-4": [1.0, 0.7]})
    line = fig.axes[0].lines[0]
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([0.01, 1.0], [0.7, 1.0])
    assert heading(fig) == "An input of size 0.01 comes out with size 0.7 with ε = 1e-4"


@pytest.mark.parametrize("sizes", [[0.0, 1.0], [-1.0, 1.0], [float("nan"), 1.0]])
def test_sizes_that_are_not_positive_are_refused(sizes):
    with pytest.raises(InputError, match="positive"):
        viz.rms_norm_epsilon(sizes, {"a": [1.0, 1.0]})


def test_precision_states_the_worst_relative_error():
    fig = viz.rms_norm_precision([[4.0, -2.0]], {"rough": [[5.0, -2.0]], "exact": [[4.0, -2.0]]})
    assert heading(fig) == "Worst relative error: rough 0.25, exact 0"


@pytest.mark.parametrize("figure", [viz.rms_norm_epsilon, viz.rms_norm_precision])
def test_nothing_to_compare_is_refused(figure):
    with pytest.raises(InputError, match="nothing to draw"):
        figure([[1.0]] if figure is viz.rms_norm_precision else [1.0], {})


def test_swiglu_draws_each_value_once_coloured_by_what_comes_out():
    gate, up, hidden = wave(2, 6), wave(2, 6, speed=2.9), wave(2, 6, speed=0.7)
    fig = viz.swiglu(gate, up, hidden)
    points = fig.axes[0].collections[0]
    drawn = sorted(map(tuple, np.column_stack([points.get_offsets(), points.get_array()])))
    assert drawn == sorted(zip(gate.ravel(), up.ravel(), hidden.ravel(), strict=True))
    assert sum(bars(fig.axes[1], "gate")) == sum(bars(fig.axes[2], "hidden")) == 12


def test_swiglu_states_closed_gates_and_where_the_energy_is():
    # Three of four gates are negative. Squares 9, 4, 1 and 0: the largest holds 64 % of the energy, two hold 93 %.
    fig = viz.swiglu([[-1.0, -2.0, -3.0, 4.0]], [[1.0] * 4], [[-1.0, 0.0, -2.0, 3.0]])
    assert heading(fig).startswith("75 % of the gates are below 0")
    assert heading(fig).endswith("50 % of the hidden values carry 90 % of the energy")


def test_the_residual_stream_shows_norms_after_every_addition():
    seen = {
        "embedding": [[3.0, 4.0]],
        "layers.0.attention_output": [[0.0, 8.0]],
        "layers.0.attention_residual": [[3.0, 12.0]],
        "layers.0.ffn_output": [[-3.0, 0.0]],
        "layers.0.output": [[0.0, 12.0]],
    }
    fig = viz.residual_stream(seen)
    [line] = [line for line in fig.axes[0].lines if line.get_gid() == "stream"]
    norms = [5, 153**0.5, 12]  # by Pythagoras
    assert line.get_ydata().tolist() == pytest.approx(norms)
    assert images(fig)[0][0].tolist() == pytest.approx(norms)
    assert [p.get_height() for p in fig.axes[0].patches] == pytest.approx([8, 3])
    assert heading(fig) == "The stream goes from 5 to 12; layer 0's attention adds most (8)"


@pytest.mark.parametrize("missing", ["embedding", "layers.1.ffn_output", "layers.0.output"])
def test_an_incomplete_capture_is_refused(missing):
    seen = {name: value for name, value in residual(3).items() if name != missing}
    with pytest.raises(InputError):
        viz.residual_stream(seen)


def test_softmax_of_masked_and_huge_logits():
    assert lens_softmax(np.array([[0.0, -np.inf], [1e4, 1e4]])).tolist() == [[1, 0], [0.5, 0.5]]


def test_the_lens_writes_the_likeliest_token_of_each_layer_from_the_bottom_up():
    logits = np.log([[[0.6, 0.3, 0.1]], [[0.2, 0.5, 0.3]], [[0.1, 0.8, 0.1]]])
    fig = viz.logit_lens(logits, ["x"], ["a", "b", "c"])
    ax = panels(fig)[0]
    assert row_labels(ax) == ["layer 1", "layer 0", "embedding"]
    assert images(fig)[0][:, 0].tolist() == pytest.approx([0.8, 0.5, 0.6])
    assert [text.get_text() for text in sorted(ax.texts, key=lambda t: t.get_position()[1])] == ["b", "b", "a"]
    assert [p.get_xy()[1] for p in ax.patches if p.get_gid() == "settled"] == [1 - 0.44]
    assert heading(fig) == "After the last token the answer is “b” from layer 0 on, in the end with 0.80"


def test_the_next_tokens_stand_in_order_and_cut_ones_are_hatched():
    fig = viz.next_token([0.2, 0.5, 0.3], ["a", "b", "c"], kept=[False, True, True])
    ax = fig.axes[0]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["b", "c", "a"]
    assert bars(ax, "kept") == [0.5, 0.3] and bars(ax, "cut") == [0.2]
    assert all(patch.get_hatch() for patch in ax.patches if patch.get_gid() == "cut")
    assert heading(fig) == "“b” has 0.50; the cuts keep 2 tokens of 3, which hold 0.80 of the probability"


def test_the_running_sum_counts_from_the_likeliest():
    fig = viz.next_token([0.2, 0.5, 0.3])
    [line] = [line for line in fig.axes[1].lines if line.get_gid() == "sum"]
    assert line.get_ydata().tolist() == pytest.approx([0.5, 0.8, 1.0])


@pytest.mark.parametrize("values", [[0.5, 0.6], [-0.5, 1.5], [float("nan"), 1.0], [3.0, 1.0]])
def test_what_is_no_distribution_is_refused(values):
    with pytest.raises(InputError, match="no probabilities"):
        viz.next_token(values)


@looks
def test_looks_of_rms_norm_distribution():
    return viz.rms_norm_distribution(3 * wave(8, 64) ** 3, wave(8, 64), words(8))


@looks
def test_looks_of_rms_norm_epsilon():
    sizes = np.geomspace(1e-5, 1e2, 30)
    return viz.rms_norm_epsilon(sizes, {f"ε = {e}": sizes / np.sqrt(sizes**2 + e) for e in (1e-3, 1e-5)})


@looks
def test_looks_of_rms_norm_precision():
    exact = wave(16, 64)
    return viz.rms_norm_precision(exact, {"float16": exact.astype(np.float16), "float32": exact.astype(np.float32)})


@looks
def test_looks_of_swiglu():
    gate, up = 3 * wave(8, 64), wave(8, 64, speed=2.9)
    return viz.swiglu(gate, up, gate / (1 + np.exp(-gate)) * up)


@looks
def test_looks_of_residual_stream():
    return viz.residual_stream(residual(8, layers=3), words(8))


@looks
def test_looks_of_logit_lens():
    return viz.logit_lens(6 * wave(4, 8, 10), words(8), WORDS)


@looks
def test_looks_of_next_token():
    p = softmax(5 * wave(40))
    return viz.next_token(p, words(40), kept=p > 0.03, reference=softmax(3 * wave(40)), top_p=0.9)
