"""At positions in the hundreds right engines differ by how they make rotary frequencies in float32."""

import numpy as np
import pytest
import torch
from small_traces import ids, model
from traced_plain import Traced

from llama_core.traces import compare, noise, record

LENGTH = 400


def by_power(self, length):
    d = self.config.head_dim
    return 1.0 / self.config.rope_theta ** (torch.arange(0, d, 2).float() / d)


def by_product(self, length):
    d, theta = self.config.head_dim, self.config.rope_theta
    ratio, made = np.float32(theta ** (-2 / d)), [np.float32(1)]
    for _ in range(d // 2 - 1):
        made.append(np.float32(made[-1] * ratio))
    return torch.tensor(np.array(made))


def by_exponential(self, length):
    d = self.config.head_dim
    return torch.exp(torch.arange(0, d, 2).float() * (-float(np.log(self.config.rope_theta)) / d))


WAYS = {"power": by_power, "product": by_product, "exponential": by_exponential}


@pytest.fixture(scope="module", params=["every right arithmetic is run", "too large for that"])
def right(request, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "too large for that":
            patch.setattr(noise, "_SMALL", 0)
        folder = tmp_path_factory.mktemp("far") / "golden"
        return record(model(num_hidden_layers=1), ids(1, LENGTH), folder, noise=("float32",))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("with_model", [True, False])
def test_an_engine_that_makes_its_frequencies_in_another_way_is_right(right, tmp_path, way, with_model):
    engine = Traced({None: dict(inverse_wavelengths=WAYS[way])})
    engine.trace(model(num_hidden_layers=1), right.calls, tmp_path / "c")
    result = compare(right, tmp_path / "c", model=model(num_hidden_layers=1) if with_model else None)
    assert result.passed, str(result)
