"""Write the package's public names as pages: signature, docstring and source of each, a page for every module.

pdoc reads the docstrings; the colours are the workbook's. The pages need nothing from elsewhere and no script.

usage: python tools/api_pages.py [--to FOLDER]
"""

from __future__ import annotations

import argparse
import importlib
import re
import sys
from pathlib import Path

import pdoc.doc
import pdoc.render
from html_pages import LICENCE, TEMPLATES, code_colours, stylesheet
from jinja2 import Environment, FileSystemLoader

#: From the foundation up. Packages show what they export; what is not named here is for maintainers.
MODULES = (
    "llama_core",
    "llama_core.config",
    "llama_core.presets",
    "llama_core.errors",
    "llama_core.names",
    "llama_core.capture",
    "llama_core.layers.rms_norm",
    "llama_core.layers.rope",
    "llama_core.layers.attention",
    "llama_core.layers.feed_forward",
    "llama_core.layers.block",
    "llama_core.cache",
    "llama_core.model",
    "llama_core.weights",
    "llama_core.tokenizer",
    "llama_core.chat",
    "llama_core.text_stream",
    "llama_core.sampling",
    "llama_core.generate",
    "llama_core.batch",
    "llama_core.checkpoints",
    "llama_core.traces",
    "llama_core.report",
    "llama_core.viz",
)


#: Names as people write them, for those that Python gives.
SHORTER = {
    '<span class="n">jaxtyping</span><span class="o">.</span>': "",
    "torch.nn.modules.module.Module": "torch.nn.Module",
}

_OF_EVERY_NAMED_TUPLE = ("Alias for field number ", "Create new instance of ")
_ID = re.compile(r'\bid="([^"]*)"')
# What Python makes of a named tuple's type where annotations are strings, in pdoc's colours.
_FORWARD_REFERENCE = re.compile(
    r'<span class="n">ForwardRef</span><span class="p">\(</span>'
    r'<span class="s\d">\'([^\']*)\'</span><span class="p">\)</span>'
)
_LINK_ON_THE_PAGE = re.compile(r'<a href="#([^"]*)">(.*?)</a>', re.DOTALL)


def has_own_docstring(member: pdoc.doc.Doc) -> bool:
    """Whether what a member says of itself was written here, not by Python for a tuple or in PyTorch's base class."""
    if member.docstring.startswith(_OF_EVERY_NAMED_TUPLE):
        return False
    return not isinstance(member, pdoc.doc.Function) or bool(getattr(member.obj, "__doc__", None))


def without_dead_links(html: str) -> str:
    """The page without links to what it does not show: for pdoc the word ``half`` is ``torch.nn.Module.half``."""
    ids = set(_ID.findall(html))
    return _LINK_ON_THE_PAGE.sub(lambda link: link[0] if link[1] in ids else link[2], html)


def write_api_pages(folder: Path) -> list[Path]:
    """Write a page for each of `MODULES` and their index; returns the files written."""
    pdoc.render.configure(
        docformat="google", include_undocumented=False, search=False, template_directory=TEMPLATES / "api"
    )
    pdoc.render.env.globals["code_colours"] = code_colours(".pdoc-code")
    pdoc.render.env.globals["has_own_docstring"] = has_own_docstring
    modules = {name: pdoc.doc.Module(_resolved(name)) for name in MODULES}
    written, entries = [folder / "index.html"], []
    for name, module in modules.items():
        page = folder / f"{name.replace('.', '/')}.html"
        page.parent.mkdir(parents=True, exist_ok=True)
        html = pdoc.render.html_module(module, modules)
        for long, short in SHORTER.items():
            html = html.replace(long, short)
        html = _FORWARD_REFERENCE.sub(r'<span class="n">\1</span>', html)
        page.write_text(without_dead_links(html), encoding="utf-8")
        written.append(page)
        about = module.docstring.split("\n\n")[0].replace("\n", " ").replace("``", "")
        entries.append({"name": name, "address": page.relative_to(folder).as_posix(), "about": about})
    index = Environment(loader=FileSystemLoader(TEMPLATES)).get_template("api.html.j2")
    page = index.render(modules=entries, style=stylesheet(), licence=LICENCE)
    written[0].write_text(page, encoding="utf-8")
    return written


def _resolved(name: str):
    """The module, with the names that it exports on demand in place: pdoc looks at what is there."""
    module = importlib.import_module(name)
    for exported in getattr(module, "__all__", ()):
        setattr(module, exported, getattr(module, exported))
    return module


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description="Write the package's public names as pages.")
    parser.add_argument("--to", type=Path, default=Path("build/html/api"), metavar="FOLDER")
    options = parser.parse_args(arguments)
    for path in write_api_pages(options.to):
        print(path)


if __name__ == "__main__":
    main(sys.argv[1:])
