"""Write the workbook as static pages that need nothing from elsewhere: no script, no font, no picture.

A page for each notebook, for the documents that they lead to and for files that these link (`page_links`), an index,
and below ``api/`` the package's public names (`api_pages`). Formulas become MathML, which browsers draw by themselves;
figures are embedded; the stylesheet is the project's own, in light and dark. What needs a kernel is named in its place.

usage: python tools/html_pages.py [--to FOLDER] NOTEBOOK.ipynb ...
"""

from __future__ import annotations

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path

import latex2mathml.converter
import nbformat
from jinja2 import Environment, FileSystemLoader, pass_context
from mistune.plugins.table import render_table_cell
from nbconvert.exporters import HTMLExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from page_links import Links
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import TextLexer, get_lexer_for_filename
from pygments.util import ClassNotFound

from llama_core import traces, viz
from llama_core.viz.strip import CHECKPOINTS

TEMPLATES = Path(__file__).with_name("pages")
STYLESHEET = Path(viz.__file__).with_name("llama_core.css")
#: Document -> the address of its page, in the order of the index.
DOCUMENTS = {
    Path(traces.__file__).with_name("GUIDE.md"): "guide.html",
    Path(traces.__file__).with_name("FORMAT.md"): "format.html",
}
LICENCE = "Text and figures: CC BY 4.0. Code: Apache-2.0."

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
NEEDS_KERNEL = (
    '<p class="needs-kernel">Something to play with stands here when the notebook runs: <code>make lab</code>.</p>'
)

_SHAPE = re.compile(r"\[(?=[^\]]*, )[^\[\]<>]{1,24}\]|\b[A-Z](?: [A-Z]){1,3}\b")
_HEADING = re.compile(r"^# +(.+)$", re.MULTILINE)
_UNKNOWN_COMMAND = re.compile(r">\s*(\\[A-Za-z]+)")
_GAP_IN_A_LINE = re.compile(r"\S {2,}\S")
_END_OF_CODE = re.compile(r"[;{}]$")


@dataclass(frozen=True)
class Page:
    """What the index says of a notebook or a document."""

    address: str
    title: str
    opening: str
    checkpoint: str = ""
    name: str = ""


class FormulaError(ValueError):
    """A formula that cannot be written as MathML."""


def mathml(formula: str, display: str) -> str:
    """LaTeX as MathML. Raises FormulaError for a command or an environment that has no translation."""
    known = formula.replace("{aligned}", "{split}")  # the same thing, by the only name that latex2mathml knows
    written = latex2mathml.converter.convert(known, display=display)
    unknown = _UNKNOWN_COMMAND.findall(written)
    if unknown:
        raise FormulaError(f"no MathML for {', '.join(unknown)} in the formula {formula!r}")
    try:
        ElementTree.fromstring(written)
    except ElementTree.ParseError as error:  # as with `&` in an environment that it does not know
        raise FormulaError(f"no MathML for the formula {formula!r}") from error
    return written


def whole_shapes(html: str) -> str:
    """The HTML with shapes, such as [B, S, E] or B S E, as elements that the stylesheet keeps on one line."""
    return _SHAPE.sub(r'<span class="shape">\g<0></span>', html)


class Renderer(IPythonRenderer):
    """Markdown with anchors on headings, formulas as MathML, and shapes that no line break tears apart."""

    def paragraph(self, text: str) -> str:
        return super().paragraph(whole_shapes(text))

    def block_text(self, text: str) -> str:  # a list's item
        return super().block_text(whole_shapes(text))

    def table_cell(self, text: str, align: str | None = None, head: bool = False) -> str:
        return render_table_cell(self, whole_shapes(text), align, head)

    def block_math(self, body: str) -> str:
        return mathml(body, "block")

    def inline_math(self, body: str) -> str:
        return mathml(body, "inline")

    def latex_environment(self, name: str, body: str) -> str:
        return mathml(f"\\begin{{{name}}}{body}\\end{{{name}}}", "block")


class PageExporter(HTMLExporter):
    """nbconvert's exporter with this project's template and formulas."""

    @pass_context
    def markdown2html(self, context, source):
        renderer = Renderer(escape=False, anchor_link_text=self.anchor_link_text)
        return MarkdownWithMath(renderer=renderer).render(source)


def code_colours(selector: str) -> str:
    """The colours of code in elements that the selector names, in light and dark."""
    light, dark = (
        [line for line in HtmlFormatter(style=style).get_style_defs(selector).splitlines() if "background" not in line]
        for style in ("default", "github-dark")
    )
    return "\n".join([*light, "@media (prefers-color-scheme: dark) {", *dark, "}"])


def stylesheet() -> str:
    """The project's stylesheet, and the colours of code."""
    return "\n".join([STYLESHEET.read_text(encoding="utf-8"), code_colours(".highlight")])


def is_laid_out(text: str) -> bool:
    """Whether most lines of a printed text are rows of a table or code, which breaking a line would tear apart."""
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) > 1 and any(
        2 * sum(bool(sign.search(line)) for line in lines) > len(lines) for sign in (_GAP_IN_A_LINE, _END_OF_CODE)
    )


def opening(source: Path, text: str) -> tuple[str, str]:
    """The title and the first paragraph, as HTML, of a text in Markdown.

    Raises:
        ValueError: it does not start with a heading and a paragraph.
    """
    heading = _HEADING.match(text)
    paragraphs = [part for part in text.split("\n\n")[1:] if part.strip()]
    if not heading or not paragraphs:
        raise ValueError(f"{source.name} does not start with '# title' and a paragraph on what it is for")
    renderer = Renderer(escape=False, exclude_anchor_links=True)
    html = MarkdownWithMath(renderer=renderer).render(paragraphs[0]).strip()
    return heading[1], re.sub(r"^<p>|</p>$", "", html)


def described(path: Path, notebook: nbformat.NotebookNode) -> Page:
    """What a notebook's first cell says, and its checkpoint from the number in the file's name.

    Raises:
        ValueError: its first cell does not start with a heading and a paragraph.
    """
    number = path.stem.split("_")[0]
    checkpoint = number.lstrip("0").upper() or "0"
    title, paragraph = opening(path, notebook.cells[0].source if notebook.cells else "")
    return Page(f"{path.stem}.html", title, paragraph, checkpoint, CHECKPOINTS.get(checkpoint, title))


def way(pages: list[Page], current: int) -> str:
    """Links to the page before, the index and the page after."""
    links = ['<a href="index.html">All checkpoints</a>']
    if current > 0:
        before = pages[current - 1]
        links.insert(0, f'<a href="{before.address}" rel="prev">← {escape(before.title)}</a>')
    if current + 1 < len(pages):
        after = pages[current + 1]
        links.append(f'<a href="{after.address}" rel="next">{escape(after.title)} →</a>')
    return f'<nav class="way" aria-label="pages">{"".join(links)}</nav>'


def without_widgets(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy in which a line stands where a widget does: on a page there is nothing behind it."""
    notebook = nbformat.from_dict(notebook)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if WIDGET_VIEW in output.get("data", {}):
                output["data"] = {"text/html": NEEDS_KERNEL}
    return notebook


def page(notebook: nbformat.NotebookNode, path: Path, title: str, way: str, style: str, links: Links) -> str:
    """One notebook as HTML. Raises FormulaError where a formula has no MathML, LinkError where a link leads nowhere."""
    exporter = PageExporter(template_name="base")
    exporter.template_paths = [str(TEMPLATES), *exporter.template_paths]
    exporter.template_file = "notebook.html.j2"
    exporter.register_filter("is_laid_out", is_laid_out)
    exporter.register_filter("to_pages", lambda html: links.resolved(html, path))
    exporter.environment.globals["page"] = {"title": title, "style": style, "way": way, "licence": LICENCE}
    html, _ = exporter.from_notebook_node(without_widgets(notebook))
    return html


def shown(path: Path) -> str:
    """A file of text or code as HTML, in colours where its language is known."""
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = TextLexer()
    heading = f'<h1 id="{escape(path.name)}"><code>{escape(path.name)}</code></h1>'
    return heading + highlight(path.read_text(encoding="utf-8"), lexer, HtmlFormatter())


def write_pages(notebooks: list[Path], folder: Path) -> list[Path]:
    """Write a page for each notebook, document and file that they link, and the index; returns the files written."""
    folder.mkdir(parents=True, exist_ok=True)
    style, templates = stylesheet(), Environment(loader=FileSystemLoader(TEMPLATES))
    read = {path: nbformat.read(path, as_version=4) for path in notebooks}
    texts = {path: path.read_text(encoding="utf-8") for path in DOCUMENTS}
    pages = {path: described(path, notebook) for path, notebook in read.items()}
    documents = {path: Page(DOCUMENTS[path], *opening(path, text)) for path, text in texts.items()}
    links = Links({path: about.address for path, about in (pages | documents).items()})
    for known in (pages, documents):
        for path, about in known.items():
            known[path] = replace(about, opening=links.resolved(about.opening, path))

    def as_document(title: str, body: str) -> str:
        template = templates.get_template("document.html.j2")
        return template.render(title=title, body=body, way=way([], 0), style=style, licence=LICENCE)

    written = {}
    for number, (path, about) in enumerate(pages.items()):
        written[about.address] = page(read[path], path, about.title, way([*pages.values()], number), style, links)
    for path, about in documents.items():
        html = MarkdownWithMath(renderer=Renderer(escape=False)).render(texts[path])
        written[about.address] = as_document(about.title, links.resolved(html, path))
    for path, address in links.shown.items():
        written[address] = as_document(path.name, shown(path))
    written["index.html"] = templates.get_template("index.html.j2").render(
        pages=[*pages.values()], documents=[*documents.values()], style=style, licence=LICENCE
    )
    for address, html in written.items():
        (folder / address).write_text(html, encoding="utf-8")
    return [folder / address for address in written]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Write the workbook as static pages.")
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK.ipynb")
    parser.add_argument("--to", type=Path, default=Path("build/html"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    from api_pages import write_api_pages  # which takes the look of its pages from here

    for path in [*write_pages(options.notebooks, options.to), *write_api_pages(options.to / "api")]:
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
