"""The command line, ``llama-core``: one table of commands, and what becomes of errors.

Exit status: 0 done, 1 what was judged is wrong, 2 an input that must be mended (the message says how) or an output that
cannot be written, 130 interrupted, 141 the reader went away.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from llama_core import __version__
from llama_core.errors import LlamaCoreError

#: Command -> (the module that has it, what it does in a few words).
COMMANDS = {
    "generate": ("llama_core.commands.generate", "continue a text with a model"),
    "chat": ("llama_core.commands.chat", "talk with a model that was tuned for it"),
    "inspect": ("llama_core.commands.inspect", "what a model folder holds, and the memory it needs"),
    "convert": ("llama_core.commands.convert", "a model from one form to another: Hugging Face, Meta, GGUF"),
    "check": ("llama_core.commands.check", "hold every checkpoint to the reference, or somebody else's code"),
    "trace": ("llama_core.commands.trace", "write the named activations of a run, to hold other engines to"),
    "compare": ("llama_core.commands.compare", "where another engine first differs from a trace, and why"),
    "mystery": ("llama_core.commands.mystery", "a small engine with a hidden mistake, to be found"),
    "explain": ("llama_core.commands.explain", "a known mistake: how it looks, why it happens, how to mend it"),
}

EXAMPLES = """\
examples:
  llama-core generate --model stories --prompt "One day"
  llama-core inspect stories
  llama-core check
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    _open_closed_streams()
    _never_fail_on_a_character()
    try:
        args = parse(sys.argv[1:] if argv is None else argv)
        status = args.run(args)
        sys.stdout.flush()
        return status or 0
    except LlamaCoreError as error:
        print(f"llama-core: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        _write_no_more()
        return 141
    except OSError as problem:
        if problem.filename is not None:  # not standard output, which has no name
            raise
        print(f"llama-core: the output cannot be written: {problem.strerror or problem}", file=sys.stderr)
        _write_no_more()
        return 2


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Arguments of the command that ``argv`` names, which is the only one that is imported; ``.run`` runs it."""
    parser = argparse.ArgumentParser(
        prog="llama-core",
        description="Llama, checkpoint by checkpoint.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"llama-core {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    asked = next((argument for argument in argv if not argument.startswith("-")), None)
    for name, (module_name, summary) in COMMANDS.items():
        if name != asked:
            commands.add_parser(name, help=summary)
            continue
        module = import_module(module_name)
        command = commands.add_parser(
            name,
            help=summary,
            description=module.__doc__,
            epilog=f"examples:\n{module.EXAMPLES}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    return parser.parse_args(argv)


def _open_closed_streams() -> None:
    """What the caller closed (``>&-``) reads as empty and takes everything, as ``/dev/null`` does."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))


def _write_no_more() -> None:
    """Python flushes standard output once more on its way out; give it something that still listens."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _never_fail_on_a_character() -> None:
    """Where the terminal cannot show a character, show ``?`` instead of stopping."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    if hasattr(sys.stdin, "reconfigure"):  # a byte that is no character is found, and named, when the text is encoded
        sys.stdin.reconfigure(errors="surrogateescape")


if __name__ == "__main__":
    sys.exit(main())
