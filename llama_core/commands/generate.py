"""Write text with a model, as it comes.

The text goes to standard output, what was measured to standard error.
"""

from __future__ import annotations

import argparse
import sys
import time

from llama_core.errors import TokenizerError

EXAMPLES = """\
  llama-core generate --model stories --prompt "One day"
  llama-core generate --model DIR --prompt "Once upon a time" --temperature 0 --max-new-tokens 200
  llama-core generate --model DIR --prompt "The sky" --top-k 40 --top-p 0.9 --seed 7
  llama-core generate --model DIR --prompt "Q: why?" --min-p 0.05 --repetition-penalty 1.1 --stop "Q:"
  echo "One day" | llama-core generate --model stories --prompt -
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="stories", metavar="DIR", help="a model folder, or stories (the default)")
    parser.add_argument("--prompt", default="", metavar="TEXT", help="what to continue; - reads it from standard input")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="at most N tokens; by default 256, if they fit")
    parser.add_argument(
        "--temperature", type=float, default=0.8, metavar="T", help="0: most likely token (default 0.8)"
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="choose among the K most likely tokens")
    parser.add_argument(
        "--top-p", type=float, metavar="P", help="choose among the most likely that reach probability P"
    )
    parser.add_argument("--min-p", type=float, metavar="P", help="choose among those with P times the best probability")
    parser.add_argument(
        "--repetition-penalty", type=float, metavar="R", help="above 1: what came before becomes less likely"
    )
    parser.add_argument(
        "--stop", action="append", default=[], metavar="TEXT", help="end before this text; may be given several times"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same text")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16; by default as the weights are stored")
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda, cuda:1, mps")
    parser.add_argument(
        "--attention", choices=("fused", "eager"), default="fused", help="fused is fast (default fused)"
    )
    parser.add_argument("--compile", action="store_true", help="compile the decode step first: worth it for long texts")


def run(args: argparse.Namespace) -> None:
    import secrets

    from llama_core.generate import generate
    from llama_core.model import Llama
    from llama_core.sampling import SamplingParameters
    from llama_core.text_stream import TextStream, check_stop
    from llama_core.tokenizer import Tokenizer

    SamplingParameters(args.temperature, args.top_k, args.top_p, args.min_p, args.repetition_penalty)
    check_stop(args.stop)  # before minutes of loading
    prompt = _standard_input() if args.prompt == "-" else args.prompt
    tokenizer = Tokenizer.from_pretrained(args.model)
    ids = tokenizer.encode(prompt, bos=tokenizer.bos_id is not None)
    model = Llama.from_pretrained(args.model, dtype=args.dtype, device=args.device)
    model.attention = args.attention
    seed = secrets.randbelow(2**32) if args.seed is None else args.seed
    tokens = generate(
        model,
        ids,
        args.max_new_tokens,
        args.temperature,
        args.top_k,
        args.top_p,
        min_p=args.min_p,
        repetition_penalty=args.repetition_penalty,
        seed=seed,
        eos_ids=tokenizer.eos_ids,
        compile=args.compile,
    )
    stats = _Stats(len(ids), None if args.temperature == 0 else seed)
    text = TextStream(tokenizer, ids, args.stop)
    _show(tokenizer.decode(ids))
    try:
        for token in tokens:
            stats.count()
            _show(text.push(token))
            if text.stopped is not None:
                break
    finally:
        # Also after Ctrl-C: what was said so far stays, whole, and the shell's prompt gets a line of its own.
        _show(text.flush() + "\n")
        print(stats, file=sys.stderr)


class _Stats:
    """Counts tokens, and says how fast they came."""

    def __init__(self, prompt: int, seed: int | None):
        self._prompt, self._seed, self._new = prompt, seed, 0
        self._start = self._first = self._last = time.perf_counter()

    def count(self) -> None:
        self._last = time.perf_counter()
        self._new += 1
        if self._new == 1:
            self._first = self._last

    def __str__(self) -> str:
        parts = [f"prompt: {self._prompt} tokens", f"new: {self._new} tokens"]
        if self._new:
            parts.append(f"first after {self._first - self._start:.2f} s")
        if self._new > 1:
            parts.append(f"then {(self._new - 1) / (self._last - self._first):.1f} tokens/s")
        return ", ".join(parts + ([] if self._seed is None else [f"seed {self._seed}"]))


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _standard_input() -> str:
    """All of standard input as UTF-8, without the newline that ends its last line."""
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as problem:
        raise TokenizerError(
            "standard input is not UTF-8",
            expected="UTF-8 text",
            actual=f"byte 0x{problem.object[problem.start]:02x} at {problem.start}",
        ) from None
    return text.removesuffix("\n").removesuffix("\r")
