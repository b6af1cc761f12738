"""How a gate's result prints: as a line, a table, a page, JSON."""

import json

import pytest
import torch
from small_gates import scaled_wrongly, small

from llama_core.checkpoints import check, check_all, checkpoint
from llama_core.checkpoints.own import implementations
from llama_core.checkpoints.result import WIDTH, verdict


def test_a_result_prints_as_a_table_within_the_width():
    results = [check(id, cases=small(id)) for id in ("1", "8")] + [check("3", scaled_wrongly, cases=small("3"))]
    text = "\n".join([*map(str, results), *(r.line() for r in results), verdict(results)])
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\x1b" not in text


def test_the_verdict_is_pass_or_the_first_fail_with_its_cause():
    right, wrong = check("1", cases=small("1")), check("3", scaled_wrongly, cases=small("3"))
    assert verdict([right]) == "PASS"
    assert verdict([right, wrong]).startswith("FAIL at checkpoint 3, Attention")
    assert "explain attention-scale-d" in verdict([right, wrong])


@pytest.mark.parametrize("width", [60, 80, 100, 120])
def test_a_failure_is_told_in_full_within_the_width_and_no_path_is_broken(width):
    words = " ".join(f"word{n}" for n in range(18))
    path = "/a/very/long/path/that/a/person/will/want/to/copy/with/one/click/x.py"

    def raises(inputs, weights, config):
        raise RuntimeError(f"{words} {path}")

    result = check("3", raises, cases=small("3"))
    told = verdict([result], width)
    assert words in " ".join(told.split()) and path in told
    assert max(len(line) for line in told.splitlines() if "/" not in line) <= width
    assert len(result.line(width)) <= width and result.line(width).endswith("...")
    table = result.table(width)
    assert words in " ".join(table.split()) and path in table


def test_a_wrong_value_is_told_in_full():
    result = check("8", lambda i, w, c: implementations(checkpoint("8"))[0].run(i, w, c) | spoilt(i), cases=small("8"))
    told = " ".join(verdict([result], 80).split())
    assert "exact values expected" in told and "..." not in told


def spoilt(inputs):
    return {"position_ids": torch.zeros_like(inputs["input_ids"])}


@pytest.mark.parametrize("id", ["3", "8"])
def test_a_table_fits_a_terminal_of_80_columns(id):
    result = check(id, cases=small(id))
    narrow = result.table(80)
    assert max(map(len, narrow.splitlines())) <= 80
    worst = result.worst
    assert "(floors: noise.json)" in narrow and "= 4 × floor" in narrow
    assert f"{worst.tolerance.value:.2g}" in narrow and f"{worst.tolerance.floor:.2g}" in narrow
    assert len(narrow.splitlines()) == len(result.checks) + 2


def test_columns_are_aligned():
    lines = check("1", cases=small("1")).table().splitlines()
    start = lines[0].index("= factor × floor")
    assert all(line[start:].startswith("4 × ") and line[start - 1] == " " for line in lines[1:])


def test_html_shows_the_verdict_and_every_check_and_escapes():
    result = check("3", lambda i, w, c: {"<b>": 1}, cases=small("3"))
    page = result._repr_html_()
    assert "FAIL" in page and page.count("<tr") == 1 + len(result.checks)
    assert "<b>&lt;" not in page and "<lambda>" not in page


def test_json_holds_every_check_and_no_infinity():
    result = check("3", lambda i, w, c: i["q_rotated"] * float("nan"), cases=small("3"))
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["passed"] is False
    assert len(document["checks"]) == len(small("3"))
    assert document["checks"][0]["error"] is None and document["checks"][0]["tolerance"] > 0


def test_check_all_gives_one_result_per_checkpoint():
    assert [r.id for r in check_all(["0", "9"])] == ["0", "9"]
