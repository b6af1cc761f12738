"""What a tensor may be off in all depends on whether it is known to be right on its own inputs."""

import pytest

from llama_core.traces.judge import Judged
from llama_core.traces.verdict import DRIFTING, NOISE, WRONG, _status


@pytest.mark.parametrize(
    ("introduced", "cumulative", "status"),
    [
        (0.5, 1.5, NOISE),  # right on its own inputs: the noise that came in may be another run's
        (0.5, 2.5, DRIFTING),
        (None, 0.9, NOISE),
        (None, 1.5, WRONG),  # nothing says that it is right on its own inputs
        (1.1, 0.5, WRONG),
    ],
)
def test_noise_that_came_in_may_be_twice_the_tolerance(introduced: float | None, cumulative: float, status: str):
    judged = Judged("logits", cumulative=cumulative, introduced=introduced, exact=False)
    assert _status(judged, {"logits": judged}, layers=2) == status
