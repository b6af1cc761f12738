"""The recorded table of what each kind of test catches: complete, as its tool writes it, and a part measured anew."""

import importlib.util
import json
from pathlib import Path

import pytest
from seed_originals import ORIGINALS

from llama_core.checkpoints.mistakes import CATALOGUE

ROOT = Path(__file__).resolve().parents[2]

#: The seed's own count of its tests.
COUNTS = {"library": 6, "rope": 7, "qkv": 7, "integration": 4, "attention": 7}
#: Named beforehand as passing all 31 originals, by whoever ported them first. One more was named: v from k. It is
#: caught, since `test_qkv_values_differ` asserts that k and v differ.
UNSEEN = """
    norm-left-out norm-mean-subtracted norm-eps-outside-root norm-eps-1e-6 norm-eps-1e-3 norm-weight-ignored
    rope-pairs-swapped rope-sign-flipped rope-theta-500000 rope-exponent-halved rope-position-plus-one
    qkv-weight-transposed qkv-coordinates-before-heads qkv-q-and-k-swapped qkv-spurious-bias
    attention-scores-transposed attention-mask-never-applied attention-softmax-over-queries
    attention-heads-merged-untransposed attention-first-head-for-all
""".split()


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("seed_table", ROOT / "tools" / "seed_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def recorded():
    return json.loads((ROOT / "benchmarks" / "results" / "seed_assertions.json").read_text())


def test_the_31_names_are_here_as_the_seed_counts_them(tool):
    here = tool.tests_here()
    assert set(here) == set(ORIGINALS) and len(here) == 31
    found = {name: sum(test.__module__ == f"test_seed_{name}" for test in here.values()) for name in COUNTS}
    assert found == COUNTS


def test_the_record_has_every_known_mistake_and_every_gate_catches_its_own(recorded):
    assert list(recorded) == list(CATALOGUE)
    assert all(row["gate"] for row in recorded.values())


def test_the_page_is_what_the_tool_makes_of_the_record(tool, recorded):
    page = (ROOT / "benchmarks" / "results" / "seed_assertions.md").read_text()
    assert page == tool.markdown(recorded)


@pytest.mark.slow
def test_a_part_measured_anew_is_what_is_recorded(tool, recorded):
    ids = [
        "norm-eps-1e-6",
        "rope-sign-flipped",
        "rope-keys-not-rotated",
        "qkv-v-from-k",
        "attention-scale-d",
        "attention-window-counts-padding",
        "generation-padding-shifts-positions",
        "sampling-top-k-one-more",
    ]
    assert tool.measure(ids) == {id: recorded[id] for id in ids}


@pytest.mark.parametrize("id", UNSEEN)
def test_what_was_known_to_pass_the_originals_does(recorded, id):
    assert recorded[id]["originals"] == []
    assert recorded[id]["here"] != []


def test_each_of_the_tests_here_catches_something(recorded):
    catching = {name for row in recorded.values() for name in row["here"]}
    # No known mistake is one that gives other values each time.
    assert set(ORIGINALS) - catching == {"test_qkv_determinism"}


def test_the_parity_tests_pass_on_the_table_of_steps_without_a_mistake(tool):
    assert tool.stepped.caught_by(None) == []


def test_the_parity_tests_miss_no_mistake_that_a_real_token_shows(recorded):
    # What the query of a padding token computes differs from transformers' by right, so no parity test looks at it.
    assert [id for id, row in recorded.items() if row["parity"] == []] == ["attention-lowest-number-for-mask"]


def test_mistakes_beside_the_model_are_those_of_counts_sampling_and_generation(recorded):
    beside = [CATALOGUE[id] for id, row in recorded.items() if row["parity"] is None]
    assert {m.checkpoint for m in beside} == {"0", "9", "10"}
    assert {m.id for m in CATALOGUE.values() if m.checkpoint in ("0", "9")} <= {m.id for m in beside}


def test_each_parity_test_catches_something(tool, recorded):
    catching = {name for row in recorded.values() for name in row["parity"] or ()}
    parity, neighbours = tool.stepped.test_parity, tool.stepped.NEIGHBOUR_TESTS
    assert catching == {name for name in vars(parity) if name.startswith("test_")} | {t.__name__ for t in neighbours}
