"""Every bad input is refused with one error that says where and what; every good one is accepted."""

import os
import signal
import time

import pytest
from case import Case, Refusal, Verdict, complaints
from corpus import corpus, summary

CASES = corpus()


def test_there_are_hundreds_of_bad_inputs_and_dozens_of_good_ones():
    assert sum(case.refusal is not None for case in CASES) >= 200
    assert sum(case.refusal is None for case in CASES) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id[:120])
def test_it_is_as_promised(verdicts, case):
    assert verdicts[case.id]["complaints"] == []


@pytest.mark.slow
def test_the_summary_counts_every_case(verdicts):
    table = summary(verdicts)
    rows = [
        line.split("|") for line in table.splitlines() if line.startswith("| ") and line.split("|")[2].strip().isdigit()
    ]
    assert sum(int(row[2]) + int(row[3]) for row in rows) == len(CASES)


# That the judge sees what it must see


def crash(place):
    os.abort()


def sleep(place):
    time.sleep(600)


def spin(place):
    while True:
        pass


def hoard(place):
    return bytearray(2**33)


def touch(place):
    (place / "ran").touch()


def half_say(place):
    from llama_core.errors import WeightsError

    raise WeightsError("something is wrong", key="k")


@pytest.mark.parametrize(
    ("use", "words"),
    [
        (crash, "killed: SIGABRT"),
        (sleep, "hung"),
        (hoard, "raised: MemoryError"),
        (lambda place: None, "accepted"),
        (lambda place: {}["x"], "raised: KeyError"),
        (touch, "was run"),
        (half_say, "expected is None"),
    ],
    ids=["crash", "hang", "memory", "accepted", "another exception", "code that runs", "half an error"],
)
def test_what_must_not_happen_is_seen(tmp_path, use, words):
    from forked import run

    case = Case("self", "self", lambda place: None, use, Refusal("WeightsError", None, "k"))
    assert any(words in complaint for complaint in complaints(case, run(case, tmp_path, seconds=2), tmp_path))


def test_a_good_input_that_is_refused_is_seen(tmp_path):
    from forked import run

    case = Case("self", "self", lambda place: None, half_say)
    assert complaints(case, run(case, tmp_path), tmp_path)


def test_another_file_key_or_class_than_the_right_one_is_seen(tmp_path):
    facts = dict(file=str(tmp_path / "a"), key="k", expected="1", actual="2", hint=None)
    verdict = Verdict("refused", "WeightsError", facts, "text")

    def wrong(*refusal):
        return complaints(Case("self", "self", lambda p: None, lambda p: None, Refusal(*refusal)), verdict, tmp_path)

    assert wrong("WeightsError", "a", "k") == []
    assert wrong("ConfigError", "a", "k") and wrong("WeightsError", "b", "k") and wrong("WeightsError", "a", "l")
    assert wrong("WeightsError", "a", "k", "other words") and wrong("WeightsError", "a", None)


def test_too_slow_and_too_large_is_seen(tmp_path):
    facts = dict(file=None, key="k", expected="1", actual="2", hint=None)
    case = Case("self", "self", lambda p: None, lambda p: None, Refusal("WeightsError", None, "k"))
    assert complaints(case, Verdict("refused", "WeightsError", facts, "text", seconds=2.5), tmp_path)
    assert complaints(case, Verdict("refused", "WeightsError", facts, "text", megabytes=65), tmp_path)


def test_a_process_that_spins_is_ended_by_its_share_of_the_processor(tmp_path, monkeypatch):
    import forked

    monkeypatch.setattr(forked, "_CPU_SECONDS", 1)
    verdict = forked.run(Case("self", "self", lambda p: None, spin, Refusal("WeightsError")), tmp_path)
    assert (verdict.outcome, verdict.error) == ("killed", signal.SIGXCPU.name)
