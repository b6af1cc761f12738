"""Write a model anew in another form: Hugging Face's (hf), Meta's (meta), or llama.cpp's (gguf).

Tensors stay equal bit for bit, unless --type says otherwise. What the other form cannot hold is listed; what would
change the result is refused.
"""

from __future__ import annotations

import argparse

EXAMPLES = """\
  llama-core convert DIR NEW --to hf
  llama-core convert DIR NEW --to meta
  llama-core convert stories stories-meta --to meta
  llama-core convert DIR model.gguf --to gguf --type q8_0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="a model folder, a GGUF file, or stories")
    parser.add_argument("target", metavar="DST", help="a folder, or for gguf a file, that is not there yet")
    parser.add_argument("--to", choices=("hf", "meta", "gguf"), required=True, help="the form to write")
    parser.add_argument(
        "--type", choices=("f32", "f16", "bf16", "q8_0"), help="of gguf: what matrices become; by default what they are"
    )


def run(args: argparse.Namespace) -> None:
    from llama_core.weights import convert

    print(convert(args.source, args.target, args.to, args.type).to_text())
