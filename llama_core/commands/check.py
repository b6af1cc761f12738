"""Hold every checkpoint to the float64 reference, and say what is wrong.

Without options: llama_core itself, all checkpoints. Exit status: 0 right, 1 wrong, 2 an input that cannot be used.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from contextlib import ExitStack

EXAMPLES = """\
  llama-core check
  llama-core check 3 --verbose
  llama-core check --device cuda --dtype bfloat16
  llama-core check --model DIR
  llama-core check 3 --interface
  llama-core check 3 --implementation mymodule:my_attention
  llama-core check 3 --implementation mymodule:my_mistral --family mistral
  llama-core check 3 --export cases/
  llama-core check 3 --results cases_out/
  llama-core check --prove
  llama-core check --report report/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", nargs="?", metavar="ID", help="0, 1, 1B, 2 … 10; all of them by default")
    parser.add_argument("--verbose", action="store_true", help="every check: error, tolerance, where it comes from")
    parser.add_argument("--dtype", default="float32", help="float32 (the default), bfloat16 or float16")
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda, cuda:1, mps")
    parser.add_argument("--model", metavar="DIR", help="a model's own weights and activations as cases; or stories")
    parser.add_argument(
        "--family",
        metavar="NAME",
        help="whose cases: llama, mistral, qwen2, qwen3 or all (default: all for llama_core itself, else llama)",
    )
    parser.add_argument("--fast", action="store_true", help="leave out the cases with the sizes of Llama-2 7B")
    parser.add_argument("--json", action="store_true", help="as JSON")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--interface", action="store_true", help="what an implementation is given and must give back")
    what.add_argument("--implementation", metavar="MODULE:NAME", help="judge this one; also FILE.py:NAME")
    what.add_argument("--export", metavar="FOLDER", help="write inputs, weights, expected values and tolerances")
    what.add_argument("--results", metavar="FOLDER", help="judge what another program wrote for exported cases")
    what.add_argument("--prove", action="store_true", help="try every known mistake: each must be caught")
    parser.add_argument("--report", metavar="FOLDER", help="write pages of what was measured; - prints them instead")
    parser.add_argument(
        "--timeout", type=_seconds, default=60.0, metavar="S", help="seconds per case for --implementation (default 60)"
    )


def _seconds(text: str) -> float:
    seconds = float(text)
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a finite number of seconds above 0 is needed, not {text}")
    return seconds


def run(args: argparse.Namespace) -> int:
    from llama_core.checkpoints.gate import check_setting
    from llama_core.checkpoints.specification import CHECKPOINTS, checkpoint

    ids = list(CHECKPOINTS) if args.checkpoint is None else [checkpoint(args.checkpoint).id]
    check_setting(args.dtype, args.device)
    _check_combination(args)
    args.family = _family(args)
    if args.interface:
        return _interface(ids, args)
    if args.export:
        return _export(ids, args)
    if args.prove:
        return _prove(ids, args)
    return _check(ids, args)


def _check(ids: list[str], args: argparse.Namespace) -> int:
    from llama_core.checkpoints.result import verdict
    from llama_core.commands.terminal import text_width

    width = text_width()
    results, measured = [], []
    if not args.json:
        print(_headline(args), flush=True)
    with ExitStack() as stack:
        judge = _judge(args, stack)
        for id in ids:
            result, cases, sources = judge(id)
            results.append(result)
            if not args.json:
                print(result.line(width), flush=True)
                if args.verbose:
                    print(result.table(width), flush=True)
            if args.report:
                from llama_core.gate_report.measure import measure

                measured.append(measure(result, cases, sources))
    pages = _pages(measured, args)
    passed = all(result.passed for result in results)
    if args.json:
        from llama_core.checkpoints.environment import environment

        document = {"passed": passed, "environment": environment(args.device)}
        print(json.dumps(document | {"checkpoints": [r.to_json() for r in results]}, indent=1))
    else:
        print("\n" + verdict(results, width))
    if args.report == "-" and not args.json:
        print("\n" + "\n\n".join(page.text() for page in pages))
    elif pages:
        from llama_core.gate_report.folder import write_pages

        index = write_pages(pages, args.report)
        if not args.json:
            print(f"report: {index}")
    return 0 if passed else 1


def _judge(args: argparse.Namespace, stack: ExitStack):
    """What judges one checkpoint, as the arguments say: its result, the cases, and what can be run again."""
    from llama_core.checkpoints.gate import Source, cases_for, check, judge, own_sources
    from llama_core.checkpoints.specification import checkpoint

    if args.implementation:
        from llama_core.checkpoints.child import Child

        child = stack.enter_context(Child(args.implementation, args.device, args.timeout, args.model))

    def judge_one(id: str):
        spec = checkpoint(id)
        cases = cases_for(spec, args.model, args.fast, args.family)
        if args.implementation:
            source = Source("", child.produce)
            result = judge(spec, [source], args.implementation, args.dtype, args.device, cases)
            return result, cases, [source]
        result = check(id, results=args.results, dtype=args.dtype, device=args.device, cases=cases)
        return result, cases, [] if args.results else own_sources(spec, args.device)

    return judge_one


def _family(args: argparse.Namespace) -> str:
    """The family asked for; without a name llama_core's own gates are asked for all, anybody else's for a Llama's."""
    from llama_core.checkpoints.families import ALL, LLAMA, check_family

    if args.family is not None:
        return check_family(args.family)
    return LLAMA if args.implementation or args.results or args.export or args.interface else ALL


def _check_combination(args: argparse.Namespace) -> None:
    """Refuse what cannot be meant, or cannot be written, before anything is measured."""
    from llama_core.errors import CheckpointError

    for option in ("model", "implementation", "export", "results", "report"):
        if getattr(args, option) == "":
            raise CheckpointError(f"--{option} is empty", key=f"--{option}", hint=f"name one, or leave out --{option}")
    if args.family is not None and (args.model or args.prove):
        other, why = ("model", "its cases are the model's") if args.model else ("prove", "it tries all families")
        message = f"--family chooses among the cases that ship; it does not go with --{other}: {why}"
        raise CheckpointError(message, key="--family", hint=f"leave out --family or --{other}")
    if args.prove and args.model:
        message = "--prove tries the known mistakes on the cases that ship; it does not go with --model"
        raise CheckpointError(message, key="--model", hint="leave out --model or --prove")
    if not args.report:
        return
    other = next((name for name in ("interface", "export", "prove") if getattr(args, name)), None)
    if other:
        message = f"--report is of what the gates find; it does not go with --{other}"
        raise CheckpointError(message, key="--report", hint=f"leave out --{other}")
    if importlib.util.find_spec("matplotlib") is None:
        hint = 'python -m pip install "llama-core[workbook]"'
        raise CheckpointError("the report's figures need matplotlib, which is not installed", key="--report", hint=hint)
    if args.report != "-":
        from llama_core.gate_report.folder import check_place

        check_place(args.report)


def _pages(measured: list, args: argparse.Namespace) -> list:
    """The report: an index and a page for each checkpoint; nothing where none is asked for."""
    if not args.report:
        return []
    from llama_core.checkpoints.specification import checkpoint
    from llama_core.gate_report.measure import circumstances
    from llama_core.gate_report.pages import checkpoint_page, index_page

    about = circumstances(args.device)
    names = {m.result.id: checkpoint(m.result.id).notebook for m in measured}
    return [index_page(measured, names, about), *(checkpoint_page(m, names, about) for m in measured)]


def _headline(args: argparse.Namespace) -> str:
    subject = args.implementation or (f"results in {args.results}" if args.results else "llama_core")
    where = "" if args.results else f" on {args.device}"
    cases = f", cases of {args.model}" if args.model else ""
    return f"{subject} in {args.dtype}{where}{cases}"


def _interface(ids: list[str], args: argparse.Namespace) -> int:
    from llama_core.checkpoints.interface import interface, interface_facts
    from llama_core.checkpoints.specification import checkpoint
    from llama_core.commands.terminal import text_width

    if args.json:
        print(json.dumps([interface_facts(checkpoint(id), args.family) for id in ids], indent=1))
        return 0
    print("\n\n\n".join(interface(checkpoint(id), text_width(), args.family) for id in ids))
    return 0


def _export(ids: list[str], args: argparse.Namespace) -> int:
    from llama_core.checkpoints.exchange import export_cases
    from llama_core.checkpoints.gate import cases_for
    from llama_core.checkpoints.specification import checkpoint

    written = []
    for id in ids:
        spec = checkpoint(id)
        written += export_cases(spec, args.export, args.dtype, cases_for(spec, args.model, args.fast, args.family))
    print(json.dumps([str(p) for p in written]) if args.json else "\n".join(map(str, written)))
    return 0


def _prove(ids: list[str], args: argparse.Namespace) -> int:
    from llama_core.checkpoints.prove import prove

    proof = prove(args.dtype, ids)
    print(json.dumps(proof.to_json(), indent=1) if args.json else proof)
    return 1 if proof.missed else 0
