"""Loading maps the file: memory beyond the weights does not grow with them. (1.1B: benchmarks/open_folder.py.)"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llama_core import Llama, LlamaConfig
from llama_core.weights import save_model

#: Prints by how much loading raised the peak of resident memory, and the bytes of the weights.
CHILD = """
import json, sys
from llama_core.weights import load_model

def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))

load_model(sys.argv[1])  # the small folder: whatever the first load costs once
before = memory("VmRSS")
model = load_model(sys.argv[2], dtype=sys.argv[3])
print(json.dumps([memory("VmHWM") - before, sum(p.nbytes for p in model.parameters())]))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A tiny folder, and one of 25 million parameters in bfloat16."""
    place = tmp_path_factory.mktemp("memory")
    tiny = LlamaConfig(vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=4)
    large = LlamaConfig(
        vocab_size=8000, hidden_size=512, intermediate_size=2048, num_hidden_layers=4, num_attention_heads=8
    )
    save_model(Llama.random(tiny), place / "tiny")
    save_model(Llama.random(large, dtype="bfloat16"), place / "large")
    return place


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell peak memory")
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])  # mapped, and converted
def test_loading_needs_the_weights_and_one_tensor(folders, dtype):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(folders / "tiny"), str(folders / "large"), dtype],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    peak, size = json.loads(done.stdout)
    embedding = 8000 * 512 * 2  # the largest tensor, as it is stored
    assert peak - size < embedding + 8_000_000
