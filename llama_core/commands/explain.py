"""Explain a known mistake: what it looks like, why it happens, how to mend it, where it is taught.

Without an id: all of them, by checkpoint.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import textwrap

from llama_core.commands.terminal import text_width
from llama_core.errors import CheckpointError

EXAMPLES = """\
  llama-core explain
  llama-core explain rope-pairs-swapped
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("mistake", nargs="?", metavar="ID", help="a known mistake; without it, all are listed")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    from llama_core.checkpoints.mistakes import CATALOGUE

    if args.mistake is None:
        print(json.dumps([_facts(m) for m in CATALOGUE.values()], indent=1) if args.json else _listing())
        return 0
    if args.mistake not in CATALOGUE:
        near = nearest(args.mistake)
        raise CheckpointError(
            f"there is no known mistake {args.mistake!r}",
            key="mistake",
            actual=args.mistake,
            hint=f"did you mean {' or '.join(near)}?" if near else "llama-core explain lists all",
        )
    found = CATALOGUE[args.mistake]
    print(json.dumps(_facts(found), indent=1) if args.json else explain(found))
    return 0


def nearest(text: str) -> list[str]:
    """The ids most like a text: those spelled alike, then those that share most words with it."""
    from llama_core.checkpoints.mistakes import CATALOGUE

    words = set(text.lower().replace("_", "-").split("-"))
    shared = sorted(CATALOGUE, key=lambda id: -len(words & set(id.split("-"))))
    spelled = difflib.get_close_matches(text.lower(), CATALOGUE, n=3, cutoff=0.6)
    return list(dict.fromkeys([*spelled, *(id for id in shared if words & set(id.split("-")))]))[:3]


def explain(mistake) -> str:
    """A mistake as a page of text."""
    from llama_core.checkpoints.families import LLAMA
    from llama_core.checkpoints.specification import checkpoint

    spec, width = checkpoint(mistake.checkpoint), text_width()
    of_family = "" if mistake.family == LLAMA else f" --family {mistake.family}"
    parts = {
        "looks like": mistake.looks_like,
        "why": mistake.why,
        "mend": mistake.mend,
        "caught by": f"checkpoint {spec.id}, {spec.title}: llama-core check {spec.id}{of_family}",
        "not seen": mistake.equivalent,
        "taught in": f"notebooks/{mistake.notebook.replace('#', '.ipynb, section ', 1)}",
        "met by": mistake.origin,
    }
    lines = [
        textwrap.fill(
            text,
            width,
            initial_indent=f"  {label:<12}",
            subsequent_indent=" " * 14,
            break_long_words=False,
            break_on_hyphens=False,
        )
        for label, text in parts.items()
        if text
    ]
    title = textwrap.fill(f"{mistake.id}: {mistake.title}", width, break_on_hyphens=False)
    return "\n".join([title, "", *lines])


def _listing() -> str:
    from llama_core.checkpoints.mistakes import CATALOGUE, mistakes_for
    from llama_core.checkpoints.specification import CHECKPOINTS

    width = max(map(len, CATALOGUE))
    lines = []
    for spec in CHECKPOINTS.values():
        lines += ["", f"{spec.id}  {spec.title}"]
        lines += [
            f"  {m.id:<{width}}  {textwrap.shorten(m.title, text_width() - width - 4, placeholder=' …')}"
            for m in mistakes_for(spec.id)
        ]
    return "\n".join([f"{len(CATALOGUE)} known mistakes; llama-core explain ID tells more", *lines])


def _facts(mistake) -> dict:
    return {f.name: getattr(mistake, f.name) for f in dataclasses.fields(mistake) if f.name not in ("changes", "also")}
