"""Hold another engine's trace to a golden one: the first tensor that is wrong, and why.

The candidate is a trace, or a folder of NAME.npy or safetensors files with nothing but names. Exit status: 0 right,
1 wrong or not compared, 2 an input that cannot be used.
"""

from __future__ import annotations

import argparse
import json

EXAMPLES = """\
  llama-core compare golden/ mine/ --model DIR
  llama-core compare golden/ mine/ --model DIR --map mine.toml
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("golden", metavar="GOLDEN", help="the trace of the right model")
    parser.add_argument("candidate", metavar="CANDIDATE", help="the trace, folder or file to judge")
    parser.add_argument("--model", metavar="DIR", help="the right model: tells errors introduced from errors inherited")
    parser.add_argument("--map", metavar="TOML", help="their names and axes to ours; or the name of one that ships")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    from llama_core.traces.comparison import compare

    result = compare(args.golden, args.candidate, model=args.model, map=args.map)
    print(json.dumps(result.to_json(), indent=1) if args.json else result)
    return 0 if result.passed else 1
