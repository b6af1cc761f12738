"""A small engine with one hidden mistake in one hidden layer: find it with llama-core compare.

--out writes FOLDER/golden (with the right model in golden/model) and FOLDER/mystery. --check marks an answer; exit
status 0 if it is right, 1 if not.
"""

from __future__ import annotations

import argparse

from llama_core.errors import TraceError

EXAMPLES = """\
  llama-core mystery --seed monday --out exercise/
  llama-core compare exercise/golden exercise/mystery --model exercise/golden/model
  llama-core mystery --seed monday --check 2:rope-sign-flipped
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", required=True, metavar="NAME", help="which mystery: any text")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--out", metavar="FOLDER", help="write the golden trace and the engine's")
    what.add_argument("--check", metavar="LAYER:ID", help="mark an answer")


def run(args: argparse.Namespace) -> int:
    from llama_core.traces.mystery import grade, write_mystery

    if args.check is not None:
        result = grade(args.seed, args.check)
        print(result)
        return 0 if result.passed else 1
    if not args.out:
        raise TraceError("there is nothing to do", key="mystery", expected="--out FOLDER, or --check LAYER:ID")
    trace = write_mystery(args.seed, args.out)
    folder = trace.folder.parent
    print(f"llama-core compare {folder / 'golden'} {trace.folder} --model {folder / 'golden' / 'model'}")
    return 0
