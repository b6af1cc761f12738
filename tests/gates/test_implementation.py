"""How an implementation is found and called; and that nothing it does in its own process stops the run."""

import os
import signal
import textwrap

import numpy as np
import pytest
import torch

from llama_core.checkpoints.child import Child
from llama_core.checkpoints.gate import Source, judge
from llama_core.checkpoints.loading import arrays_of, load
from llama_core.checkpoints.specification import checkpoint
from llama_core.errors import CheckpointError

# What arrays a function gets


def helper(x):
    return np.exp(x)


def in_numpy(inputs, weights, config):
    return helper(inputs["x"])


def in_torch(inputs, weights, config):
    return torch.exp(inputs["x"])


def in_methods(inputs, weights, config):
    return inputs["x"].exp()


def imports_inside(inputs, weights, config):
    import numpy

    return numpy.exp(inputs["x"])


def both(inputs, weights, config):
    return torch.tensor(np.exp(inputs["x"].numpy()))


def stated(inputs, weights, config):
    return inputs["x"]


stated.arrays = "numpy"


@pytest.mark.parametrize(
    ("function", "arrays"),
    [
        (in_numpy, "numpy"),
        (in_torch, "torch"),
        (in_methods, "torch"),
        (imports_inside, "numpy"),
        (both, "torch"),
        (stated, "numpy"),
        (lambda i, w, c: helper(i["x"]), "numpy"),
    ],
)
def test_a_function_gets_numpy_arrays_if_it_refers_to_numpy_and_not_to_torch(function, arrays):
    assert arrays_of(function) == arrays


# Finding it


@pytest.fixture
def mine(tmp_path):
    """Writes a module and returns how it is named on the command line."""

    def write(source, name="mine.py"):
        file = tmp_path / name
        file.write_text(textwrap.dedent(source))
        return str(file)

    return write


def test_a_function_is_loaded_from_a_file_beside_other_files(mine):
    mine("VALUE = 7", "neighbour_of_mine.py")
    file = mine("from neighbour_of_mine import VALUE\ndef run(i, w, c): return VALUE")
    assert load(f"{file}:run")({}, {}, None) == 7


def test_an_attribute_of_a_class_is_loaded(mine):
    file = mine("class A:\n    @staticmethod\n    def run(i, w, c): return 3")
    assert load(f"{file}:A.run")({}, {}, None) == 3


@pytest.mark.parametrize(
    ("source", "attribute", "said"),
    [
        ("def run(i, w, c): pass", "rum", "has no 'rum'"),
        ("import nothing_of_this_name", "run", "could not be imported: ModuleNotFoundError"),
        ("def run(:", "run", "could not be imported: SyntaxError"),
        ("raise SystemExit(1)", "run", "could not be imported: SystemExit"),
    ],
)
def test_what_cannot_be_loaded_is_an_error_that_names_the_file(mine, source, attribute, said):
    file = mine(source)
    with pytest.raises(CheckpointError) as e:
        load(f"{file}:{attribute}")
    assert said in e.value.message and file in str(e.value.file)


@pytest.mark.parametrize("spec", ["mine.py", ":run", "no_such_file.py:run", "no.such.module:run"])
def test_an_implementation_that_is_not_there_is_an_error(spec):
    with pytest.raises(CheckpointError):
        load(spec)


# In a process of its own

RIGHT = """
    import numpy as np

    def run(inputs, weights, config):
        x = inputs["layer_input"]
        root = np.sqrt((x.astype(np.float64) ** 2).mean(-1, keepdims=True) + config.rms_norm_eps)
        return {"attention_norm": x / root * weights["input_layernorm.weight"]}
"""


def judged(spec, id="1", dtype="float32", timeout=30.0, cases=2, model=None):
    with Child(spec, "cpu", timeout, model) as child:
        found = checkpoint(id)
        return judge(found, [Source("", child.produce)], spec, dtype, "cpu", found.small_cases[:cases])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_right_implementation_passes_from_its_own_process(mine, dtype):
    assert judged(mine(RIGHT) + ":run", dtype=dtype, cases=5).passed


@pytest.mark.slow
def test_half_precision_tensors_travel_in_their_own_type(mine):
    file = mine(
        """
        import torch
        from llama_core.checkpoints.own import implementations
        from llama_core.checkpoints.specification import checkpoint

        right = implementations(checkpoint("1"))[0].run

        def run(inputs, weights, config):
            assert inputs["layer_input"].dtype == torch.bfloat16
            return right(inputs, weights, config)

        def narrow(inputs, weights, config):
            return run(inputs, weights, config)["attention_norm"].to(torch.float8_e4m3fn)
        """
    )
    assert judged(f"{file}:run", dtype="bfloat16").passed
    assert "float8_e4m3fn, expected bfloat16" in judged(f"{file}:narrow", dtype="bfloat16").problem


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("while True: pass", "gave no answer within 2 s"),
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import os; os._exit(5)", "ended its process with status 5"),
        ("import sys; sys.exit(3)", "called sys.exit(3)"),
        ("return 1 / 0", "raised ZeroDivisionError: division by zero"),
        ("return {}", "attention_norm is missing"),
    ],
)
def test_whatever_it_does_is_one_line_and_the_next_checkpoint_runs(mine, body, line):
    file = mine(
        f"""
        def run(inputs, weights, config):
            if "layer_input" in inputs:
                {body}
            return inputs["v"] * 0

        run.arrays = "numpy"
        """
    )
    with Child(f"{file}:run", "cpu", 2.0) as child:
        first, second = (
            judge(checkpoint(id), [Source("", child.produce)], "", "float32", "cpu", checkpoint(id).small_cases[:2])
            for id in ("1", "1B")
        )
    assert first.problem == f"ordinary: {line}"
    assert not first.passed
    assert second.problem.startswith("half: returned an ndarray, not")  # it was called, and answered


def test_after_a_hang_the_rest_of_the_checkpoint_is_not_run(mine):
    result = judged(
        mine("import time, numpy\ndef run(i, w, c): time.sleep(numpy.int64(1000))") + ":run", timeout=1.0, cases=3
    )
    assert [c.note for c in result.failures][1:] == ["not run: it gave no answer within 1 s in case 'ordinary'"] * 2


def test_no_process_is_left_behind(mine):
    file = mine(
        """
        import os, subprocess, sys

        def run(inputs, weights, config):
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            with open(__file__ + ".pid", "w") as f:
                f.write(str(child.pid))
            while True:
                pass

        run.arrays = "numpy"
        """
    )
    judged(f"{file}:run", timeout=3.0, cases=1)
    pid = int(open(file + ".pid").read())
    for _ in range(100):  # a killed process of another parent is reaped soon
        if not os.path.exists(f"/proc/{pid}") or open(f"/proc/{pid}/stat").read().split()[2] == "Z":
            return
        os.sched_yield()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)


def test_what_it_prints_does_not_disturb_the_answers(mine):
    chatty = RIGHT.replace("x = inputs", "print('hello', flush=True); import os; os.write(1, b'{}'); x = inputs")
    assert judged(mine(chatty) + ":run").passed


def test_what_cannot_be_imported_is_an_error_not_a_wrong_answer(mine):
    with pytest.raises(CheckpointError, match="could not be imported"):
        judged(mine("import nothing_of_this_name") + ":run")


def test_a_class_is_judged_from_its_own_process(mine):
    file = mine(
        """
        import torch

        class Norm(torch.nn.Module):
            def __init__(self, size, eps):
                super().__init__()
                self.weight, self.eps = torch.nn.Parameter(torch.ones(size)), eps

            def forward(self, x):
                return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight
        """
    )
    assert judged(f"{file}:Norm").passed
