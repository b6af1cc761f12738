"""Parameters a tensor at a time: the same values as the whole model's, and never the whole model."""

import gc

import numpy as np
import pytest
import torch
from small_traces import golden, model

from llama_core.errors import TraceError
from llama_core.model import Llama
from llama_core.traces import compare
from llama_core.traces.format import fingerprint
from llama_core.traces.model_weights import LoadedModel, StoredParameters, as_float, right_model
from llama_core.traces.regions import Region


@pytest.fixture(scope="module", params=[False, True], ids=["own head", "tied"])
def folder(tmp_path_factory, request):
    place = tmp_path_factory.mktemp("model")
    model(tie_word_embeddings=request.param, dtype="bfloat16").save_pretrained(place)
    return place


def test_a_stored_model_gives_what_a_loaded_one_gives(folder):
    stored, loaded = StoredParameters(folder), LoadedModel(Llama.from_pretrained(folder))
    assert stored.own_names and set(stored.own_names) == set(loaded.own_names)
    for name in [*loaded.own_names, "lm_head.weight"]:
        assert torch.equal(stored.tensor(name), loaded.tensor(name))
        assert torch.equal(stored.tensor(name, slice(3, 900)), loaded.tensor(name)[3:])
    assert stored.tensor("layers.0.self_attn.q_proj.bias") is None is loaded.tensor("layers.0.self_attn.q_proj.bias")


def test_comparing_reads_the_folder_and_loads_no_model(tmp_path, monkeypatch):
    model().save_pretrained(tmp_path / "model")
    right = golden(tmp_path / "golden", noise=("float32",))

    def refuse(*arguments, **options):
        raise AssertionError("the whole model was loaded")

    monkeypatch.setattr(Llama, "from_pretrained", refuse)
    result = compare(right, right, model=tmp_path / "model")
    assert result.passed and all(line.introduced is not None for line in result.lines if "_ids" not in line.name)


def test_what_a_comparison_computes_is_freed_without_the_garbage_collector(tmp_path):
    right = golden(tmp_path / "golden", noise=("float32",))
    gc.collect()
    gc.disable()
    try:
        assert compare(right, right, model=model()).passed
        assert [x for x in gc.get_objects() if type(x) is Region] == []
    finally:
        gc.enable()


def test_the_fingerprint_of_a_folder_is_that_of_the_model(folder):
    made = Llama.from_pretrained(folder)
    stored = StoredParameters(folder)
    assert fingerprint((n, lambda n=n: stored.tensor(n)) for n in stored.own_names) == fingerprint(
        made.named_parameters()
    )


def test_another_models_folder_is_refused(tmp_path):
    right = golden(tmp_path / "golden", noise=())
    model(seed=2).save_pretrained(tmp_path / "other")
    with pytest.raises(TraceError, match="not of this model"):
        right_model(tmp_path / "other", right)


def test_weights_are_rounded_to_the_candidates_type():
    x = torch.tensor([[1.0 + 2**-9, 3.0]])
    assert as_float(x, "bfloat16").tolist() == [[1.0, 3.0]] and as_float(x, "float32").dtype == torch.float32
    assert as_float(x[0], "float32").dtype == torch.float64
    assert np.array_equal(as_float(x.double() / 3, "float64").numpy(), x.double().numpy() / 3)
