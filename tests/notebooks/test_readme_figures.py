"""The README shows figures of the notebooks, as they are stored now."""

import re

from notebook_files import ROOT, tool

readme_figures = tool("readme_figures")
SHOWN = re.findall(r"!\[([^\]]*)\]\((notebooks/figures/[^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_readme_shows_every_figure_with_a_description():
    assert {path for _, path in SHOWN} == {f"notebooks/figures/{name}" for name in readme_figures.FIGURES}
    assert all(len(text) > 40 for text, _ in SHOWN)


def test_the_figures_are_those_of_the_notebooks():
    for name, data in readme_figures.figures().items():
        assert (readme_figures.FOLDER / name).read_bytes() == data, f"{name}: run `make notebooks`"
