"""Hold another engine's trace to a golden one: the first tensor that is wrong, and why.

The candidate is a trace, or a folder of NAME.npy or safetensors files with nothing but names. Exit status: 0 right,
1 wrong or not compared, 2 an input that cannot be used.
"""

from __future__ import annotations

import argparse
import json

from llama_core.errors import TraceError

EXAMPLES = """\
  llama-core compare golden/ mine/ --model DIR
  llama-core compare golden/ mine/ --suggest-map > mine.toml
  llama-core compare golden/ mine/ --model DIR --map mine.toml
  llama-core compare golden/ mine/ --model DIR --impact --html report.html
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("golden", metavar="GOLDEN", help="the trace of the right model")
    parser.add_argument("candidate", metavar="CANDIDATE", help="the trace, folder or file to judge")
    parser.add_argument("--model", metavar="DIR", help="the right model: tells errors introduced from errors inherited")
    parser.add_argument("--map", metavar="TOML", help="their names and axes to ours; or the name of one that ships")
    parser.add_argument(
        "--impact", action="store_true", help="what each wrong tensor does to the logits (with --model)"
    )
    parser.add_argument("--html", metavar="FILE", help="write the comparison as one self-contained page, too")
    parser.add_argument(
        "--suggest-map", action="store_true", help="instead: propose a map, from the shapes and values of both"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    if args.suggest_map:
        return _suggest_map(args)
    if args.html:
        from llama_core.trace_report.file import check_file

        check_file(args.html)
    from llama_core.traces.comparison import compare

    result = compare(args.golden, args.candidate, model=args.model, map=args.map, impact=args.impact)
    print(json.dumps(result.to_json(), indent=1) if args.json else result)
    if args.html:
        page = _write_page(result, args)
        if not args.json:
            print(f"\npage: {page}")
    return 0 if result.passed else 1


def _write_page(result, args: argparse.Namespace):
    from datetime import UTC, datetime

    from llama_core.checkpoints.environment import environment
    from llama_core.trace_report.file import write_page
    from llama_core.trace_report.page import comparison_page
    from llama_core.trace_report.tokens import labels

    made = f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC"
    return write_page(comparison_page(result, made, environment("cpu"), labels(result, args.model)), args.html)


def _suggest_map(args: argparse.Namespace) -> int:
    """The map on standard output; status 1 where nothing was recognised."""
    for option in ("map", "impact", "html", "json"):
        if getattr(args, option):
            message = f"--suggest-map proposes a map and compares nothing: it does not go with --{option}"
            raise TraceError(message, key="--suggest-map", hint=f"leave out --{option}")
    from llama_core.traces.suggest import suggest_map

    suggestion = suggest_map(args.golden, args.candidate)
    print(suggestion.to_toml(), end="")
    return 0 if suggestion.rules else 1
