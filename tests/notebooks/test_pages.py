"""tools/html_pages.py: pages that need nothing from elsewhere, on a small notebook and on those of the checkout."""

import re
from collections import Counter
from html import unescape
from html.parser import HTMLParser
from posixpath import dirname, join, normpath
from urllib.parse import unquote

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from notebook_files import NOTEBOOKS, tool

page_links = tool("page_links")  # before the tool that imports it by its name
html_pages = tool("html_pages")

WIDGET_VIEW = {"application/vnd.jupyter.widget-view+json": {"model_id": "0" * 32}, "text/plain": "VBox(children=...)"}
PICTURE = {"image/png": "iVBORw0KGgo=", "text/plain": "a line"}
SMALL = new_notebook(
    cells=[
        new_markdown_cell("# Attention\n\nSee what $\\sqrt{D}$ is for. And more.\n\nForty minutes."),
        new_markdown_cell(
            "## The idea\n\n$$\\frac{a < b}{c}$$\n\nBefore: [rotary](01b_rope.ipynb#By-hand). "
            'In C: [engine](engine/one.c), and `<a href="x">` is a link.'
        ),
        new_markdown_cell("<details><summary>Hint</summary>\n\nDivide by `8`.\n\n</details>"),
        new_code_cell("1 + 1", outputs=[new_output("execute_result", {"text/plain": "the value 2"})]),
        new_code_cell(
            "show()", outputs=[new_output("display_data", PICTURE, metadata={"image/png": {"alt": 'a "line"'}})]
        ),
        new_code_cell("table()", outputs=[new_output("stream", text="tensor   error\nq        0.3\n")]),
        new_code_cell("code()", outputs=[new_output("stream", text="int one(void) {\n    return 1;\n}\n")]),
        new_code_cell(
            "say()", outputs=[new_output("stream", text="One day a boy sat here.\n   mend:   Sit down.\nHe met\n")]
        ),
        new_code_cell("box", outputs=[new_output("display_data", WIDGET_VIEW)]),
        new_code_cell("x = 3", metadata={"jupyter": {"source_hidden": True}, "tags": ["solution"]}),
    ]
)
BEFORE = new_notebook(
    cells=[new_markdown_cell("# Rotary\n\nTurn [pairs](03_attention.ipynb)."), new_markdown_cell("## By hand")]
)


class Elements(HTMLParser):
    """Every element of a page as (name, attributes), in order, and its end tags as ("/name", {})."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self.found.append((f"/{tag}", {}))

    def named(self, *names: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.found if name in names]


def broken_links(pages: dict[str, str], beside: tuple[str, ...] = ()) -> list[str]:
    """Every relative link that leads neither to one of the pages and an id on it, nor to what lies beside them."""
    ids = {address: {a["id"] for _, a in Elements(text).found if "id" in a} for address, text in pages.items()}
    broken = []
    for page, text in pages.items():
        for link in (a["href"] for a in Elements(text).named("a") if "href" in a):
            name, _, anchor = link.partition("#")
            address = normpath(join(dirname(page), name)) if name else page
            arrives = address in beside or (address in pages and {anchor, unquote(anchor)} & {"", *ids[address]})
            if not arrives and not link.startswith(("https://", "http://")):
                broken.append(f"{page}: {link}")
    return broken


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    nbformat.write(BEFORE, folder / "01b_rope.ipynb")
    nbformat.write(SMALL, folder / "03_attention.ipynb")
    (folder / "engine").mkdir()
    (folder / "engine" / "one.c").write_text("int one(void) { return 1 < 2; }\n")
    html_pages.write_pages([folder / "01b_rope.ipynb", folder / "03_attention.ipynb"], folder / "html")
    return folder / "html"


@pytest.fixture(scope="module")
def pages(small, tmp_path_factory):
    """All pages: those of the workbook with their index, and the small one's."""
    folder = tmp_path_factory.mktemp("pages")
    written = html_pages.write_pages(NOTEBOOKS, folder) if NOTEBOOKS else []
    return {path.name: path.read_text() for path in [*small.iterdir(), *written]}


def text_of(small, name: str = "03_attention.html") -> str:
    return (small / name).read_text()


def test_a_shape_is_in_one_piece_that_no_line_break_tears_apart():
    table = "| q | [1, S, 32] |\n|---|---|\n| `[1, 2]` | [a](a.md), [1, 8] |\n"
    text = "It is [B, S] of B S E and [0, 1).\n\n- from [H·D, E], [2](b.md)\n\n" + table
    written = html_pages.MarkdownWithMath(renderer=html_pages.Renderer(escape=False)).render(text)
    whole = re.findall(r'<span class="shape">(.*?)</span>', written)
    assert whole == ["[B, S]", "B S E", "[H·D, E]", "[1, S, 32]", "[1, 2]", "[1, 8]"]
    assert re.search(r"^\.shape {[^}]*white-space: nowrap", html_pages.stylesheet(), re.MULTILINE)


def test_every_notebook_has_a_page_that_the_index_links(pages):
    linked = {attributes["href"] for attributes in Elements(pages["index.html"]).named("a")}
    names = {f"{path.stem}.html" for path in NOTEBOOKS} or {"01b_rope.html", "03_attention.html"}
    assert linked == names | {"guide.html", "format.html", "api/index.html"}
    assert names | {"guide.html", "format.html"} <= set(pages)


def test_nothing_is_fetched_from_elsewhere(pages):
    for name, text in pages.items():
        elements = Elements(text)
        assert elements.named("script", "iframe", "object", "embed", "link") == [], name
        sources = [a[key] for _, a in elements.found for key in ("src", "srcset", "data", "poster") if key in a]
        assert [source[:40] for source in sources if not source.startswith("data:image/")] == [], name
        assert re.findall(r"url\(\s*(?!['\"]?data:)|@import", text) == [], name


def test_every_heading_can_be_linked_to_and_no_id_is_there_twice(pages):
    for name, text in pages.items():
        elements = Elements(text)
        assert all(attributes.get("id") for attributes in elements.named("h1", "h2", "h3", "h4")), name
        counts = Counter(attributes["id"] for _, attributes in elements.found if "id" in attributes)
        assert [id for id, count in counts.items() if count > 1] == [], name


def test_links_between_pages_lead_to_a_heading_that_is_there(pages):
    assert broken_links(pages, beside=("api/index.html",)) == []  # written by api_pages, and tested there


def test_a_link_to_a_heading_or_page_that_is_not_there_is_found():
    pages = {"a.html": '<a href="sub/b.html#x">', "sub/b.html": '<i id="y"><a href="../a.html"><a href="b.html#y">'}
    assert broken_links(pages) == ["a.html: sub/b.html#x"]
    assert broken_links(pages | {"c.html": '<a href="d.html"><a href="#e">'})[1:] == ["c.html: d.html", "c.html: #e"]


def test_both_light_and_dark_are_styled(pages):
    assert all("prefers-color-scheme: dark" in text for text in pages.values())


def test_a_formula_becomes_mathml(small):
    assert "<mfrac>" in text_of(small) and "$" not in re.sub(r"<style>.*?</style>", "", text_of(small), flags=re.DOTALL)


def test_aligned_lines_of_a_formula_keep_their_columns():
    written = html_pages.mathml(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "block")
    assert written.count("<mtr>") == 2 and written.count("<mtd") == 4


@pytest.mark.parametrize("formula", [r"\unheardof{x}", r"\begin{unheardof} a &= b \end{unheardof}"])
def test_a_formula_without_mathml_is_refused(formula):
    with pytest.raises(html_pages.FormulaError, match="unheardof"):
        html_pages.mathml(formula, "inline")


def test_links_to_notebooks_become_links_to_pages(small):
    assert 'href="01b_rope.html#By-hand"' in text_of(small)


def test_a_link_in_the_opening_leads_to_its_page_from_the_index_too(small):
    assert 'Turn <a href="03_attention.html">pairs</a>' in text_of(small, "index.html")


def test_a_linked_file_without_a_page_is_shown_in_colours_on_one(small):
    assert 'href="one.c.html"' in text_of(small) and '<code>&lt;a href="x"&gt;</code>' in text_of(small)
    shown = text_of(small, "one.c.html")
    assert '<span class="k">return</span>' in shown and '<a href="index.html">' in shown
    assert "intone(void){return1<2;}" in "".join(unescape(re.sub("<[^>]+>", "", shown)).split())


def test_documents_are_pages_with_coloured_code_that_link_each_other_and_the_engine(small):
    guide = text_of(small, "guide.html")
    assert {"format.html", "llama.c.html"} <= {a.get("href") for a in Elements(guide).named("a")}
    assert '<span class="c1"># exit status 1</span>' in guide
    assert '<span class="nt">"format"</span>' in text_of(small, "format.html")


@pytest.mark.parametrize("link", ["02_missing.ipynb", "../missing/FORMAT.md#noise", "engine"])
def test_a_link_to_what_is_not_there_is_refused(tmp_path, link):
    (tmp_path / "engine").mkdir()
    links = page_links.Links({tmp_path / "03_attention.ipynb": "03_attention.html"})
    with pytest.raises(page_links.LinkError, match=re.escape(f"03_attention.ipynb links '{link}', and there is no")):
        links.resolved(f'<a href="{link}">', tmp_path / "03_attention.ipynb")


def test_two_files_that_would_have_one_page_are_refused(tmp_path):
    for folder in ("c", "d"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "one.c").touch()
    links = page_links.Links({tmp_path / "a.ipynb": "a.html"})
    assert links.resolved('<a href="c/one.c#x">' * 2, tmp_path / "a.ipynb") == '<a href="one.c.html#x">' * 2
    with pytest.raises(page_links.LinkError, match=r"one\.c\.html of the page of .*Rename"):
        links.resolved('<a href="d/one.c">', tmp_path / "a.ipynb")


def test_values_and_pictures_with_their_alternative_text_are_shown(small):
    assert "the value 2" in text_of(small)
    assert {"src": "data:image/png;base64,iVBORw0KGgo=", "alt": 'a "line"'} in Elements(text_of(small)).named("img")


def test_a_printed_table_and_printed_code_keep_their_lines_whole_and_sentences_do_not(small):
    printed = {word: attributes for attributes, word in re.findall(r"<pre([^>]*)>(\w+)", text_of(small))}
    assert printed == {"the": "", "tensor": ' class="laid-out"', "int": ' class="laid-out"', "One": ""}


def test_a_widget_is_replaced_by_a_line_that_says_how_to_have_it(small):
    assert "make lab" in text_of(small) and "VBox" not in text_of(small)


def test_a_hint_and_a_solution_are_folded_with_all_they_say(small):
    folded = re.findall(r"<details>(.*?)</details>", text_of(small), re.DOTALL)
    assert len(folded) == 2
    assert "Divide by" in folded[0] and "<summary>Solution</summary>" in folded[1]


def test_the_index_gives_the_title_and_the_first_paragraph(small):
    text = text_of(small, "index.html")
    assert ">Attention</a>" in text and "is for. And more.</p>" in text and "Forty minutes" not in text


def test_a_notebook_without_an_opening_is_refused(tmp_path):
    path = tmp_path / "03_attention.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1")]), path)
    with pytest.raises(ValueError, match="does not start with"):
        html_pages.write_pages([path], tmp_path / "html")
