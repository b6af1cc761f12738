"""What every test shares: shape checks, devices, the folder of other people's models.

No seed is set here: a test that draws random numbers makes its own `torch.Generator`.
"""

import os
import pkgutil
from importlib.util import find_spec
from pathlib import Path

# Read once by libraries as they are imported, so set before any of them is.
os.environ["TQDM_DISABLE"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"

import pytest
import torch
from jaxtyping import install_import_hook

# Checks shapes and types in the signatures of llama_core while the tests run. It must come before the first import of
# the package. Tests that compile a graph do so in a child process, without this hook. Nor is it in ``checkpoints`` and
# ``traces``, whose signatures state no shapes: a diagnosis calls small functions by the hundred thousand, and checking
# them takes up to ten times as long as they do. ``gates/test_signatures.py`` and
# ``traces/test_signatures_of_traces.py`` run each of them once with every signature checked.
_parts = pkgutil.iter_modules(find_spec("llama_core").submodule_search_locations)
_checked = [f"llama_core.{part.name}" for part in _parts if part.name not in ("checkpoints", "traces")]
install_import_hook(_checked, "beartype.beartype")

REAL_MODELS = "LLAMA_CORE_REAL_MODELS"
REQUIRE_REAL = "LLAMA_CORE_REQUIRE_REAL"

DEVICES = ["cpu"]
if torch.cuda.is_available():
    DEVICES.append("cuda")
if torch.backends.mps.is_available():
    DEVICES.append("mps")


def pytest_configure() -> None:
    # The models here are tiny: beyond a few threads, handing out the work costs more than the work.
    torch.set_num_threads(min(torch.get_num_threads(), 4))
    # TF32 keeps 10 bits of a float32's 23; a tolerance for float32 means nothing under it.
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with a slow test come first: of two that run at a time, the one that is left at the end is then short."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_report_header() -> str:
    return f"torch {torch.__version__}, devices {' '.join(DEVICES)}, {torch.get_num_threads()} threads, TF32 off"


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Each device of this machine in turn; the test runs once on each."""
    return torch.device(request.param)


@pytest.fixture(scope="session")
def real_models() -> Path:
    """The folder of trained models made elsewhere, from the environment variable LLAMA_CORE_REAL_MODELS.

    Skips where the variable is unset, fails where LLAMA_CORE_REQUIRE_REAL=1 says that the models have to be there.
    """
    folder = os.environ.get(REAL_MODELS)
    if folder and Path(folder).is_dir():
        return Path(folder)
    reason = f"{REAL_MODELS} names no folder: {folder}" if folder else f"{REAL_MODELS} is not set"
    if folder or os.environ.get(REQUIRE_REAL) == "1":
        pytest.fail(reason)
    pytest.skip(reason)
