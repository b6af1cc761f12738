"""Bugs that people met in public, replayed in a whole model: located, and named or honestly unknown."""

import pytest
from cause_sweep import results
from replays import REPLAYS

NAMES = [replay.id for replay in REPLAYS]


def row(id):
    return next(row for row in results("replays") if row["id"] == id)


def test_there_are_twenty_bugs_each_from_a_thread_of_its_own():
    assert len({replay.link for replay in REPLAYS}) == len(REPLAYS) >= 20
    assert len(set(NAMES)) == len(REPLAYS)


@pytest.mark.slow
@pytest.mark.parametrize("replay", REPLAYS, ids=NAMES)
def test_a_replayed_bug_is_located_and_named(replay):
    found = row(replay.id)
    assert found["differs"] == list(replay.first), "the replay does not go wrong where the table says"
    assert (found["first"], found["call"]) == replay.first, found
    if replay.refused:
        assert replay.refused in found["evidence"]
    elif replay.named:
        assert found["was named"], found
    else:
        assert not found["named"] and found["evidence"], found
