"""transformers as a candidate: right in prefill and decode, and wrong where it is made wrong."""

import numpy as np
import pytest
import torch
from small_traces import CONFIG, golden, model

from llama_core.traces import compare
from llama_core.traces.bridges.transformers import record_transformers
from llama_core.traces.recorder import plan_like

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


def test_a_norm_with_another_epsilon_in_one_of_its_layers_is_named(right, saved, tmp_path):
    peer = transformers.LlamaForCausalLM.from_pretrained(saved, dtype=torch.float32).eval()
    peer.model.layers[1].input_layernorm.variance_epsilon = 1e-3
    trace = record_transformers(peer, tmp_path / "hf", plan_like(right), config=CONFIG)
    result = compare(right, trace, model=model())
    assert result.first == "layers.1.attention_norm" and result.cause.ids == ("norm-eps-1e-3",), str(result)


def test_outputs_of_its_modules_go_through_the_map_that_ships(right, saved, tmp_path):
    peer = transformers.LlamaForCausalLM.from_pretrained(saved, dtype=torch.float32).eval()
    ids = np.concatenate([call.input_ids for call in right.calls], axis=1)
    folder = tmp_path / "hooks"
    folder.mkdir()

    def keep(name):
        def hook(_, arguments, output):
            value = output[0] if isinstance(output, tuple) else output
            np.save(folder / f"{name}.npy", value.detach().numpy())

        return hook

    for name, module in peer.named_modules():
        if name.count(".") in (1, 2) or name.endswith("_proj") or name == "lm_head":
            module.register_forward_hook(keep(name)) if not name.endswith(("rotary_emb", "layers")) else None
    (folder / "model.layers.0.mlp.down_proj.npy").unlink(missing_ok=True)
    with torch.no_grad():
        peer(torch.from_numpy(ids))
    result = compare(right, folder, model=model(), map="transformers")
    assert result.passed and result.line("layers.2.q").status == "within noise", str(result)
