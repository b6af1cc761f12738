"""Write a model folder anew in the other form: Hugging Face's (hf) or Meta's (meta). Tensors stay equal bit for bit.

What the other form cannot hold is listed; what would change the result is refused.
"""

from __future__ import annotations

import argparse

EXAMPLES = """\
  llama-core convert DIR NEW --to hf
  llama-core convert DIR NEW --to meta
  llama-core convert stories stories-meta --to meta
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a model folder, or stories")
    parser.add_argument("target", metavar="DST", help="a folder that is not there yet")
    parser.add_argument("--to", choices=("hf", "meta"), required=True, help="the form of the new folder")


def run(args: argparse.Namespace) -> None:
    from llama_core.weights import convert

    print(convert(args.source, args.target, args.to).to_text())
