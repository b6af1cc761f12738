import base64
import io

import pytest
from matplotlib.figure import Figure
from PIL import Image

from llama_core import viz
from llama_core.errors import InputError


@pytest.fixture
def figure():
    fig = Figure(figsize=(3, 2), dpi=100)
    fig.subplots().plot([1, 2, 3])
    return fig


def test_png_is_a_picture_of_the_figures_size(figure):
    assert Image.open(io.BytesIO(viz.png(figure))).size == (300, 200)


def test_png_gives_the_same_bytes_each_time(figure):
    assert viz.png(figure) == viz.png(figure)


def test_a_figure_without_alternative_text_is_refused(figure):
    with pytest.raises(InputError, match="alternative text"):
        viz.show(figure)


def test_show_prints_the_alternative_text_outside_of_ipython(figure, capsys, monkeypatch):
    monkeypatch.setattr("IPython.get_ipython", lambda: None)
    viz.show(figure, alt="A line that rises")
    assert capsys.readouterr().out == "A line that rises\n"


def test_show_displays_the_png_with_its_alternative_text(figure, monkeypatch):
    shown = []
    monkeypatch.setattr("IPython.get_ipython", lambda: object())
    monkeypatch.setattr("IPython.display.display", lambda data, **settings: shown.append((data, settings)))
    viz.show(figure, alt="A line that rises")
    [(data, settings)] = shown
    assert base64.b64decode(data["image/png"]) == viz.png(figure)
    assert data["text/plain"] == "A line that rises"
    assert settings == {"raw": True, "metadata": {"image/png": {"alt": "A line that rises"}}}


def test_the_text_that_a_figure_was_given_serves_unless_another_is(figure):
    figure.set_label("from the figure")
    assert viz.alternative_text(figure) == "from the figure"
    assert viz.alternative_text(figure, "from the caller") == "from the caller"


def test_show_closes_a_figure_of_pyplot(capsys):
    import matplotlib.pyplot as plt

    fig = plt.figure()
    viz.show(fig, alt="nothing yet")
    assert fig.number not in plt.get_fignums()
