"""Write the named activations of a run: prefill and decode steps, with everything needed to compare another engine's.

Nothing is written unless all of it is.
"""

from __future__ import annotations

import argparse
import json

from llama_core.errors import TraceError

EXAMPLES = """\
  llama-core trace --model stories --prompt "One day" --steps 4 --out golden/
  llama-core trace --model DIR --ids 1,306,4658 --rows 0,last --names "layers.*.output" --out golden/
  llama-core trace --golden tiny --out golden/
  llama-core trace --engine transformers --model DIR --ids-from golden/ --out hf/
  llama-core trace --engine llama.cpp --model model.gguf --ids-from golden/ --out ggml/
  llama-core trace --validate golden/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--validate", metavar="FOLDER", help="check a trace: every hash, shape and statistic")
    parser.add_argument("--golden", choices=("tiny",), help="a small reference: its trace, and its model inside")
    parser.add_argument("--model", metavar="DIR", help="a model folder, a GGUF file, or stories")
    parser.add_argument(
        "--engine", choices=("llama_core", "transformers", "llama.cpp"), default="llama_core", help="what runs it"
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--prompt", metavar="TEXT", help="a text, through the model's tokenizer")
    given.add_argument("--ids", metavar="N,N,…", help="token ids instead")
    given.add_argument("--ids-from", metavar="FOLDER", help="the ids of another trace, decoded ones included")
    parser.add_argument("--steps", type=int, default=0, metavar="N", help="greedy decode steps behind the prompt")
    parser.add_argument(
        "--rows", metavar="0,last,…", help="query rows of the prompt to keep; keys and values stay whole"
    )
    parser.add_argument("--names", metavar="PATTERN,…", default="*", help='activations, such as "layers.*.q,logits"')
    parser.add_argument("--dtype", help="compute in float32 (the default), float64, bfloat16 or float16")
    parser.add_argument("--store", metavar="DTYPE", help="store in another type than is computed in")
    parser.add_argument("--statistics-only", action="store_true", help="sums and extremes, no values")
    parser.add_argument(
        "--noise",
        metavar="DTYPE,…",
        default="float32,bfloat16",
        help="measure how far right runs in these types lie apart (default float32,bfloat16; none; float32:q8_0 for "
        "an engine that rounds the inputs of its products to q8_0)",
    )
    parser.add_argument(
        "--attention", choices=("fused", "eager"), default="eager", help="of llama_core and transformers"
    )
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda, cuda:1, mps")
    parser.add_argument("--out", metavar="FOLDER", help="where to; a trace that is there is replaced as a whole")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    if args.validate:
        from llama_core.traces.read import validate

        return _tell(validate(args.validate), "valid", args.json)
    if not args.out:
        raise TraceError("there is no folder to write to", key="--out", expected="--out FOLDER")
    if args.golden:
        from llama_core.traces.tiny import write_tiny

        return _tell(write_tiny(args.out), "written", args.json)
    if not args.model:
        raise TraceError("there is no model to run", key="--model", expected="--model DIR, or --golden tiny")
    return _tell(_record(args), "written", args.json)


def _record(args: argparse.Namespace):
    from llama_core.traces.read import Trace
    from llama_core.traces.recorder import plan_like, plan_prompt, record

    if args.ids_from is None and args.prompt is None and args.ids is None:
        raise TraceError("there is nothing to feed the model", key="--prompt", expected="--prompt, --ids or --ids-from")
    if args.steps < 0 or (args.ids_from and args.steps):
        raise TraceError(
            "the number of decode steps is not right",
            key="--steps",
            expected="0 or more; none with --ids-from, whose trace has its own",
            actual=args.steps,
        )
    plan = plan_like(Trace.open(args.ids_from)) if args.ids_from else plan_prompt(_ids(args), steps=args.steps)
    options = {
        "plan": plan,
        "rows": args.rows,
        "names": args.names.split(","),
        "storage_dtype": args.store,
        "statistics_only": args.statistics_only,
    }
    if args.engine == "transformers":
        from llama_core.traces.bridges.transformers import record_transformers

        return record_transformers(args.model, args.out, dtype=args.dtype, attention=args.attention, **options)
    if args.engine == "llama.cpp":
        return _record_llama_cpp(args, options)
    from llama_core.model import Llama

    model = Llama.from_pretrained(args.model, dtype=args.dtype or "float32", device=args.device)
    model.attention = args.attention
    noise = [] if args.noise == "none" or args.ids_from else args.noise.split(",")
    return record(model, None, args.out, noise=noise, **options)


def _record_llama_cpp(args: argparse.Namespace, options):
    from llama_core.traces.bridges.llama_cpp import record_llama_cpp

    for key, actual, only in (
        ("--dtype", args.dtype or "float32", "float32"),
        ("--attention", args.attention, "eager"),
        ("--device", args.device, "cpu"),
    ):
        if actual != only:
            raise TraceError(
                f"llama.cpp is traced with {key} {only} only",
                key=key,
                expected=only,
                actual=actual,
                hint="other weights are another GGUF file: llama-core convert --to gguf --type" * (key == "--dtype")
                or None,
            )
    return record_llama_cpp(args.model, args.out, **options)


def _ids(args: argparse.Namespace) -> list[int]:
    if args.ids is not None:
        try:
            return [int(part) for part in args.ids.split(",")]
        except ValueError as e:
            raise TraceError(
                "token ids are whole numbers with commas between", key="--ids", expected="1,306,4658", actual=args.ids
            ) from e
    from llama_core.tokenizer import Tokenizer
    from llama_core.weights.gguf_header import is_gguf

    if is_gguf(args.model):
        raise TraceError(
            "the vocabulary of a GGUF file is not read",
            file=args.model,
            key="--prompt",
            expected="--ids or --ids-from",
            hint="trace the model folder that the file was made from, then take its ids with --ids-from",
        )
    tokenizer = Tokenizer.from_pretrained(args.model)
    return tokenizer.encode(args.prompt, bos=tokenizer.bos_id is not None)


def _tell(trace, what: str, as_json: bool) -> int:
    stored = [record for record in trace.manifest.tensors if record.file]
    facts = {
        "folder": str(trace.folder),
        "calls": len(trace.calls),
        "tokens": int(sum((call.positions >= 0).sum() for call in trace.calls)),
        "tensors": len(trace.manifest.tensors),
        "with_values": len(stored),
        "compute_dtype": trace.manifest.compute_dtype,
        "storage_dtype": trace.manifest.storage_dtype,
    }
    if as_json:
        print(json.dumps(facts))
    else:
        print(
            f"{what}: {facts['folder']}: {facts['tensors']} tensors of {facts['tokens']} tokens in {facts['calls']} "
            f"calls, computed in {facts['compute_dtype']}, stored in {facts['storage_dtype']}"
        )
    return 0
