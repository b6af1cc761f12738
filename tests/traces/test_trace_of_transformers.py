"""transformers as a candidate: right in prefill and decode, and wrong where it is made wrong."""

import numpy as np
import pytest
import torch
from small_traces import CONFIG, golden, ids, model

from llama_core.traces import compare, record
from llama_core.traces.bridges.transformers import record_transformers
from llama_core.traces.recorder import Plan, plan_like, plan_prompt

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def right(tmp_path_factory):
    return golden(tmp_path_factory.mktemp("traces") / "golden", rows=2)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "small"
    model().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("attention", ["eager", "fused"])
def test_transformers_is_right_in_prefill_and_decode(right, saved, tmp_path, dtype, attention):
    trace = record_transformers(saved, tmp_path / "hf", plan_like(right), dtype=dtype, attention=attention)
    result = compare(right, trace, model=model())
    assert result.passed, str(result)
    names = {line.name for line in result.lines if line.status == "not provided"}
    assert len(names) == (0 if attention == "eager" else 3 * CONFIG.num_hidden_layers)


#: Of a model with one step more than a Llama, what switches it on.
NEIGHBOURS = {"mistral": dict(sliding_window=3), "qwen2": dict(qkv_bias=True), "qwen3": dict(qk_norm=True)}


@pytest.fixture(scope="module", params=NEIGHBOURS)
def neighbour(request, tmp_path_factory):
    """A neighbour's model, its golden trace and its folder; padding on the left, and more tokens than the window."""
    folder, own = tmp_path_factory.mktemp(request.param), model(**NEIGHBOURS[request.param])
    own.save_pretrained(folder / "model")
    mask = np.ones((2, 7), dtype=np.int64)
    mask[1, :2] = 0
    plan = plan_prompt(ids(2).numpy(), mask, steps=2)
    right = record(own, None, folder / "golden", plan=Plan(plan.calls, plan.steps), noise=("float32",))
    return own, right, folder / "model"


@pytest.mark.parametrize("attention", ["eager", pytest.param("fused", marks=pytest.mark.slow)])
def test_neighbours_of_a_llama_are_run_by_their_own_class(neighbour, tmp_path, attention):
    own, right, saved = neighbour
    trace = record_transformers(saved, tmp_path / "hf", plan_like(right), attention=attention)
    result = compare(right, trace, model=own)
    assert result.passed, str(result)


def test_its_window_counts_padding_between_a_prompt_and_its_step(tmp_path):
    """A difference between transformers and us that only rows show which were padded on the right and go on."""
    own = model(sliding_window=3)
    own.save_pretrained(tmp_path / "model")
    mask = np.ones((2, 7), dtype=np.int64)
    mask[0, -3:] = 0
    plan = plan_prompt(ids(2).numpy(), mask, steps=1)
    right = record(own, None, tmp_path / "golden", plan=Plan(plan.calls, plan.steps), noise=("float32",))
    trace = record_transformers(tmp_path / "model", tmp_path / "hf", plan_like(right))
    result = compare(right, trace, model=own)
    assert (result.first, result.first_call) == ("layers.0.masked_scores", 1), str(result)
    assert result.cause.ids == ("attention-window-counts-padding",), str(result)


def test_a_neighbour_run_as_a_plain_llama_is_found_out(tmp_path):
    own = model(sliding_window=3)
    right = golden(tmp_path / "golden", own, noise=("float32",))
    own.save_pretrained(tmp_path / "model")
    peer = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    trace = record_transformers(peer, tmp_path / "hf", plan_like(right), config=own.config)
    result = compare(right, trace, model=own)
    assert result.cause.ids == ("attention-window-ignored",), str(result)


def test_a_norm_with_another_epsilon_in_one_of_its_layers_is_named(right, saved, tmp_path):
    peer = transformers.LlamaForCausalLM.from_pretrained(saved, dtype=torch.float32).eval()
    peer.model.layers[1].input_layernorm.variance_epsilon = 1e-3
    trace = record_transformers(peer, tmp_path / "hf", plan_like(right), config=CONFIG)
    result = compare(right, trace, model=model())
    assert result.first == "layers.1.attention_norm" and result.cause.ids == ("norm-eps-1e-3",), str(result)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_outputs_of_its_modules_go_through_the_map_that_ships(tmp_path, kind):
    own = model(**NEIGHBOURS.get(kind, {}))
    right = golden(tmp_path / "golden", own, rows=2)
    own.save_pretrained(tmp_path / "model")
    peer = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    tokens = np.concatenate([call.input_ids for call in right.calls], axis=1)
    folder = tmp_path / "hooks"
    folder.mkdir()

    def keep(name):
        def hook(_, arguments, output):
            value = output[0] if isinstance(output, tuple) else output
            np.save(folder / f"{name}.npy", value.detach().numpy())

        return hook

    for name, module in peer.named_modules():
        if name.count(".") in (1, 2) or name.endswith(("_proj", "_norm")) or name == "lm_head":
            module.register_forward_hook(keep(name)) if not name.endswith(("rotary_emb", "layers")) else None
    (folder / "model.layers.0.mlp.down_proj.npy").unlink(missing_ok=True)
    with torch.no_grad():
        peer(torch.from_numpy(tokens))
    result = compare(right, folder, model=own, map="transformers")
    assert result.passed and result.line("layers.2.q").status == "within noise", str(result)
