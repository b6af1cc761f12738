"""What holds for all figures: nothing clipped, nothing overlapping, the same picture wherever it is drawn."""

import functools
import io
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from drawing import FIGURES, words
from matplotlib.text import Text
from PIL import Image

from llama_core import viz

LONG = "▁incomprehensibilities"
every_figure = pytest.mark.parametrize("name", FIGURES)


@functools.cache
def drawn(name: str, count: int, long: bool = False):
    """Several tests look at the same figure."""
    return FIGURES[name](count, [LONG] * count if long else words(count))


@functools.cache
def picture(name: str) -> bytes:
    return viz.png(drawn(name, 8))


def tick_labels(axis):
    """Those that are drawn: an axis also keeps labels beyond its limits, and a hidden one keeps all."""
    if not axis.get_visible():
        return []
    labels = [label for tick in axis._update_ticks() for label in (tick.label1, tick.label2)]
    return [label for label in labels if label.get_visible() and label.get_text()]


def texts(fig):
    axes = [axis for ax in fig.axes if ax.axison for axis in (ax.xaxis, ax.yaxis)]
    ticks = [tick for axis in axes for tick in axis.get_major_ticks() + axis.get_minor_ticks()]
    of_ticks = {id(label) for tick in ticks for label in (tick.label1, tick.label2)}
    others = [t for t in fig.findobj(Text) if id(t) not in of_ticks and t.get_visible() and t.get_text().strip()]
    return others + [label for axis in axes for label in tick_labels(axis)]


@every_figure
@pytest.mark.parametrize("count, long", [(1, False), (8, False), (40, False), (12, True)])
def test_no_text_leaves_the_figure(name, count, long):
    fig = drawn(name, count, long)
    assert fig.get_figwidth() <= 10
    border = fig.bbox.padded(1)
    boxes = {text.get_text(): text.get_window_extent() for text in texts(fig)}
    assert [text for text, box in boxes.items() if not border.contains(*box.p0) or not border.contains(*box.p1)] == []


def test_a_sheet_of_one_head_has_room_for_the_list_of_forty_tokens():
    fig = viz.head_sheet(np.tri(40)[None, None] / np.arange(1, 41)[:, None], words(40))
    assert max(text.get_window_extent().x1 for text in texts(fig)) <= fig.bbox.x1


def test_the_title_of_a_tall_sheet_stays_above_the_names_of_heads():
    fig = viz.head_sheet([np.eye(3)[None]] * 8)
    [head] = [text for text in fig.texts if text.get_text() == "head 0"]
    assert fig._suptitle.get_window_extent().y0 > head.get_window_extent().y1


@every_figure
@pytest.mark.parametrize("count", [1, 8, 40])
def test_the_title_covers_no_other_text(name, count):
    fig = drawn(name, count)
    title = fig.get_suptitle()
    boxes = {text.get_text(): text.get_window_extent() for text in texts(fig)}
    assert [text for text, box in boxes.items() if text != title and box.overlaps(boxes[title])] == []


@every_figure
@pytest.mark.parametrize("count", [8, 40])
def test_no_two_labels_of_an_axis_overlap(name, count):
    fig = drawn(name, count)
    clashes = []
    for ax in fig.axes:
        for axis, side in ((ax.xaxis, 0), (ax.yaxis, 1)):
            boxes = sorted((t.get_window_extent() for t in tick_labels(axis)), key=lambda box: box.p0[side])
            clashes += [side for a, b in zip(boxes, boxes[1:], strict=False) if b.p0[side] < a.p1[side] - 1.5]
    assert clashes == []


@every_figure
def test_alternative_text_holds_the_finding_that_the_title_states(name):
    fig = drawn(name, 8)
    title = " ".join(fig.get_suptitle().split())
    assert len(title) > 15
    assert fig.get_label().endswith(f"{title}.")


def test_a_title_of_the_caller_stands_in_place_of_the_finding():
    fig = viz.head_sheet([[[[1.0]]]], title="My title")
    assert fig.get_suptitle() == "My title"
    assert "Layer 0 head 0 puts 1.00 of its weight on" in fig.get_label()


def test_a_long_title_is_broken_into_lines_of_about_the_same_length():
    fig = viz.head_sheet([[[[1.0]]]], title="word " * 14)  # 70 characters on 5 inches
    assert [len(line) for line in fig.get_suptitle().splitlines()] == [34, 34]


@every_figure
def test_the_background_is_opaque_white_for_dark_pages(name):
    pixels = Image.open(io.BytesIO(picture(name))).convert("RGBA")
    corners = [pixels.getpixel(at) for at in ((0, 0), (pixels.width - 1, pixels.height - 1))]
    assert corners == [(255, 255, 255, 255)] * 2
    assert pixels.getextrema()[3] == (255, 255)


@every_figure
def test_drawing_a_figure_again_gives_the_same_bytes(name):
    first = picture(name)
    assert viz.png(drawn(name, 8)) == first


@every_figure
def test_the_callers_settings_change_nothing(name):
    plain = picture(name)
    with matplotlib.rc_context({"font.size": 20, "image.cmap": "jet", "xtick.major.pad": 30, "ytick.major.pad": 30}):
        assert viz.png(FIGURES[name](8, words(8))) == plain


def test_figures_need_neither_pyplot_nor_a_display():
    program = (
        "import sys; from llama_core import viz; fig = viz.head_sheet([[[[1.0]]]]); viz.png(fig);"
        "viz.show(fig); print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == "False"


def test_importing_the_package_and_the_list_of_figures_leaves_matplotlib_out():
    program = (
        "import sys, llama_core, llama_core.viz; llama_core.viz.checkpoint_strip; print('matplotlib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_every_public_name_exists_and_is_no_module():
    assert {type(getattr(viz, name)).__name__ for name in viz.__all__} == {"function"}


def test_a_torch_tensor_of_any_type_draws_like_the_array():
    import torch

    values = np.array([[[[1.0, 0.0], [0.25, 0.75]]]])
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        tensor = torch.tensor(values, dtype=dtype, requires_grad=True)
        assert viz.png(viz.head_sheet(tensor)) == viz.png(viz.head_sheet(values))
