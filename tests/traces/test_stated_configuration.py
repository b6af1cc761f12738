"""A candidate that states another number than the golden's configuration, and computes with it: that is the cause."""

import pytest
from small_traces import edit_manifest, golden, model

from llama_core import RopeScaling
from llama_core.traces import Trace, compare, record
from llama_core.traces.recorder import plan_like


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "golden", steps=0, noise=["float32"])


def run_with(folder, right, **changes):
    other = model(**changes)
    other.load_state_dict(model().state_dict())
    return record(other, None, folder, plan=plan_like(right))


@pytest.mark.parametrize(
    ("changes", "id"),
    [
        ({"rope_scaling": RopeScaling("linear", 2.0)}, "rope-scaling-as-stated"),
        ({"rope_theta": 77_000.0}, "rope-theta-77000"),
        ({"rope_theta": 500_000.0}, "rope-theta-500000"),  # which the catalogue has already
        ({"rms_norm_eps": 1e-3}, "norm-eps-1e-3"),  # likewise
    ],
)
def test_a_number_that_the_candidate_states_is_the_cause_that_is_named(right, tmp_path, changes, id):
    result = compare(right, run_with(tmp_path / "c", right, **changes), model=model())
    assert result.cause.ids == (id,) and not result.cause.alternatives, str(result.cause)
    assert [finding.name for finding in result.findings if finding.kind == "configuration"] == list(changes)


def test_a_stated_number_that_no_llama_has_is_told_and_stops_nothing(right, tmp_path):
    run_with(tmp_path / "c", right, rope_theta=500_000.0)
    edit_manifest(tmp_path / "c", lambda m: m["model"]["config"].update(rope_theta=-1.0))
    result = compare(right, Trace.open(tmp_path / "c"), model=model())
    assert result.cause.ids == ("rope-theta-500000",)
    assert any(finding.name == "rope_theta" and "-1.0" in finding.text for finding in result.findings)
