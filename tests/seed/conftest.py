"""The seed's tests take what they test as an argument: here llama_core, in ``tools/seed_table.py`` a known mistake."""

import pytest
import torch
from seed_subject import LlamaCore


@pytest.fixture
def subject():
    with torch.no_grad():
        yield LlamaCore()
