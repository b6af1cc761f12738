"""Ragged batches against each prompt alone, and what ends each row."""

import pytest
import torch
import transformers
from small_models import CONFIG, no_shape_checks, random_model

from llama_core.batch import generate_batch
from llama_core.errors import GenerationError, InputError
from llama_core.generate import generate, generate_steps
from llama_core.sampling import SamplingParameters
from llama_core.weights import save_model

GREEDY = SamplingParameters(0)
PROMPTS = [[1, 17, 5, 80, 33, 9, 64], [1], [1, 4, 4], [90, 2, 30, 31, 32, 33, 34, 35, 36, 37, 38], [1, 17]]


@pytest.fixture(autouse=True, scope="module")
def quick():
    with no_shape_checks():
        yield


def alone(prompt, count=20, parameters=GREEDY, **options):
    return list(generate_steps(random_model(), prompt, count, parameters, **{"eos_ids": ()} | options))


@pytest.mark.parametrize("attention", ["fused", "eager"])
@pytest.mark.parametrize("chunk", [1, 3, 1000])
def test_each_row_of_a_ragged_batch_gives_what_it_gives_alone(chunk, attention):
    model = random_model()
    try:
        model.attention = attention
        found = generate_batch(model, PROMPTS, 20, GREEDY, eos_ids=(), prefill_chunk=chunk)
        for prompt, continuation in zip(PROMPTS, found, strict=True):
            steps = alone(prompt)
            assert list(continuation.ids) == [step.token for step in steps]
            assert continuation.log_probabilities == pytest.approx([step.log_probability for step in steps], abs=1e-4)
            assert continuation.reason == "length"
    finally:
        model.attention = "fused"


def test_rows_end_each_at_its_own_end_id_and_the_others_go_on():
    steps = [[step.token for step in alone(prompt)] for prompt in PROMPTS]
    ends = {steps[0][3], steps[2][7]}
    found = generate_batch(random_model(), PROMPTS, 20, GREEDY, eos_ids=ends)
    lengths = set()
    for ids, continuation in zip(steps, found, strict=True):
        first = next((n for n, token in enumerate(ids) if token in ends), None)
        assert list(continuation.ids) == (ids if first is None else ids[: first + 1])
        assert continuation.reason == ("length" if first is None else "end")
        lengths.add(len(continuation.ids))
    assert len(lengths) > 1


@pytest.mark.parametrize(
    "parameters",
    [
        SamplingParameters(1.0),
        SamplingParameters(0.7, top_k=20, top_p=0.9, min_p=0.02, repetition_penalty=1.2),
        SamplingParameters(0, repetition_penalty=1.5),
    ],
    ids=str,
)
def test_row_i_draws_what_seed_plus_i_draws_alone(parameters):
    found = generate_batch(random_model(), PROMPTS, 15, parameters, seed=40, eos_ids=())
    for n, (prompt, continuation) in enumerate(zip(PROMPTS, found, strict=True)):
        assert list(continuation.ids) == [step.token for step in alone(prompt, 15, parameters, seed=40 + n)]


def test_equal_prompts_draw_differently():
    found = generate_batch(random_model(), [[1, 5]] * 4, 15, SamplingParameters(1.0), seed=1, eos_ids=())
    assert len({continuation.ids for continuation in found}) == 4


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(random_model(), folder / "m")
    return transformers.LlamaForCausalLM.from_pretrained(folder / "m").eval()


@pytest.mark.parametrize("penalty", [None, 1.7])
def test_ids_and_log_probabilities_are_those_of_transformers(theirs, penalty):
    parameters = SamplingParameters(0, repetition_penalty=penalty)
    found = generate_batch(random_model(), PROMPTS, 12, parameters, eos_ids=())
    for prompt, continuation in zip(PROMPTS, found, strict=True):
        out = theirs.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12,
            min_new_tokens=12 if penalty is None else None,
            do_sample=False,
            repetition_penalty=penalty or 1.0,
            eos_token_id=None,
            pad_token_id=0,
            return_dict_in_generate=True,
            output_logits=True,
        )
        ids = out.sequences[0, len(prompt) :].tolist()
        scores = [row[0].log_softmax(-1)[token].item() for row, token in zip(out.logits, ids, strict=True)]
        assert list(continuation.ids) == ids
        assert continuation.log_probabilities == pytest.approx(scores, abs=1e-4)


def test_the_penalty_changes_what_follows_and_counts_the_prompt():
    plain = [step.token for step in alone(PROMPTS[0])]
    penalised = list(generate(random_model(), PROMPTS[0], 20, 0, repetition_penalty=1e6, eos_ids=()))
    assert plain != penalised
    assert not set(penalised) & set(PROMPTS[0])  # with so large a penalty nothing comes twice
    assert len(set(penalised)) == 20


def test_without_a_limit_a_batch_goes_on_to_the_end_of_the_context():
    found = generate_batch(random_model(), PROMPTS, None, GREEDY, eos_ids=())
    assert {len(continuation.ids) for continuation in found} == {CONFIG.max_position_embeddings - 11}


@pytest.fixture
def idle_model():
    """A model that must not run."""

    def hook(*_):
        raise AssertionError("the model ran")

    model = random_model()
    handle = model.embed_tokens.register_forward_hook(hook)
    yield model
    handle.remove()


@pytest.mark.parametrize(
    ("key", "options"),
    [
        ("max_new_tokens", {"max_new_tokens": 0}),
        ("max_new_tokens", {"max_new_tokens": 10**9}),
        ("max_new_tokens", {"max_new_tokens": True}),
        ("prefill_chunk", {"prefill_chunk": 0}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": 2**63 - 2}),
        ("stop", {"stop": [""]}),
        ("stop", {"stop": 5}),
        ("stop", {"stop": [b"x"]}),
        ("tokenizer", {"stop": "x"}),
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused_before_the_model_runs(idle_model, key, options):
    with pytest.raises(GenerationError) as error:
        generate_batch(idle_model, PROMPTS, **options)
    assert error.value.key == key


@pytest.mark.parametrize(
    ("prompts", "key"),
    [([], "prompts"), ("text", "prompts"), (None, "prompts"), ([[1], []], "prompts[1]"), ([[1], [97]], "prompts[1]")],
)
def test_prompts_that_are_none_are_refused_before_the_model_runs(idle_model, prompts, key):
    with pytest.raises(InputError) as error:
        generate_batch(idle_model, prompts)
    assert error.value.key == key


@pytest.mark.parametrize(("key", "value"), [("min_p", 2), ("repetition_penalty", 0)])
def test_generate_refuses_samplers_out_of_range_before_the_model_runs(idle_model, key, value):
    with pytest.raises(GenerationError) as error:
        generate(idle_model, [1], **{key: value})
    assert error.value.key == key
