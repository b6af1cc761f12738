"""The command line as a user meets it: output, messages, exit status."""

import io
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from llama_core import __version__
from llama_core.cli import main, parse

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}


class Result(NamedTuple):
    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys, monkeypatch):
    """Runs a command in this process."""

    def run(*arguments: str, stdin: bytes = b"") -> Result:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        try:
            status = main(arguments)
        except SystemExit as end:
            status = end.code
        return Result(status, *capsys.readouterr())

    return run


def python(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs a process of its own."""
    return subprocess.run([sys.executable, *arguments], capture_output=True, timeout=300, env=ENVIRONMENT | environment)


@pytest.fixture(scope="module")
def folder(real_models):
    return str(real_models / "stories260K")


@pytest.fixture(scope="module")
def expected(real_models):
    return json.loads((real_models / "stories260K" / "expected.json").read_text())


def test_a_greedy_story_goes_to_standard_output_and_its_figures_to_standard_error(run, folder, expected):
    case = expected[1]
    new = len(case["token_ids"]) - len(case["prompt_ids"])
    result = run(
        "generate", "--model", folder, "--prompt", case["prompt"], "--temperature", "0", "--max-new-tokens", str(new)
    )
    assert result.status == 0
    assert result.out == case["text"] + "\n"
    assert f"prompt: {len(case['prompt_ids'])} tokens, new: {new} tokens" in result.err
    assert "tokens/s" in result.err


@pytest.mark.parametrize("options", [["--attention", "eager"], ["--dtype", "float32"], ["--device", "cpu"]])
def test_options_that_do_not_change_the_text(run, folder, expected, options):
    result = run("generate", "--model", folder, "--temperature", "0", "--max-new-tokens", "20", *options)
    assert expected[0]["text"].startswith(result.out.removesuffix("\n"))
    assert len(result.out) > 20


def test_the_prompt_can_come_from_standard_input(run, folder, expected):
    case = expected[1]
    arguments = ["generate", "--model", folder, "--temperature", "0", "--max-new-tokens", "30"]
    given, read = (
        run(*arguments, "--prompt", case["prompt"]),
        run(*arguments, "--prompt", "-", stdin=f"{case['prompt']}\n".encode()),
    )
    assert read.out == given.out
    assert case["text"].startswith(given.out.removesuffix("\n"))


def test_the_seed_that_standard_error_names_gives_the_same_text_again(run, folder):
    arguments = ["generate", "--model", folder, "--temperature", "1", "--max-new-tokens", "40"]
    first, other = run(*arguments), run(*arguments)
    seed = first.err.split("seed ")[1].split()[0]
    assert run(*arguments, "--seed", seed).out == first.out
    assert other.out != first.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "--model", "/nowhere"], "no model folder"),
        (["generate", "--temperature", "nan"], "temperature is nan"),
        (["generate", "--top-p", "1.5"], "top_p is 1.5"),
        (["generate", "--top-k", "0"], "top_k is 0"),
        (["inspect", "/nowhere"], "no model folder"),
        (["inspect", "/nowhere", "--context", "0"], "--context"),
    ],
)
def test_what_must_be_mended_is_said_without_a_stack_trace_and_exits_with_2(run, arguments, message):
    result = run(*arguments)
    assert result.status == 2
    assert result.err.startswith("llama-core: ")
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-new-tokens", "1000"], "do not fit the model's context"),
        (["--max-new-tokens", "0"], "max_new_tokens is 0"),
        (["--seed", "-1"], "seed is -1"),
        (["--dtype", "int8"], "int8"),
        (["--device", "abacus"], "abacus"),
        (["--prompt", "word " * 600], "shorten the prompt"),
    ],
)
def test_what_does_not_fit_the_model_is_said_without_a_stack_trace_and_exits_with_2(run, folder, options, message):
    result = run("generate", "--model", folder, *options)
    assert result.status == 2
    assert message in result.err
    assert "Traceback" not in result.err
    assert result.out == ""


def test_standard_input_that_is_no_utf8_is_refused(run):
    result = run("generate", "--prompt", "-", stdin=b"caf\xe9")
    assert result.status == 2
    assert "byte 0xe9 at 3" in result.err


def test_a_line_of_a_chat_that_is_no_utf8_is_refused_and_the_chat_goes_on(run):
    arguments = ["chat", "--model", "stories", "--template", "llama-2", "--max-new-tokens", "3", "--seed", "0"]
    result = run(*arguments, stdin=b"caf\xe9\nhello\n/exit\n")
    assert result.status == 0
    assert result.err.count("not valid Unicode") == 1 and "Traceback" not in result.err
    assert result.out.strip()


@pytest.mark.parametrize(
    "arguments", [[], ["dance"], ["generate", "--dance"], ["generate", "--top-k", "many"], ["inspect"]]
)
def test_a_wrong_command_line_shows_the_usage_and_exits_with_2(run, arguments):
    result = run(*arguments)
    assert result.status == 2
    assert result.err.startswith("usage: llama-core")


def test_version(run):
    assert run("--version").out == f"llama-core {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["generate", "--help"], ["inspect", "--help"], ["--version"]])
def test_help_imports_neither_torch_nor_numpy(run, arguments):
    # Which is what keeps it quick: torch alone takes a second.
    script = (
        "import sys\n"
        "from llama_core.cli import main\n"
        "try:\n"
        f"    main({arguments!r})\n"
        "except SystemExit as end:\n"
        "    print(end.code, sorted({'torch', 'numpy', 'sentencepiece'} & set(sys.modules)))\n"
    )
    assert python("-c", script).stdout.decode().splitlines()[-1] == "0 []"


@pytest.mark.parametrize("command", ["generate", "inspect"])
def test_the_help_of_each_command_has_an_example_that_parses(run, command):
    examples = run(command, "--help").out.split("examples:\n")[1].strip().splitlines()
    assert len(examples) >= 3
    for example in examples:
        assert callable(parse(shlex.split(example.split(" | ")[-1])[1:]).run)


def test_a_reader_that_goes_away_ends_it_without_a_word(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "llama_core", "generate", "--model", folder, "--seed", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        env=ENVIRONMENT,
    )
    assert process.stdout.read(4)
    process.stdout.close()
    assert process.wait(300) == 141
    assert process.stderr.read() == b""
    process.stderr.close()


FULL = Path("/dev/full")  # a device of Linux alone, where every write fails with "no space left on device"


@pytest.mark.skipif(not FULL.exists(), reason="only Linux has /dev/full")
@pytest.mark.parametrize("command", [["inspect", "stories"], ["generate", "--max-new-tokens", "3"]])
def test_a_full_disk_is_said_in_one_line_and_exits_with_2(command):
    with FULL.open("w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "llama_core", *command], stdout=full, stderr=subprocess.PIPE, env=ENVIRONMENT
        )
    assert result.returncode == 2
    assert result.stderr.decode().splitlines()[0] == (
        "llama-core: the output cannot be written: No space left on device"
    )
    assert "Traceback" not in result.stderr.decode()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "<&- >&- 2>&-"])
def test_a_closed_stream_is_no_error(closed):
    command = f'"{sys.executable}" -m llama_core generate --prompt - --max-new-tokens 3 --seed 0 {closed}'
    result = subprocess.run(["sh", "-c", command], capture_output=True, stdin=subprocess.DEVNULL, env=ENVIRONMENT)
    assert result.returncode == 0
    assert "Traceback" not in result.stderr.decode()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_terminal_without_utf8_shows_question_marks(folder, encoding):
    prompt = "日本 day"
    arguments = ["generate", "--model", folder, "--prompt", prompt, "--max-new-tokens", "3"]
    result = python("-m", "llama_core", *arguments, PYTHONIOENCODING=encoding)
    assert result.returncode == 0
    assert result.stdout.startswith(b"?? day")


#: Plays a user who presses Ctrl-C when the third token has been shown.
INTERRUPTED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # started in the background, a process ignores it
from llama_core import tokenizer
from llama_core.cli import main
push, shown = tokenizer.DecodeStream.push, 0
def push_and_interrupt(self, token):
    global shown
    shown += 1
    text = push(self, token)
    if shown == 4:
        os.kill(os.getpid(), signal.SIGINT)
    return text
tokenizer.DecodeStream.push = push_and_interrupt
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_leaves_what_was_said_a_newline_the_figures_and_status_130(folder, expected):
    arguments = ["generate", "--model", folder, "--temperature", "0", "--max-new-tokens", "100"]
    result = python("-c", INTERRUPTED, *arguments)
    assert result.returncode == 130
    text, figures = result.stdout.decode(), result.stderr.decode()
    assert text.endswith("\n")
    assert len(text) > 4
    assert expected[0]["text"].startswith(text.removesuffix("\n"))
    assert "new: 4 tokens" in figures
    assert "Traceback" not in figures


def test_inspect_reports_the_folder_and_the_context_that_was_asked_for(run, folder):
    text = run("inspect", folder, "--context", "100").out
    assert "260,032" in text
    assert "Memory at 100 tokens" in text
    facts = json.loads(run("inspect", folder, "--json", "--context", "100").out)
    # 2 (keys and values) · 5 layers · 4 heads · 100 positions · 8 coordinates · 4 bytes
    assert facts["memory"][0]["kv_cache"] == 2 * 5 * 4 * 100 * 8 * 4
    assert facts["parameters"] == 260_032
