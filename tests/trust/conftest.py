"""The corpus, run once for all tests on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import case  # noqa: E402, F401  # it makes the tables beside other tests known


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory):
    """Case -> what came of it, and what of that is not as promised."""
    if sys.platform != "linux":
        pytest.skip("the limits of memory and the forks of the corpus are Linux's")
    file = tmp_path_factory.mktemp("corpus") / "verdicts.json"
    corpus = Path(__file__).parent / "corpus.py"
    alone = os.environ | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, corpus, "--json", file], capture_output=True, text=True, env=alone)
    assert done.returncode == 0, done.stderr
    return json.loads(file.read_text())
