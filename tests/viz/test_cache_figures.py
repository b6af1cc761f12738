import numpy as np
import pytest
from drawing import column_labels, hatched, heading, images, looks, panels, passes, row_labels

from llama_core import viz
from llama_core.errors import InputError
from llama_core.viz.cache import byte_text, cache_size


def written(fig) -> list[tuple[float, float, float]]:
    """Row, first slot and number of slots of each orange frame."""
    frames = [p for p in panels(fig)[0].patches if p.get_gid() == "written"]
    return [(p.get_y() + 0.5, p.get_x() + 0.5, p.get_width()) for p in frames]


def test_the_grid_holds_positions_and_hatches_empty_slots():
    positions = np.array([[-1, 0, 1, -1], [-1, 0, 1, 2]])  # one slot of left padding
    fig = viz.cache_filling(positions, ["<pad>", "a", "b", "c"], ["prefill", "decode"])
    ax = panels(fig)[0]
    assert images(fig)[0][positions >= 0].tolist() == [0, 1, 0, 1, 2]
    assert np.array_equal(hatched(ax), positions < 0)
    assert column_labels(ax) == ["<pad>", "a", "b", "c"]
    assert row_labels(ax) == ["prefill", "decode"]


def test_what_each_pass_writes_is_framed():
    fig = viz.cache_filling(passes(3, 6))
    assert written(fig) == [(0, 0, 3), (1, 3, 1), (2, 4, 1)]
    assert heading(fig) == "Pass 3 writes 1 slot and reads 5 of 6"


def test_frames_are_drawn_whole_over_the_hatching_beside_them():
    patches = panels(viz.cache_filling(passes(3, 6)))[0].patches
    hatching = [p.get_zorder() for p in patches if p.get_gid() == "masked"]
    frames = [p for p in patches if p.get_gid() == "written"]
    assert hatching and all(frame.get_zorder() > max(hatching) and not frame.get_clip_on() for frame in frames)


def test_a_slot_that_is_overwritten_by_another_position_is_framed_again():
    assert written(viz.cache_filling([[0, 1, -1], [2, 1, -1]])) == [(0, 0, 2), (1, 0, 1)]


def test_llama_2_7b_needs_half_a_megabyte_a_position():
    assert cache_size(32, 32, 128, 1, 2, 1) == 524_288  # 2 · 32 layers · 32 heads · 128 · 2 bytes


@pytest.mark.parametrize(
    "size, text", [(512, "512 bytes"), (2048, "2 KiB"), (1.5 * 2**30, "1.5 GiB"), (2**41, "2 TiB")]
)
def test_bytes_are_written_in_powers_of_1024(size, text):
    assert byte_text(size) == text


def test_lines_and_bars_follow_the_number_of_key_heads():
    fig = viz.cache_bytes({"MHA": 32, "GQA": 8}, num_layers=32, head_dim=128, lengths=[4096, 1024])
    lines = {line.get_gid(): line.get_ydata().tolist() for line in fig.axes[0].lines}
    assert lines == {"MHA": [2**29, 2**31], "GQA": [2**27, 2**29]}
    assert [bar.get_width() for bar in fig.axes[1].patches] == [2**31, 2**29]
    assert heading(fig) == "At 4,096 positions: 2 GiB with “MHA”, 512 MiB with “GQA”"


@pytest.mark.parametrize(
    "change", [{"num_layers": 0}, {"head_dim": -1}, {"lengths": [0]}, {"key_heads": {"a": 0}}, {"key_heads": {}}]
)
def test_sizes_that_are_not_positive_are_refused(change):
    settings = {"key_heads": {"a": 1}, "num_layers": 1, "head_dim": 1, "lengths": [1]} | change
    with pytest.raises(InputError):
        viz.cache_bytes(settings.pop("key_heads"), **settings)


@looks
def test_looks_of_cache_filling():
    return viz.cache_filling(passes(5, 10))


@looks
def test_looks_of_cache_bytes():
    return viz.cache_bytes({"MHA": 32, "GQA": 8, "MQA": 1}, num_layers=32, head_dim=128, lengths=2 ** np.arange(7, 15))
