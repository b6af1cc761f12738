"""Valid files with something changed in them: an error of ours, or what the changed file means; never anything else.

What a file means is told by its own library (safetensors, sentencepiece) or read off the JSON by hand.
"""

import copy
import json

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from meta_folders import PARAMS, as_state_dict, meta_weights, write_meta
from model_folders import CONFIG, read_index, weights, write_folder, write_index, write_shards
from safetensors.torch import load as read_safetensors
from safetensors.torch import load_file
from small_traces import ids, model
from vocabularies import library, tokenizer, train

from llama_core.errors import LlamaCoreError
from llama_core.traces import record
from llama_core.traces.read import validate
from llama_core.weights import load_model

few = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

JUNK = st.one_of(
    st.sampled_from([None, True, False, 0, -1, 1, 2, 3, 4, 8, 16, 24, 40, 64, 2**31, 10**400, 1e308, 5e-324, 1.5]),
    st.sampled_from(["", "x", "llama", "silu", "float16", "../x", "\0", [], {}, [1], [[2]], {"a": 1}]),
    st.integers(-3, 70),
    st.text(max_size=4),
)


@st.composite
def changed_json(draw, document):
    """The document with one or two of its values replaced, taken out, renamed or given twice; as text."""
    document = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 2))):
        place = document
        while True:
            inner = [
                v for v in (place.values() if isinstance(place, dict) else place) if v and isinstance(v, dict | list)
            ]
            if not inner or draw(st.booleans()):
                break
            place = draw(st.sampled_from(inner))
        if not place:
            continue
        if isinstance(place, list):
            place[draw(st.integers(0, len(place) - 1))] = draw(JUNK)
            continue
        key = draw(st.sampled_from(sorted(place)))
        how = draw(st.sampled_from(["replace", "replace", "remove", "rename", "add"]))
        if how == "replace":
            place[key] = draw(JUNK)
        elif how == "add":
            place[draw(st.text(max_size=6))] = draw(JUNK)
        else:
            value = place.pop(key)
            if how == "rename":
                place[key[:-1] + draw(st.sampled_from(["", "s", "_"]))] = value
    text = json.dumps(document)
    if draw(st.integers(0, 4)) == 0:
        text = text[: draw(st.integers(0, len(text)))]
    return text


@st.composite
def changed_bytes(draw, content, head):
    """The bytes with one to three of them flipped, cut out, doubled or put in; most often among the first ``head``."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        end = min(head, len(content)) if draw(st.integers(0, 3)) else len(content)
        at = draw(st.integers(0, max(0, end - 1)))
        how = draw(st.sampled_from(["flip", "digit", "cut", "put in", "end"]))
        if how == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif how == "digit":
            content[at] = draw(st.sampled_from(b"0123456789"))
        elif how == "cut":
            del content[at : at + draw(st.integers(1, 9))]
        elif how == "put in":
            content[at:at] = draw(st.binary(min_size=1, max_size=9))
        else:
            del content[at:]
            break
        if not content:
            break
    return bytes(content)


def attempt(use, *arguments):
    """What came of it; None for an error of ours. Any other exception is the test's failure."""
    try:
        return use(*arguments)
    except LlamaCoreError as error:
        assert error.message and len(str(error)) < 6000
        return None


def same_values(state, expected):
    names = {name for name in expected if "inv_freq" not in name}
    assert all(torch.equal(state[name.removeprefix("model.")], expected[name]) for name in names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("mutations") / "m")


@few
@given(text=changed_json(CONFIG))
def test_a_changed_config_json_is_refused_or_means_what_it_says(folder, text):
    (folder / "config.json").write_text(text, encoding="utf-8")
    found = attempt(load_model, folder)
    if found is None:
        return
    stated = json.loads(text)
    config = found.config
    for key in ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"):
        assert getattr(config, key) == stated[key]
    defaults = {
        "num_key_value_heads": stated["num_attention_heads"],
        "head_dim": stated["hidden_size"] // stated["num_attention_heads"],
        "max_position_embeddings": 2048,
        "rope_theta": 10000.0,
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": False,
    }
    for key, default in defaults.items():
        value = stated.get(key)
        assert getattr(config, key) == (default if value is None else value), key
    assert config.rms_norm_eps == stated["rms_norm_eps"]
    assert stated.get("hidden_act") in (None, "silu", "swish") and stated.get("rope_scaling") in (None, {})
    same_values(found.state_dict(), weights())


@few
@given(content=st.data())
def test_changed_safetensors_are_refused_or_hold_what_their_library_reads(folder, content):
    (folder / "config.json").write_text(json.dumps(CONFIG))
    path = folder / "model.safetensors"
    good = path.with_suffix(".good")
    if not good.exists():
        path.rename(good)
    changed = content.draw(changed_bytes(good.read_bytes(), 2600))
    path.unlink(missing_ok=True)
    path.write_bytes(changed)
    found = attempt(load_model, folder)
    if found is not None:
        same_values(found.state_dict(), read_safetensors(changed))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = write_shards(tmp_path_factory.mktemp("mutations") / "m")
    return folder, read_index(folder)


@few
@given(data=st.data())
def test_a_changed_index_is_refused_or_gives_the_same_model(shards, data):
    folder, index = shards
    write_index(folder, index)
    document = json.loads((folder / "model.safetensors.index.json").read_text())
    (folder / "model.safetensors.index.json").write_text(data.draw(changed_json(document)), encoding="utf-8")
    found = attempt(load_model, folder)
    if found is not None:
        same_values(found.state_dict(), weights())


@few
@given(content=changed_bytes(train(), 4000))
def test_a_changed_vocabulary_is_refused_or_is_what_its_library_reads(content):
    found = attempt(lambda: tokenizer.__wrapped__(content))
    if found is None:
        return
    theirs = library(content)
    assert [found.token(i) for i in range(found.vocab_size)] == [theirs.id_to_piece(i) for i in range(found.vocab_size)]
    for text in ("the cat sat", "  two  spaces", "日本 é\n"):
        assert found.encode(text) == theirs.encode(text)


@pytest.fixture(scope="module")
def meta(tmp_path_factory):
    return write_meta(tmp_path_factory.mktemp("mutations") / "m")


@few
@given(text=changed_json(PARAMS))
def test_changed_params_are_refused_or_mean_what_they_say(meta, text):
    (meta / "params.json").write_text(text, encoding="utf-8")
    found = attempt(load_model, meta)
    if found is None:
        return
    stated, config = json.loads(text), found.config
    assert (config.hidden_size, config.num_hidden_layers) == (stated["dim"], stated["n_layers"])
    assert config.num_attention_heads == stated["n_heads"]
    kv_heads = stated.get("n_kv_heads")
    assert config.num_key_value_heads == (stated["n_heads"] if kv_heads is None else kv_heads)
    assert config.rms_norm_eps == stated["norm_eps"]
    assert config.vocab_size == 40 and stated.get("vocab_size") in (40, -1, None)
    assert config.rope_theta == (stated.get("rope_theta") or 10000.0)
    if config.head_dim == 8:  # else the rows of q and k have another order
        same_values(found.state_dict(), as_state_dict(meta_weights()))


@pytest.fixture(scope="module")
def trace(tmp_path_factory):
    made = record(model(), ids(), tmp_path_factory.mktemp("mutations") / "t", names=["layers.1.q", "logits"])
    return made.folder, json.loads((made.folder / "manifest.json").read_text())


@few
@given(data=st.data())
def test_a_changed_manifest_is_refused_or_leads_to_the_stored_values(trace, data):
    folder, document = trace
    (folder / "manifest.json").write_text(data.draw(changed_json(document)), encoding="utf-8")
    found = attempt(validate, folder)
    if found is None:
        return
    for (name, call), stated in found.records.items():
        if stated.file:
            assert np.array_equal(found.values(name, call), load_file(folder / stated.file)[name].numpy())
    stated = json.loads((folder / "manifest.json").read_text())
    assert [call.input_ids.tolist() for call in found.calls] == [call["input_ids"] for call in stated["calls"]]
