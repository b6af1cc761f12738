"""Mistral, Qwen2 and Qwen3: one step more than a Llama each, held to transformers on folders that it writes."""

import json

import pytest
import torch
import transformers

from llama_core import KVCache, Llama, LlamaConfig, capture, generate
from llama_core.batch import generate_batch
from llama_core.checkpoints import check, checkpoint
from llama_core.checkpoints.gate import cases_for
from llama_core.errors import ConfigError
from llama_core.sampling import SamplingParameters
from llama_core.weights import describe, load_model, save_model

SIZES = dict(
    vocab_size=96,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    rms_norm_eps=1e-5,
)
LENGTH = 30

#: name -> (class of transformers, what differs from SIZES)
KINDS = {
    "mistral, window 7": (transformers.MistralConfig, dict(sliding_window=7)),
    "mistral, window 1": (transformers.MistralConfig, dict(sliding_window=1)),
    "mistral, window of the text": (transformers.MistralConfig, dict(sliding_window=LENGTH)),
    "mistral, no window": (transformers.MistralConfig, dict(sliding_window=None, head_dim=20)),
    "qwen2": (transformers.Qwen2Config, dict()),
    "qwen2, tied": (transformers.Qwen2Config, dict(tie_word_embeddings=True)),
    "qwen3": (transformers.Qwen3Config, dict(head_dim=20)),
    "qwen3, biases": (transformers.Qwen3Config, dict(head_dim=12, attention_bias=True)),
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request, tmp_path_factory):
    return make_pair(request.param, tmp_path_factory.mktemp("model"))


def make_pair(name, folder):
    """Their model with random weights, ours from the folder that theirs was saved to, and the folder."""
    kind, changes = KINDS[name]
    theirs = transformers.AutoModelForCausalLM.from_config(kind(**(SIZES | changes))).eval()
    generator = torch.Generator().manual_seed(5)
    for name, parameter in theirs.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        one = 1 + 0.25 * value if name.endswith("norm.weight") else 0.5 * value
        parameter.data.copy_(one if parameter.ndim == 1 else value * parameter.shape[-1] ** -0.5)
        parameter.requires_grad_(False)
    theirs.save_pretrained(folder)
    return theirs, load_model(folder), folder


def token_ids(rows: int = 2) -> torch.Tensor:
    return torch.randint(96, (rows, LENGTH), generator=torch.Generator().manual_seed(7))


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert (ours - theirs).abs().max() < 2e-4 * theirs.abs().max()


@pytest.mark.parametrize("attention", ["eager", "fused"])
def test_logits_and_hidden_states_are_those_of_transformers(pair, attention):
    theirs, ours, _ = pair
    ours.attention = attention
    wanted = theirs(token_ids(), output_hidden_states=True)
    with capture(ours, ["embedding", "layers.*.output"]) as seen:
        assert_close(ours(token_ids()), wanted.logits)
    ours.attention = "fused"
    for n, state in enumerate(wanted.hidden_states[1:-1]):
        assert_close(seen[f"layers.{n}.output"], state)


@pytest.mark.parametrize("side", ["left", "between", "right"])
def test_padding_does_not_shift_the_window(pair, side):
    theirs, ours, _ = pair
    first = {"left": 0, "between": 12, "right": LENGTH - 9}[side]
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[1, first : first + 9] = 0
    real = mask[1].bool()
    assert_close(ours(token_ids(), attention_mask=mask)[1:, real], theirs(token_ids()[1:, real]).logits)


@pytest.mark.parametrize("chunk", [1, 4, 11])
def test_chunks_through_a_cache_give_the_logits_of_one_pass(pair, chunk):
    theirs, ours, _ = pair
    cache, found = KVCache(ours.config, 2, LENGTH), []
    for start in range(0, LENGTH, chunk):
        found.append(ours(token_ids()[:, start : start + chunk], cache=cache))
    assert_close(torch.cat(found, 1), theirs(token_ids()).logits)


def test_greedy_ids_are_those_of_transformers_alone_and_in_a_ragged_batch(pair):
    theirs, ours, _ = pair
    prompts = [token_ids()[0, :12].tolist(), token_ids()[1, :3].tolist()]
    together = generate_batch(ours, prompts, 20, SamplingParameters(0), eos_ids=())
    for prompt, row in zip(prompts, together, strict=True):
        wanted = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            use_cache=False,  # with a window of 1 their cache keeps everything
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )[0, len(prompt) :].tolist()
        assert list(generate(ours, prompt, 20, 0, eos_ids=())) == wanted
        assert list(row.ids) == wanted


def test_a_folder_survives_both_directions(pair, tmp_path):
    theirs, ours, _ = pair
    save_model(ours, tmp_path / "a")
    again = load_model(tmp_path / "a")
    assert again.config == ours.config
    back, report = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "a", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert_close(again(token_ids()), theirs(token_ids()).logits)
    assert torch.equal(back.eval()(token_ids()).logits, theirs(token_ids()).logits)


def test_parameters_are_counted_as_transformers_counts_them(pair):
    theirs, ours, folder = pair
    assert ours.config.num_parameters == sum(p.numel() for p in theirs.parameters()) == describe(folder).parameters


@pytest.mark.parametrize("pair", ["mistral, window 7", "qwen2", "qwen3"], indirect=True)
def test_the_gates_pass_on_its_weights(pair):
    for id in ("0", "2", "3", "4", "6", "7", "8"):
        result = check(id, cases=cases_for(checkpoint(id), pair[2]))
        assert result.passed, result.table()


@pytest.mark.parametrize("flag", ["sliding_window", "qkv_bias", "qk_norm"])
def test_a_step_left_out_shows_in_the_logits(flag):
    """What the comparisons above would see if the step were missing."""
    config = LlamaConfig(**SIZES, **{flag: 7 if flag == "sliding_window" else True})
    model = Llama.random(config, seed=3)
    plain = Llama(config.replace(**{flag: None if flag == "sliding_window" else False}))
    plain.load_state_dict({n: t for n, t in model.state_dict().items() if n in plain.state_dict()}, assign=True)
    difference = (model(token_ids()) - plain(token_ids())).abs().max()
    assert difference > 1e-2 * model(token_ids()).abs().max()


def edited(pair_folder, tmp_path, **changes):
    content = json.loads((pair_folder / "config.json").read_text()) | changes
    folder = tmp_path / "edited"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if v is not ...}))
    return folder


#: kind -> (changes of config.json, the key that is refused)
REFUSED = {
    "mistral, window 7": [
        ({"attention_bias": True}, "attention_bias"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"sliding_window": 0}, "sliding_window"),
        ({"sliding_window": "7"}, "sliding_window"),
        ({"num_key_value_heads": ...}, "num_key_value_heads"),
        ({"layer_types": ["full_attention"] * 3}, "layer_types"),
        ({"architectures": ["LlamaForCausalLM"]}, "architectures"),
    ],
    "qwen2": [
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "layer_types"),
        ({"attention_bias": True}, "attention_bias"),
        ({"qk_norm": True}, "qk_norm"),
        ({"num_experts": 8}, "num_experts"),
    ],
    "qwen3": [
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"model_type": "qwen3_moe"}, "model_type"),
    ],
}


def test_what_would_change_the_result_is_refused_by_name(pair, tmp_path_factory, request):
    kind = request.node.callspec.params["pair"]
    for changes, key in REFUSED.get(kind, []):
        with pytest.raises(ConfigError) as caught:
            load_model(edited(pair[2], tmp_path_factory.mktemp("refused"), **changes))
        assert caught.value.key == key, changes


def test_steps_that_no_published_kind_has_together_cannot_be_saved(tmp_path):
    model = Llama.random(LlamaConfig(**SIZES, qk_norm=True, qkv_bias=True))
    with pytest.raises(ConfigError, match="no model_type stands for"):
        save_model(model, tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("window", [0, -1, 2**31])
def test_an_impossible_window_is_refused(window):
    with pytest.raises(ConfigError) as caught:
        LlamaConfig(**SIZES, sliding_window=window)
    assert caught.value.key == "sliding_window"
