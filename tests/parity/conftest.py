"""Parity tests, and the option that plants a mistake under them: ``pytest tests/parity --plant "GQA tiled"``."""

import pytest
import torch
from plants import PLANTS, planted


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--plant", choices=sorted(PLANTS), help="run the parity tests on a model with this mistake")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(autouse=True)
def plant(request: pytest.FixtureRequest):
    name = request.config.getoption("--plant", None)
    if name is None:
        yield
    else:
        with planted(name):
            yield
