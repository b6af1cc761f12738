"""The notebooks as files: complete, self-contained, of one shape, the same on every machine."""

import re

import pytest
from notebook_files import NOTEBOOKS, ROOT, read, tags

from llama_core.checkpoints.mistakes import CATALOGUE
from llama_core.checkpoints.specification import CHECKPOINTS

#: Taught in a notebook, and no checkpoint.
BEYOND = {"11_port_your_own"}
SECTIONS = ["Where you are", "The idea", "By hand", "See it", "Break it", "Your turn", "The gate"]
MARKERS = re.compile(r"NBVAL_(?:IGNORE_OUTPUT|SKIP|RAISES_EXCEPTION)")
MARKER_TAGS = {"nbval-ignore-output", "nbval-skip", "nbval-raises-exception", "raises-exception"}
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/(?:home|Users|root|tmp|work|usr|opt|mnt|content)/\w|\b[A-Z]:\\\\?\w")
REMOTE = re.compile(
    r"""(?:src|srcset|poster)\s*=\s*\\?["']?\s*(?:https?:)?//|@import|url\(\s*["']?https?:|<script|<link\b"""
)
MARKDOWN_IMAGE = re.compile(r"!\[[^\]]*\]\(|<img\b")

one_by_one = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def markdown(path) -> str:
    return "\n\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")


def outputs(path):
    return [output for cell in code_cells(path) for output in cell.outputs]


def without_markup(text: str) -> str:
    """The words that a reader reads: no formulas, no addresses of links, no HTML tags, no table rules."""
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", " ", text, flags=re.DOTALL)
    return re.sub(r"\]\([^)]*\)|<[^>]+>|^[|:\- ]+$|[|#*`]", " ", text, flags=re.MULTILINE)


def test_every_checkpoint_has_its_notebook():
    names = {path.stem for path in NOTEBOOKS}
    assert names - BEYOND == {checkpoint.notebook for checkpoint in CHECKPOINTS.values()}


def test_each_notebook_leads_to_the_following_one_and_the_last_to_none():
    leads = {
        path.stem: re.findall(r"^Next: \[(\w+)\]\((\w+)\.ipynb\)", markdown(path), re.MULTILINE) for path in NOTEBOOKS
    }
    following = [[(name, name)] for name in list(leads)[1:]]
    assert leads == dict(zip(leads, [*following, []], strict=True))


def test_the_section_that_teaches_a_mistake_is_there():
    headings = {
        path.stem + "#" + re.sub(r"\W+", "-", heading.lower()).strip("-")
        for path in NOTEBOOKS
        for heading in re.findall(r"^#+ (.+)$", markdown(path), re.MULTILINE)
    }
    assert [mistake.id for mistake in CATALOGUE.values() if mistake.notebook not in headings] == []


def test_few_cells_escape_comparison_and_each_says_why():
    marked = [
        (path.stem, cell.source)
        for path in NOTEBOOKS
        for cell in code_cells(path)
        if MARKERS.search(cell.source) or MARKER_TAGS & set(tags(cell))
    ]
    assert len(marked) <= 3, [name for name, _ in marked]
    for name, source in marked:
        comments = [line.lstrip("# ") for line in source.splitlines() if line.startswith("#")]
        assert any(len(c.split()) >= 4 for c in comments if not MARKERS.search(c)), f"{name} gives no reason:\n{source}"


@one_by_one
def test_the_kernel_is_python3_and_no_version_is_stored(path):
    metadata = read(path).metadata
    assert metadata.kernelspec.name == "python3"
    assert metadata.language_info == {"name": "python"}


@one_by_one
def test_no_state_of_widgets_and_no_times_are_stored(path):
    assert set(read(path).metadata) == {"kernelspec", "language_info"}
    assert not any("execution" in cell.metadata for cell in read(path).cells)


@one_by_one
def test_the_cells_were_run_once_from_first_to_last(path):
    counts = [cell.execution_count for cell in code_cells(path)]
    assert counts == list(range(1, len(counts) + 1))


@one_by_one
def test_no_output_is_an_error(path):
    assert [output.ename for output in outputs(path) if output.output_type == "error"] == []


@one_by_one
def test_no_absolute_path(path):
    texts = [cell.source for cell in read(path).cells]
    texts += [text for output in outputs(path) for text in texts_of(output)]
    assert [text[:200] for text in texts if ABSOLUTE_PATH.search(text)] == []


def texts_of(output) -> list[str]:
    """The texts in an output; pictures are none."""
    data = {mime: text for mime, text in output.get("data", {}).items() if not mime.startswith("image/")}
    return [text for text in (output.get("text", ""), *data.values()) if isinstance(text, str)]


@one_by_one
def test_nothing_is_shown_that_lies_elsewhere(path):
    texts = [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]
    texts += [text for output in outputs(path) for text in texts_of(output)]
    assert [text[:200] for text in texts if REMOTE.search(text)] == []


@one_by_one
def test_pictures_are_drawn_by_a_cell_not_linked(path):
    assert MARKDOWN_IMAGE.findall(markdown(path)) == []


@one_by_one
def test_nothing_is_downloaded(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    assert re.findall(r"https?://\S+|\b(?:urllib|requests|huggingface_hub)\b|^\s*[!%]\S+", source, re.MULTILINE) == []


@one_by_one
def test_the_file_is_under_one_megabyte(path):
    assert path.stat().st_size < 1_000_000


@one_by_one
def test_every_picture_is_a_png_with_alternative_text(path):
    for output in outputs(path):
        for mime in (mime for mime in output.get("data", {}) if mime.startswith("image/")):
            alt = output.metadata.get(mime, {}).get("alt", "")
            assert mime == "image/png" and len(alt.split()) >= 4, f"{mime} has the alternative text {alt!r}"


@one_by_one
def test_there_is_at_least_one_picture(path):
    assert any("image/png" in output.get("data", {}) for output in outputs(path))


@one_by_one
def test_it_has_thirty_to_sixty_cells(path):
    assert 30 <= len(read(path).cells) <= 60


@one_by_one
def test_no_line_of_code_is_wider_than_a_page(path):
    lines = [line for cell in code_cells(path) for line in cell.source.splitlines()]
    assert [line for line in lines if len(line) > 120] == []


@one_by_one
def test_it_says_what_it_says_in_two_thousand_words(path):
    assert len(without_markup(markdown(path)).split()) <= 2000


@one_by_one
def test_it_opens_with_what_you_will_learn_how_long_it_takes_and_what_you_should_know(path):
    first = read(path).cells[0]
    assert first.cell_type == "markdown" and first.source.startswith("# ")
    opening = markdown(path).split("## The idea")[0].lower()
    assert "you will be able to" in opening
    assert re.search(r"\d+ minutes", opening)
    assert "you should know" in opening


@one_by_one
def test_the_sections_that_are_never_missing_are_there_in_order(path):
    headings = [line.removeprefix("## ").strip() for line in markdown(path).splitlines() if line.startswith("## ")]
    assert [heading for heading in headings if heading in SECTIONS] == SECTIONS


@one_by_one
def test_the_device_is_chosen_in_one_place_and_is_the_cpu(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    assert re.findall(r"^device = (.*?)(?:\s+#.*)?$", source, re.MULTILINE) == ['"cpu"']


@one_by_one
def test_its_own_checkpoint_is_marked_and_its_gate_run(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    (id,) = [c.id for c in CHECKPOINTS.values() if c.notebook == path.stem] or [None]
    if path.stem in BEYOND:
        assert re.search(rf'checkpoint_strip\("{path.stem.split("_")[0]}"', source)
    if id is not None:
        assert re.search(rf'checkpoint_strip\("{id}"', source)
        assert re.search(rf'\bcheck\("{id}"', source)


@one_by_one
def test_widgets_cannot_stall_a_run(path):
    source = "\n".join(cell.source for cell in code_cells(path))
    assert re.findall(r"\binteract(?:ive|_manual)?\(|\bOutput\(|clear_output|display_id|update_display", source) == []


def test_nothing_but_notebooks_their_strictness_the_engine_and_the_readmes_figures_lies_there():
    names = {path.name for path in (ROOT / "notebooks").iterdir() if not path.name.startswith((".", "__"))}
    assert names == {"conftest.py", "engine", "figures", *(path.name for path in NOTEBOOKS)}
    assert {path.name for path in (ROOT / "notebooks" / "engine").iterdir()} == {"llama.c", "mistakes.toml"}
