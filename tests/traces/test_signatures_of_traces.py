"""What traces and comparisons hand from function to function is what the signatures say: once, all of them checked."""

import subprocess
import sys

import pytest

CHECKED = """
import sys
from jaxtyping import TypeCheckError, install_import_hook
install_import_hook("llama_core", "beartype.beartype")
from llama_core import Llama
from llama_core.cli import main
from llama_core.traces import record
from llama_core.traces.manifest import parse_manifest

try:
    parse_manifest(1.5, "manifest.json")
except TypeCheckError:
    print("signatures are checked")
golden, model, wrong, page = "golden", "golden/model", "wrong", "page.html"
told = [main(["trace", "--golden", "tiny", "--out", golden])]
right = Llama.from_pretrained(model)
other = Llama(right.config.replace(rms_norm_eps=0.1))
other.load_state_dict(right.state_dict(), assign=True)
record(other, [[1, 71, 95, 90, 48, 19]], wrong, noise=())
record(right, [[1, 71, 95, 90, 48, 19]], golden, noise=("float32",))
right.save_pretrained("model")
told.append(main(["trace", "--validate", wrong]))
told.append(main(["compare", golden, wrong, "--model", "model", "--impact", "--html", page]))
told.append(main(["compare", golden, wrong, "--suggest-map"]))
print("exit", told)
"""


@pytest.mark.slow
def test_a_trace_and_a_comparison_keep_to_their_signatures(tmp_path):
    done = subprocess.run([sys.executable, "-c", CHECKED], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert lines[0] == "signatures are checked" and lines[-1] == "exit [0, 0, 1, 0]"
    assert "norm-eps" in done.stdout
