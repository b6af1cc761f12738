"""llama.cpp as a candidate: right in prefill and decode, in every form of GGUF, and wrong where it is made wrong.

The small models run everywhere that llama-cpp-python is installed: ``make test-llamacpp``.
"""

import sys

import gguf
import pytest
import torch

from llama_core import Llama, LlamaConfig, RopeScaling
from llama_core.cli import main
from llama_core.errors import TraceError
from llama_core.traces import compare, record
from llama_core.traces.bridges.llama_cpp import record_llama_cpp
from llama_core.traces.recorder import plan_like, plan_prompt
from llama_core.weights import convert

CONFIG = LlamaConfig(
    vocab_size=48,
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=16,
    max_position_embeddings=64,
)
CONFIGS = {
    "plain": CONFIG,
    "tied": CONFIG.replace(tie_word_embeddings=True),
    "biases": CONFIG.replace(attention_bias=True, mlp_bias=True),
    "linear": CONFIG.replace(rope_scaling=RopeScaling("linear", 4.0)),
    "llama3": CONFIG.replace(rope_scaling=RopeScaling("llama3", 8.0, 32, low_freq_factor=1.0, high_freq_factor=4.0)),
    "yarn": CONFIG.replace(rope_scaling=RopeScaling("yarn", 4.0, 16)),
}
#: In tolerances: a right run is not only within them, it does not come near.
NONE_NEAR = 0.9


@pytest.fixture(scope="module")
def llama_cpp():
    return pytest.importorskip("llama_cpp", reason="llama-cpp-python is not installed: make test-llamacpp installs it")


def gguf_of(place, config=CONFIG, kind="f32", edit=None):
    """A random model's GGUF file, perhaps with its parameters changed first."""
    made = Llama.random(config, seed=5)
    if edit:
        with torch.no_grad():
            edit(made)
    made.save_pretrained(place / "hf")
    convert(place / "hf", place / "m.gguf", "gguf", kind)
    return place / "m.gguf"


def ids(rows=1, length=9):
    return torch.randint(0, 48, (rows, length), generator=torch.Generator().manual_seed(2))


def golden(place, model, **options):
    return record(model, ids(), place / "golden", steps=3, noise=["float32"], **options)


def largest(result):
    return max(max(line.cumulative or 0, line.introduced or 0) for line in result.lines)


@pytest.mark.parametrize("name", CONFIGS)
def test_llama_cpp_in_float32_is_right_in_prefill_and_decode(llama_cpp, tmp_path, name):
    path = gguf_of(tmp_path, CONFIGS[name])
    model = Llama.from_pretrained(tmp_path / "hf")
    right = golden(tmp_path, model)
    result = compare(right, record_llama_cpp(path, tmp_path / "ggml", plan_like(right)), model=model)
    assert result.passed and largest(result) < NONE_NEAR, str(result)
    missing = {line.name.split(".")[-1] for line in result.lines if line.status == "not provided"}
    assert missing == {"masked_scores", "ffn_activation"}
    assert result.quality.same_top == 1.0 and result.quality.mean_kl < 1e-9


def test_rows_of_different_lengths_are_runs_of_their_own(llama_cpp, tmp_path):
    path = gguf_of(tmp_path)
    model = Llama.from_pretrained(tmp_path / "hf")
    mask = torch.ones(2, 9, dtype=torch.long)
    mask[1, :4] = 0
    right = record(model, ids(2), tmp_path / "golden", steps=2, attention_mask=mask, noise=["float32"])
    result = compare(right, record_llama_cpp(path, tmp_path / "ggml", plan_like(right)), model=model)
    assert result.passed and result.line("logits").rows == right.calls[0].positions.size - 4 + 4, str(result)


@pytest.mark.parametrize("kind", ["f16", "bf16", "q8_0"])
def test_coarser_weights_are_right_against_the_golden_of_the_file_itself(llama_cpp, tmp_path, kind):
    path = gguf_of(tmp_path, kind=kind)
    model = Llama.from_pretrained(path, dtype="float32")
    right = golden(tmp_path, model)
    trace = record_llama_cpp(path, tmp_path / "ggml", plan_like(right))
    assert trace.manifest.product_inputs == {"f16": "float16", "bf16": "bfloat16", "q8_0": "q8_0"}[kind]
    result = compare(right, trace, model=model)
    assert result.passed and largest(result) < NONE_NEAR, str(result)
    assert result.line("layers.1.q").status == "within noise"


def test_its_own_greedy_steps_are_the_models(llama_cpp, tmp_path):
    path = gguf_of(tmp_path)
    trace = record_llama_cpp(path, tmp_path / "ggml", plan_prompt(ids(), steps=3), names="logits")
    right = record(Llama.from_pretrained(tmp_path / "hf"), ids(), tmp_path / "golden", steps=3, names="logits")
    assert [c.input_ids.tolist() for c in trace.calls] == [c.input_ids.tolist() for c in right.calls]


def rows_without_their_order(weights, heads):
    """What a converter leaves that does not put the rows of q and k in llama.cpp's order, undone by one that does."""
    return weights.view(heads, -1, 2, weights.shape[1]).transpose(1, 2).reshape(weights.shape)


def q_not_reordered(model):
    q = model.layers[1].self_attn.q_proj.weight
    q.copy_(rows_without_their_order(q.clone(), 4))


def k_reordered_as_if_it_had_four_heads(model):
    k = model.layers[1].self_attn.k_proj.weight
    stored = k.view(4, 2, 4, 32).transpose(1, 2).reshape(32, 32)
    k.copy_(rows_without_their_order(stored, 2))


def up_of_the_other_layer(model):
    ours, other = (model.layers[n].mlp.up_proj.weight for n in (1, 0))
    ours.copy_(other)


def gate_and_up_swapped(model):
    gate, up = model.layers[1].mlp.gate_proj.weight, model.layers[1].mlp.up_proj.weight
    before = gate.clone()
    gate.copy_(up)
    up.copy_(before)


@pytest.mark.parametrize(
    ("spoil", "first", "id"),
    [
        (q_not_reordered, "layers.1.q", "q-rows-in-half-layout"),
        (k_reordered_as_if_it_had_four_heads, "layers.1.k", "k-rows-converted-with-4-heads"),
        (up_of_the_other_layer, "layers.1.ffn_up", "mlp.up_proj-of-layer-0"),
        (gate_and_up_swapped, "layers.1.ffn_gate", "ffn-gate-and-up-swapped"),
    ],
)
def test_weights_that_a_converter_spoils_are_found_in_their_layer_and_named(llama_cpp, tmp_path, spoil, first, id):
    right_model = Llama.random(CONFIG, seed=5)
    path = gguf_of(tmp_path, edit=spoil)
    right = golden(tmp_path, right_model)
    result = compare(right, record_llama_cpp(path, tmp_path / "ggml", plan_like(right)), model=right_model)
    assert (result.first, result.cause.ids) == (first, (id,)), str(result)
    assert any(finding.kind == "weights" for finding in result.findings)


@pytest.mark.parametrize(
    ("changes", "first", "id"),
    [
        ({"rms_norm_eps": 1e-3}, "attention_norm", "norm-eps-1e-3"),
        ({"rope_theta": 77_000.0}, "q_rotated", "rope-theta-77000"),
        ({"rope_scaling": RopeScaling("linear", 2.0)}, "q_rotated", "rope-scaling-as-stated"),
    ],
)
def test_another_number_in_the_header_is_found_and_named(llama_cpp, tmp_path, changes, first, id):
    right_model = Llama.random(CONFIG, seed=5)
    path = gguf_of(tmp_path, CONFIG.replace(**changes))
    right = golden(tmp_path, right_model)
    result = compare(right, record_llama_cpp(path, tmp_path / "ggml", plan_like(right)), model=right_model)
    assert (result.first, result.cause.ids) == (f"layers.0.{first}", (id,)), str(result)


def test_the_command_writes_a_trace(llama_cpp, tmp_path, capsys):
    path = gguf_of(tmp_path)
    line = ["trace", "--engine", "llama.cpp", "--model", str(path), "--ids", "1,5,9", "--out", str(tmp_path / "out")]
    assert main(line) == 0 and "3 tokens in 1 calls" in capsys.readouterr().out
    assert main([*line, "--dtype", "bfloat16"]) == 2
    assert "float32 only" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("model", ["stories", "stories260K"])
@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_trained_models_are_right_after_a_long_prompt_too(llama_cpp, tmp_path, request, model, kind):
    """Angles of llama.cpp are further off the later a token is: 9 tolerances at position 240, before they counted."""
    source = "stories" if model == "stories" else request.getfixturevalue("real_models") / model
    convert(source, tmp_path / "m.gguf", "gguf", kind)
    loaded = Llama.from_pretrained(tmp_path / "m.gguf", dtype="float32")
    arithmetic = "float32" if kind == "f32" else "float32:q8_0"
    prompt = torch.randint(3, 500, (1, 240), generator=torch.Generator().manual_seed(2))
    right = record(loaded, prompt, tmp_path / "golden", steps=2, rows="0,9,120,last", noise=[arithmetic])
    theirs = record_llama_cpp(tmp_path / "m.gguf", tmp_path / "ggml", plan_like(right), rows="0,9,120,last")
    result = compare(right, theirs, model=loaded)
    assert result.passed and largest(result) < NONE_NEAR, str(result)
    assert result.quality.mean_kl < (1e-9 if kind == "f32" else 0.02), str(result.quality)


# Everywhere


def test_without_llama_cpp_python_the_error_says_how_to_get_it(tmp_path, monkeypatch):
    path = gguf_of(tmp_path)
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    with pytest.raises(TraceError) as caught:
        record_llama_cpp(path, tmp_path / "ggml", plan_prompt(ids()))
    assert "llama-core[llamacpp]" in caught.value.hint and not (tmp_path / "ggml").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda whole: whole[:-100], "is cut off"),
        (lambda whole: whole[:4] + b"\x01" + whole[5:], "GGUF version 1"),
        (lambda whole: whole.replace(b"llama", b"gemma"), "the architecture is 'gemma'"),
        (lambda whole: b"<!doctype html>" + whole, "HTML page"),
    ],
    ids=["cut off", "version 1", "another architecture", "a web page"],
)
def test_a_file_that_is_no_whole_llama_is_told_before_llama_cpp_is_looked_for(
    tmp_path, monkeypatch, capsys, content, message
):
    path = gguf_of(tmp_path)
    path.write_bytes(content(path.read_bytes()))
    monkeypatch.setitem(sys.modules, "llama_cpp", None)
    line = ["trace", "--engine", "llama.cpp", "--model", str(path), "--ids", "1,5", "--out", str(tmp_path / "out")]
    said = (main(line), capsys.readouterr().err)
    assert said[0] == 2 and message in said[1] and not (tmp_path / "out").exists(), said


def test_a_model_folder_is_no_model_for_llama_cpp(tmp_path, capsys):
    line = ["trace", "--engine", "llama.cpp", "--model", "stories", "--ids", "1,5", "--out", str(tmp_path / "out")]
    assert main(line) == 2 and "--to gguf" in capsys.readouterr().err


def test_a_gguf_file_is_traced_by_this_package_in_its_own_values(tmp_path, capsys):
    path = gguf_of(tmp_path, kind="q8_0")
    out = tmp_path / "out"
    assert main(["trace", "--model", str(path), "--ids", "1,5,9", "--noise", "none", "--out", str(out)]) == 0
    found = compare(out, record(Llama.from_pretrained(path), [[1, 5, 9]], tmp_path / "same"), model=path)
    stored = {t.name: t for t in gguf.GGUFReader(path).tensors}
    table = gguf.quants.dequantize(stored["token_embd.weight"].data, gguf.GGMLQuantizationType.Q8_0)
    assert found.passed
    values = record(Llama.from_pretrained(path), [[1, 5, 9]], tmp_path / "e", names="embedding").values("embedding", 0)
    assert (values[0] == table[[1, 5, 9]]).all()
    assert main(["trace", "--model", str(path), "--prompt", "One day", "--out", str(out)]) == 2
    assert "vocabulary of a GGUF file is not read" in capsys.readouterr().err
