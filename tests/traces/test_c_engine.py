"""The C engine of 11_port_your_own: right as it stands, and each mistake planted in it found where it is and named.

Several mistakes at once, mended one after another: the notebook itself, whose outputs are compared.
"""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch

import llama_core
from llama_core import Llama, Tokenizer, generate
from llama_core.checkpoints.cases import Stream, make_weights
from llama_core.traces import Trace, compare, record
from llama_core.traces.read import validate
from llama_core.traces.tiny import TINY

ENGINE = Path(__file__).parents[2] / "notebooks" / "engine"
SOURCE = (ENGINE / "llama.c").read_text()
MISTAKES = tomllib.loads((ENGINE / "mistakes.toml").read_text())["mistake"]
COMPILER = next((name for name in ("cc", "gcc", "clang") if shutil.which(name)), None)
#: What the engine computes in one go with the step after it.
NOT_DUMPED = {"input_ids", "position_ids", "masked_scores", "ffn_activation"}

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler: cc, gcc or clang")


def build(folder: Path, source: str, *options: str) -> Path:
    (folder / "llama.c").write_text(source)
    command = [COMPILER, "-std=c99", "-O2", *options, "-o", "llama", "llama.c", "-lm"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "llama"


def run(program: Path, *arguments) -> str:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def traced(program: Path, golden: Trace, folder: Path) -> Path:
    folder.mkdir()
    run(program, golden.folder / "model", golden.folder, folder)
    return folder


def planted(mistake: dict) -> str:
    assert SOURCE.count(mistake["right"]) == 1, f"{mistake['id']}: its line does not stand in llama.c once"
    return SOURCE.replace(mistake["right"], mistake["wrong"])


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    return build(tmp_path_factory.mktemp("engine"), SOURCE, "-Wall", "-Wextra", "-Wpedantic", "-Werror")


@pytest.fixture(scope="module")
def golden(tmp_path_factory):
    """Three layers, five tokens and one step; its model lies inside, as in ``--golden tiny``."""
    config = TINY.replace(num_hidden_layers=3)
    model = Llama(config)
    weights = make_weights(config, Stream(7))
    model.load_state_dict({name: torch.from_numpy(x) for name, x in weights.items()}, assign=True)
    folder = tmp_path_factory.mktemp("golden") / "golden"
    trace = record(model, [1, 70, 41, 9, 88], folder, steps=1, noise=("float32",))
    model.save_pretrained(folder / "model")
    return trace, model


def test_the_dump_takes_at_most_forty_lines():
    marked = re.findall(r"/\* dump begins.*?\*/\n(.*?)/\* dump ends \*/", SOURCE, re.DOTALL)
    assert len(marked) == 3
    apart = re.sub(r"/\* dump begins.*?/\* dump ends \*/", "", SOURCE, flags=re.DOTALL)
    lines = [line.strip() for part in marked for line in part.splitlines()]
    lines += [line.strip() for line in apart.splitlines() if re.search(r"\b(dump|manifest|out)\b *[(=,]", line)]
    assert len([line for line in lines if line and not line.startswith("/*")]) <= 40


@needs_compiler
def test_the_engine_is_right_prefill_and_decode(program, golden, tmp_path):
    trace, model = golden
    mine = traced(program, trace, tmp_path / "mine")
    assert len(validate(mine).calls) == len(trace.calls) == 2
    result = compare(trace, mine, model=model)
    assert result.passed, str(result)
    missing = {line.name.split(".")[-1] for line in result.lines if line.status == "not provided"}
    assert missing == NOT_DUMPED


@needs_compiler
def test_the_engine_reads_bfloat16_and_a_tied_head_and_writes_the_same_text(program):
    model = Llama.from_pretrained("stories", dtype="float32")
    ids = Tokenizer.from_pretrained("stories").encode("One day", bos=True)
    folder = Path(llama_core.__file__).parent / "stories"
    found = run(program, folder, 24, ",".join(map(str, ids)))
    assert [int(n) for n in found.split(",")] == list(generate(model, ids, 24, temperature=0, eos_ids=()))


@pytest.mark.slow
@needs_compiler
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake["id"])
def test_a_planted_mistake_is_found_where_it_is_and_named(golden, tmp_path, mistake):
    trace, model = golden
    mine = traced(build(tmp_path, planted(mistake)), trace, tmp_path / "mine")
    result = compare(trace, mine, model=model)
    assert (result.first, result.first_call) == (mistake["first"], mistake["call"]), str(result)
    assert mistake["id"] in result.cause.ids, str(result.cause)


@needs_compiler
@pytest.mark.parametrize(
    "arguments, message",
    [
        (("nowhere", "3", "1"), "cannot be opened"),
        (("model", "3", "1,101"), "not in the vocabulary"),
        (("model", "3", ",".join(["1"] * 600)), "too long"),
        (("model", "3"), "usage"),
        (("model", "nowhere", "."), "cannot be opened"),
    ],
)
def test_the_engine_says_what_it_cannot_use(program, golden, tmp_path, arguments, message):
    asked = [str(golden[0].folder / a) if a in ("model", "nowhere") else a for a in arguments]
    done = subprocess.run([program, *asked], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
