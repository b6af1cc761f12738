"""What follows from ids alone, through every layer and every earlier call, without a tensor in between."""

import numpy as np
import pytest
from small_traces import CONFIG, ids, model

from llama_core.traces import regions
from llama_core.traces.format import make_call
from llama_core.traces.model_weights import LoadedModel
from llama_core.traces.regions import Candidate, Weights


def fed_one_by_one(tokens):
    calls = []
    for position, token in enumerate(tokens[0].tolist()):
        calls.append(make_call(calls, np.array([[token]]), np.array([[position]]), [0]))
    return calls


def without_tensors(made, tokens):
    weights = Weights(LoadedModel(made), "float32")
    return Candidate(fed_one_by_one(tokens), made.config, weights, lambda name, call: None, lambda call: None)


@pytest.mark.parametrize(("layers", "length"), [(3, 100), (120, 1)], ids=["many calls", "many layers"])
def test_logits_follow_from_ids_however_many_calls_and_layers_lie_between(layers, length):
    made, tokens = model(num_hidden_layers=layers), ids(length=length)
    logits = without_tensors(made, tokens).region("output", length - 1).computed("logits")
    assert np.allclose(logits[0, 0], made(tokens)[0, -1].detach().numpy(), atol=1e-4)


def test_the_work_grows_with_layers_times_calls_and_not_by_doubling(monkeypatch):
    made, count = regions.Region.__init__, 0

    def counted(self, *arguments, **named):
        nonlocal count
        count += 1
        made(self, *arguments, **named)

    monkeypatch.setattr(regions.Region, "__init__", counted)
    calls = 7
    without_tensors(model(), ids(length=calls)).region("output", calls - 1).computed("logits")
    assert count <= 3 * CONFIG.num_hidden_layers * calls + 2
