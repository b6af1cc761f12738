"""The pieces of ``llama_core.report`` in their three forms, against forms written by hand."""

import re
from html.parser import HTMLParser

import pytest

from llama_core.report import (
    WIDTH,
    Code,
    Figure,
    Folded,
    Link,
    Listing,
    Mark,
    Page,
    Paragraph,
    Ready,
    Section,
    Table,
)

PNG = b"\x89PNG\r\n\x1a\n and so on"
VOID = {"meta", "br", "img", "link", "hr"}


class Reader(HTMLParser):
    """Notes every tag, and whether each that opens is closed in turn."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.balanced = [], [], True
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.balanced &= bool(self.open) and self.open.pop() == tag


def test_a_paragraph_has_code_verdicts_and_links_in_each_form():
    words = ("see `a_b` ", Mark("PASS", True), " in ", Link("the other", "02_other"))
    piece = Paragraph(words)
    assert piece.text() == "see a_b PASS in the other"
    assert piece.markdown() == "see `a_b` **PASS** in [the other](02_other.md)"
    assert piece.html() == (
        '<p>see <code>a_b</code> <strong class="good">PASS</strong> in <a href="02_other.html">the other</a></p>'
    )


def test_a_link_to_elsewhere_keeps_its_address():
    link = Link("thread", "https://example.org/1")
    assert Paragraph(link).html() == '<p><a href="https://example.org/1">thread</a></p>'
    assert Paragraph(link).markdown() == "[thread](https://example.org/1)"


@pytest.mark.parametrize(
    ("words", "html", "markdown"),
    [
        ('<b> & "q"', "<p>&lt;b&gt; &amp; &quot;q&quot;</p>", '\\<b\\> & "q"'),
        ("a*b_c[d]", "<p>a*b_c[d]</p>", "a\\*b\\_c\\[d\\]"),
        ("`x` and ` alone", "<p><code>x</code> and  alone</p>", "`x` and  alone"),
        ("`a < b`", "<p><code>a &lt; b</code></p>", "`a < b`"),
    ],
)
def test_what_is_markup_elsewhere_is_text_here(words, html, markdown):
    assert Paragraph(words).html() == html
    assert Paragraph(words).markdown() == markdown


def test_a_table_leaves_out_columns_in_which_there_is_nothing():
    table = Table(("case", "path", "error"), [["one", "", "0.5"], ["a | b", "", "12"]], frozenset({"error"}))
    assert table.text() == "  case   error\n  one      0.5\n  a | b     12"
    assert table.markdown() == "| case | error |\n| --- | ---: |\n| one | 0.5 |\n| a \\| b | 12 |"
    assert "path" not in table.html()
    assert re.findall(r'<td class="number">(.*?)</td>', table.html()) == ["0.5", "12"]


def test_a_table_without_a_header_is_facts_by_name():
    table = Table(("", ""), [["status", Mark("FAIL", False)]])
    assert table.text() == "  status  FAIL"
    assert table.html() == (
        '<table>\n<tr><th scope="row">status</th><td><strong class="bad">FAIL</strong></td></tr>\n</table>'
    )


def test_code_keeps_its_lines_and_outlasts_fences_in_it():
    assert Code("a\n  <b>").html() == "<section><pre>a\n  &lt;b&gt;</pre></section>"
    assert Code("```\nx").markdown() == "````\n```\nx\n````"


def test_a_figure_carries_its_bytes_and_its_words():
    figure = Figure("03-checks", PNG, 'a "quoted" map\nof errors')
    (tag, attributes), *_ = (t for t in Reader(figure.html()).tags if t[0] == "img")
    assert attributes["src"].startswith("data:image/png;base64,iVBORw0KGgo")
    assert attributes["alt"] == 'a "quoted" map\nof errors'
    assert figure.markdown() == '![a "quoted" map of errors](figures/03-checks.png)'
    assert figure.text() == '[figure] a "quoted" map of errors'


def test_a_page_finds_figures_however_deep():
    figure = Figure("f", PNG, "words")
    assert Page("p", "t", (Section("a", [Folded("b", [Section("c", [figure], 3)])]),)).figures() == [figure]


@pytest.fixture
def page():
    pieces = (
        Ready("<div>strip</div>", "strip"),
        Section("First <one>", [Paragraph("long " * 60), Section("Inner", [Listing(["a " * 80, "b"])], 3)]),
        Section("Second", [Folded("more", [Table(("x",), [["1"]])]), Figure("f", PNG, "words")]),
    )
    return Page("p", "A & B", pieces, (Link("All", "index"),), "made by <hand>")


def test_a_page_is_well_formed_and_takes_nothing_from_elsewhere(page):
    reader = Reader(page.html())
    assert reader.balanced and not reader.open
    assert not [tag for tag, _ in reader.tags if tag in ("script", "link", "iframe")]
    assert all(a["src"].startswith("data:") for _, a in reader.tags if "src" in a)
    assert "url(" not in page.html() and "@import" not in page.html()


def test_a_page_has_headings_in_order(page):
    assert [tag for tag, _ in Reader(page.html()).tags if re.fullmatch("h[1-6]", tag)] == ["h1", "h2", "h3", "h2"]
    assert re.findall(r"^#+ .*", page.markdown(), re.MULTILINE) == [
        "# A & B",
        "## First \\<one\\>",
        "### Inner",
        "## Second",
    ]


def test_terminal_text_fits_the_width(page):
    assert max(map(len, page.text().splitlines())) <= WIDTH
    assert "long long" in page.text() and "\x1b" not in page.text()
