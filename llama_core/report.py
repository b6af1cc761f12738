"""One renderer for results: pages of sections, tables and figures as terminal text, Markdown and self-contained HTML.

A page is a tuple of pieces, and a piece knows its three forms. Text is plain, with `code` between backticks; `Mark` and
`Link` stand beside it in a tuple. Nothing on a page comes from elsewhere: pictures are embedded, the stylesheet is
inlined, and there is no script.
"""

from __future__ import annotations

import base64
import html
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

#: Columns of terminal text. Tables may be wider: a number is not wrapped.
WIDTH = 100
STYLESHEET = Path(__file__).with_name("viz") / "llama_core.css"


@dataclass(frozen=True)
class Mark:
    """A verdict: a word that is coloured where colours are."""

    text: str
    good: bool


@dataclass(frozen=True)
class Link:
    """A word that leads to another page, named by its file without an ending; outside pages carry theirs."""

    text: str
    address: str

    def to(self, ending: str) -> str:
        return self.address if "/" in self.address else f"{self.address}.{ending}"


Part = str | Mark | Link
#: What stands in a paragraph or a cell.
Inline = Part | tuple[Part, ...]


@runtime_checkable
class Piece(Protocol):
    """What a page is made of."""

    def text(self) -> str: ...
    def markdown(self) -> str: ...
    def html(self) -> str: ...


@dataclass(frozen=True)
class Paragraph:
    words: Inline

    def text(self) -> str:
        return textwrap.fill(inline_text(self.words), WIDTH, break_long_words=False, break_on_hyphens=False)

    def markdown(self) -> str:
        return inline_markdown(self.words)

    def html(self) -> str:
        return f"<p>{inline_html(self.words)}</p>"


@dataclass(frozen=True)
class Listing:
    """Points, one a line."""

    points: Sequence[Inline]

    def text(self) -> str:
        return "\n".join(
            textwrap.fill(
                inline_text(point), WIDTH, initial_indent="  - ", subsequent_indent="    ", break_long_words=False
            )
            for point in self.points
        )

    def markdown(self) -> str:
        return "\n".join(f"- {inline_markdown(point)}" for point in self.points)

    def html(self) -> str:
        return f"<ul>{''.join(f'<li>{inline_html(point)}</li>' for point in self.points)}</ul>"


@dataclass(frozen=True)
class Table:
    """Rows under a header, or facts by name where the header is empty.

    A column in which no row has anything is left out.

    Attributes:
        numbers: which columns are set flush right.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Inline]]
    numbers: frozenset[str] = frozenset()

    def _columns(self) -> list[int]:
        return [n for n in range(len(self.header)) if any(inline_text(row[n]) for row in self.rows)]

    def text(self) -> str:
        columns = self._columns()
        rows = [[inline_text(row[n]) for n in columns] for row in self.rows]
        rows = [[self.header[n] for n in columns], *rows] if any(self.header) else rows
        widths = [max(len(row[n]) for row in rows) for n in range(len(columns))]
        right = [self.header[n] in self.numbers for n in columns]
        lines = (
            "  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in zip(row, widths, right, strict=True))
            for row in rows
        )
        return "\n".join(f"  {line}".rstrip() for line in lines)

    def markdown(self) -> str:
        columns = self._columns()
        rule = ["---:" if self.header[n] in self.numbers else "---" for n in columns]
        rows = [[inline_markdown(self.header[n]) or " " for n in columns], rule]
        rows += [[inline_markdown(row[n]).replace("|", "\\|") for n in columns] for row in self.rows]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def html(self) -> str:
        columns = self._columns()

        def cell(n: int, tag: str, content: str) -> str:
            side = ' class="number"' if self.header[n] in self.numbers else ""
            return f"<{tag}{side}>{content}</{tag}>"

        if not any(self.header):
            facts = ((inline_html(cell) for cell in row) for row in self.rows)
            rows = (f'<th scope="row">{name}</th>{"".join(f"<td>{f}</td>" for f in rest)}' for name, *rest in facts)
            return "<table>\n" + "".join(f"<tr>{row}</tr>\n" for row in rows) + "</table>"
        head = "".join(cell(n, "th", inline_html(self.header[n])) for n in columns)
        body = "".join(
            f"<tr>{''.join(cell(n, 'td', inline_html(row[n])) for n in columns)}</tr>\n" for row in self.rows
        )
        return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>\n</table>"


@dataclass(frozen=True)
class Code:
    """Preformatted lines."""

    lines: str

    def text(self) -> str:
        return textwrap.indent(self.lines, "    ")

    def markdown(self) -> str:
        fence = "`" * max(3, 1 + max(map(len, re.findall("`+", self.lines)), default=0))
        return f"{fence}\n{self.lines}\n{fence}"

    def html(self) -> str:
        return f"<section><pre>{html.escape(self.lines)}</pre></section>"


@dataclass(frozen=True)
class Figure:
    """A picture, with words for those who do not see it.

    Attributes:
        name: of its file beside Markdown pages, without an ending. png: its bytes.
    """

    name: str
    png: bytes
    alternative: str

    @property
    def file(self) -> str:
        return f"figures/{self.name}.png"

    def text(self) -> str:
        return textwrap.fill(f"[figure] {self.alternative}", WIDTH)

    def markdown(self) -> str:
        return f"![{_markdown(' '.join(self.alternative.split()))}]({self.file})"

    def html(self) -> str:
        data = base64.b64encode(self.png).decode()
        alternative = html.escape(self.alternative, quote=True)
        return f'<div class="figure"><img src="data:image/png;base64,{data}" alt="{alternative}"></div>'


@dataclass(frozen=True)
class Ready:
    """Something that is HTML already, such as the strip of checkpoints, and what it says in words."""

    markup: str
    words: str

    def text(self) -> str:
        return self.words

    def markdown(self) -> str:
        return _markdown(self.words)

    def html(self) -> str:
        return self.markup


@dataclass(frozen=True)
class Section:
    """Pieces under a heading, which is of the second level; sections in it are of the third."""

    title: str
    pieces: Sequence[Piece]
    level: int = 2

    def text(self) -> str:
        rule = {2: "=", 3: "-"}.get(self.level, "")
        return "\n\n".join([f"{self.title}\n{rule * len(self.title)}".rstrip(), *(p.text() for p in self.pieces)])

    def markdown(self) -> str:
        return "\n\n".join([f"{'#' * self.level} {_markdown(self.title)}", *(p.markdown() for p in self.pieces)])

    def html(self) -> str:
        anchor = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")
        head = f'<h{self.level} id="{anchor}">{html.escape(self.title)}</h{self.level}>'
        return "\n".join([head, *(p.html() for p in self.pieces)])


@dataclass(frozen=True)
class Folded:
    """Pieces behind a line that opens them."""

    summary: str
    pieces: Sequence[Piece]

    def text(self) -> str:
        return "\n\n".join([self.summary, *(p.text() for p in self.pieces)])

    def markdown(self) -> str:
        inner = "\n\n".join(p.markdown() for p in self.pieces)
        return f"<details><summary>{html.escape(self.summary)}</summary>\n\n{inner}\n\n</details>"

    def html(self) -> str:
        inner = "\n".join(p.html() for p in self.pieces)
        return f"<details><summary>{html.escape(self.summary)}</summary>\n{inner}\n</details>"


@dataclass(frozen=True)
class Page:
    """A result to read.

    Attributes:
        name: of its file, without an ending. way: links to its neighbours.
        footer: what it was made by.
    """

    name: str
    title: str
    pieces: Sequence[Piece]
    way: Sequence[Link] = ()
    footer: str = ""

    def figures(self) -> list[Figure]:
        return _figures(self.pieces)

    def text(self) -> str:
        rule = "=" * len(self.title)
        return "\n\n".join([f"{rule}\n{self.title}\n{rule}", *(p.text() for p in self.pieces), self.footer]) + "\n"

    def markdown(self) -> str:
        way = " · ".join(inline_markdown(link) for link in self.way)
        parts = [f"# {_markdown(self.title)}", way, *(p.markdown() for p in self.pieces), "---", _markdown(self.footer)]
        return "\n\n".join(part for part in parts if part) + "\n"

    def html(self) -> str:
        links = "".join(inline_html(link) for link in self.way)
        way = f'<nav class="way" aria-label="pages">{links}</nav>\n' if links else ""
        return (
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f'<meta name="generator" content="{html.escape(self.footer, quote=True)}">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>\n{STYLESHEET.read_text(encoding='utf-8')}</style>\n"
            f'</head>\n<body class="report">\n{way}<main>\n<h1>{html.escape(self.title)}</h1>\n'
            + "\n".join(p.html() for p in self.pieces)
            + f"\n</main>\n{way}<footer>{html.escape(self.footer)}</footer>\n</body>\n</html>\n"
        )


def _figures(pieces: Sequence[Piece]) -> list[Figure]:
    found: list[Figure] = []
    for piece in pieces:
        if isinstance(piece, Figure):
            found.append(piece)
        elif isinstance(piece, Section | Folded):
            found += _figures(piece.pieces)
    return found


def inline_text(words: Inline) -> str:
    if isinstance(words, tuple):
        return "".join(map(inline_text, words))
    return words.replace("`", "") if isinstance(words, str) else words.text


def inline_markdown(words: Inline) -> str:
    if isinstance(words, tuple):
        return "".join(map(inline_markdown, words))
    if isinstance(words, Mark):
        return f"**{_markdown(words.text)}**"
    if isinstance(words, Link):
        return f"[{_markdown(words.text)}]({words.to('md')})"
    # Every second part is code, in which nothing needs escaping.
    return "".join(f"`{part}`" if n % 2 else _markdown(part) for n, part in enumerate(_coded(words)))


def inline_html(words: Inline) -> str:
    if isinstance(words, tuple):
        return "".join(map(inline_html, words))
    if isinstance(words, Mark):
        return f'<strong class="{"good" if words.good else "bad"}">{html.escape(words.text)}</strong>'
    if isinstance(words, Link):
        return f'<a href="{html.escape(words.to("html"), quote=True)}">{html.escape(words.text)}</a>'
    parts = enumerate(_coded(words))
    return "".join(f"<code>{html.escape(part)}</code>" if n % 2 else html.escape(part) for n, part in parts)


def _coded(words: str) -> list[str]:
    """Text, code, text ... ; a backtick without a partner is left out."""
    parts = words.split("`")
    return parts if len(parts) % 2 else [*parts[:-2], parts[-2] + parts[-1]]


def _markdown(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", " ".join(text.split("\n")))
