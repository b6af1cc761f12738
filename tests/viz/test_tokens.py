import numpy as np
import pytest
from matplotlib.figure import Figure

from llama_core.errors import InputError
from llama_core.viz.tokens import set_token_ticks, token_label, token_labels, vocabulary_label


@pytest.mark.parametrize(
    "token, label",
    [
        (" day", "▁day"),
        (" ", "▁"),
        ("a ", "a▁"),
        ("head 0", "head 0"),
        ("▁day", "▁day"),
        ("\n", "↵"),
        ("\t", "⇥"),
        ("<0x0A>", "<0x0A>"),
        ("é", "é"),
        ("中", "U+4E2D"),
        ("🦙", "U+1F999"),
        ("\u200b", "U+200B"),
        ("$x$", "$x$"),
        ("exactly14chars", "exactly14chars"),
        ("incomprehensible", "incomprehensi…"),
    ],
)
def test_a_token_is_written_so_that_it_can_be_read(token, label):
    assert token_label(token) == label


def test_without_tokens_positions_are_numbered():
    assert token_labels(None, 3) == ["0", "1", "2"]


@pytest.mark.parametrize("tokens", [["a"], ["a", "b", "c"], "ab"])
def test_another_number_of_tokens_is_refused(tokens):
    with pytest.raises(InputError, match="one string for each position"):
        token_labels(tokens, 2)


def test_ids_instead_of_strings_are_refused():
    with pytest.raises(InputError, match="a token must be a string"):
        token_labels([1, 2], 2)


def test_a_vocabulary_is_a_list_or_a_function_or_absent():
    assert vocabulary_label(["a", " b"], 1) == "▁b"
    assert vocabulary_label(lambda token: f"<{token}>", 7) == "<7>"
    assert vocabulary_label(None, 7) == "7"


def test_an_id_outside_of_the_vocabulary_is_refused():
    with pytest.raises(InputError, match="vocabulary is too short"):
        vocabulary_label(["a"], 1)


def test_labels_are_left_out_where_there_is_no_room_for_all():
    ax = Figure().subplots()
    set_token_ticks(ax.yaxis, list("abcdefgh"), pitch=3.0)  # 6.3 points a label: every third
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "d", "g"]
    assert np.array_equal(ax.get_yticks(), [0, 3, 6])


@pytest.mark.parametrize(
    "columns, pitch, shown",
    [(8, 20.0, range(8)), (24, 6.0, range(0, 24, 2)), (40, 4.0, range(0, 40, 5)), (300, 0.5, range(0, 300, 50))],
)
def test_numbers_of_columns_stay_upright_and_do_not_touch(columns, pitch, shown):
    fig = Figure(dpi=72)  # a pixel is a point
    ax = fig.add_axes((0, 0.2, 1, 0.8))
    fig.set_size_inches(columns * pitch / 72, 1)
    ax.set_xlim(-0.5, columns - 0.5)
    set_token_ticks(ax.xaxis, [str(n) for n in range(columns)], pitch)
    fig.draw_without_rendering()
    labels = ax.get_xticklabels()
    boxes = [label.get_window_extent() for label in labels]
    assert [label.get_text() for label in labels] == [str(n) for n in shown]
    assert {label.get_rotation() for label in labels} == {0}
    assert all(left.x1 + 1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


@pytest.mark.parametrize("pitch, angle", [(60.0, 0), (12.0, 90)])
def test_column_labels_are_turned_where_they_would_touch(pitch, angle):
    ax = Figure().subplots()
    set_token_ticks(ax.xaxis, ["▁little", "▁cat"], pitch=pitch)
    ax.figure.draw_without_rendering()
    assert ax.get_xticklabels()[0].get_rotation() == angle
