"""The small reference and the mystery: the same bits, a known mistake that can be found, an answer that is marked."""

import hashlib

import pytest

from llama_core.cli import main
from llama_core.traces import Trace, compare
from llama_core.traces.mystery import ELIGIBLE, grade, solution, write_mystery
from llama_core.traces.tiny import tiny_model


@pytest.fixture(scope="module")
def exercise(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces") / "exercise"
    write_mystery("monday", folder)
    return folder


def test_the_tiny_model_is_the_same_bits_everywhere():
    weights = tiny_model().state_dict()["layers.3.self_attn.q_proj.weight"].numpy()
    assert (
        hashlib.sha256(weights.tobytes()).hexdigest()
        == "27c48b86d62c97532a178f6fa806b7fb7256bbd9f5fdde6154d13987b0b4c8e5"
    )


def test_the_small_reference_takes_a_few_megabytes_with_its_model(exercise):
    files = [path for path in (exercise / "golden").rglob("*") if path.is_file()]
    assert (exercise / "golden" / "model" / "config.json") in files
    assert sum(path.stat().st_size for path in files) < 4_000_000


def test_the_mystery_is_solved_by_comparing(exercise):
    result = compare(exercise / "golden", exercise / "mystery", model=exercise / "golden" / "model")
    hidden = solution("monday")
    assert result.first.startswith(f"layers.{hidden.layer}.")
    assert hidden.mistake.id in (*result.cause.ids, *result.cause.alternatives)


def test_nothing_in_the_files_names_the_mistake(exercise):
    text = b"".join(path.read_bytes() for path in sorted((exercise / "mystery").iterdir()))
    assert solution("monday").mistake.id.encode() not in text
    assert Trace.open(exercise / "mystery").manifest.producer == {"name": "mystery"}


def test_seeds_hide_many_mistakes_in_every_layer_but_the_first():
    found = [solution(str(n)) for n in range(200)]
    assert {s.layer for s in found} == {1, 2, 3}
    assert len({s.mistake.id for s in found}) > 0.8 * len(ELIGIBLE)


def test_an_answer_is_marked_part_by_part(capsys):
    hidden = solution("monday")
    right = f"{hidden.layer}:{hidden.mistake.id}"
    other = next(m.id for m in ELIGIBLE if m.id != hidden.mistake.id)
    assert grade("monday", right).passed
    assert main(["mystery", "--seed", "monday", "--check", right]) == 0
    assert main(["mystery", "--seed", "monday", "--check", f"{hidden.layer}:{other}"]) == 1
    assert "layer is right, the mistake is not" in capsys.readouterr().out
    assert main(["mystery", "--seed", "monday", "--check", "somewhere"]) == 2
