"""Tell what a model folder holds: configuration, tensors, parameters, bytes, rotary layout, memory."""

from __future__ import annotations

import argparse

from llama_core.errors import GenerationError

EXAMPLES = """\
  llama-core inspect stories
  llama-core inspect DIR --context 4096
  llama-core inspect DIR --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", metavar="DIR", help="a model folder, or stories")
    parser.add_argument(
        "--context", type=int, metavar="N", help="reckon memory with N tokens; by default all it can read"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> None:
    from llama_core.weights import describe

    if args.context is not None and args.context < 1:
        raise GenerationError("--context must be at least 1", key="context", expected="1 or more", actual=args.context)
    description = describe(args.model, context=args.context)
    print(description.to_json() if args.json else description.to_text())
