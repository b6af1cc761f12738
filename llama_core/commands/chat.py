"""Talk with a model that was tuned for it; answers come as they are made, and what was said is remembered.

Lines that begin with a slash are commands: /reset forgets the conversation, /exit ends it (so does the end of input).
"""

from __future__ import annotations

import argparse
import sys

from llama_core.errors import LlamaCoreError

EXAMPLES = """\
  llama-core chat --model DIR
  llama-core chat --model DIR --template llama-2 --system "Answer in one sentence."
  echo "Why is the sky blue?" | llama-core chat --model DIR --temperature 0
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", required=True, metavar="DIR", help="a model folder")
    parser.add_argument("--template", choices=("llama-2", "llama-3"), help="by default the one the vocabulary tells")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first")
    parser.add_argument("--max-new-tokens", type=int, metavar="N", help="at most N tokens an answer (default 256)")
    parser.add_argument("--context", type=int, metavar="N", help="tokens that the conversation may have (default 4096)")
    parser.add_argument(
        "--temperature", type=float, default=0.6, metavar="T", help="0: most likely token (default 0.6)"
    )
    parser.add_argument("--top-p", type=float, default=0.9, metavar="P", help="see generate (default 0.9)")
    parser.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same answers")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16; by default as the weights are stored")
    parser.add_argument("--device", default="cpu", help="cpu (the default), cuda, cuda:1, mps")


def run(args: argparse.Namespace) -> None:
    from llama_core.chat import Chat, template_of
    from llama_core.generate import count
    from llama_core.model import Llama
    from llama_core.sampling import SamplingParameters
    from llama_core.tokenizer import Tokenizer

    parameters = SamplingParameters(args.temperature, None, args.top_p)
    for key in ("max_new_tokens", "context"):
        if getattr(args, key) is not None:
            count(getattr(args, key), key)
    tokenizer = Tokenizer.from_pretrained(args.model)
    template = template_of(tokenizer, args.template)  # before minutes of loading
    model = Llama.from_pretrained(args.model, dtype=args.dtype, device=args.device)
    chat = Chat(model, tokenizer, template, args.system, parameters, args.max_new_tokens, args.context, args.seed)
    asks = sys.stdin.isatty()
    while True:
        if asks:
            _show("> ")
        line = sys.stdin.readline()
        text = line.strip()
        if not line or text == "/exit":
            return
        if text == "/reset":
            chat.reset()
        elif text.startswith("/"):
            print(f"llama-core: {text.split()[0]} is no command; there are /reset and /exit", file=sys.stderr)
        elif text:
            _answer(chat, text)


def _answer(chat, text: str) -> None:
    try:
        for piece in chat.say(text):
            _show(piece)
    except KeyboardInterrupt:  # ends the answer, not the conversation
        pass
    except LlamaCoreError as error:
        print(f"llama-core: {error}\n  /reset begins anew", file=sys.stderr)
    _show("\n")


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
