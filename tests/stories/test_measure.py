import pytest
import torch

from llama_core import LlamaConfig
from llama_core.model import Llama
from llama_core.stories.data import Document
from llama_core.stories.measure import faults, on_previous_token, on_token_after_first, repeated_sequences, story_loss


def test_weight_on_the_previous_token_is_read_below_the_diagonal():
    # Row q gives its previous token the weight q / 10.
    weights = torch.zeros(4, 4)
    weights[1, 0], weights[2, 1], weights[3, 2] = 0.1, 0.2, 0.3
    weights[3, 3], weights[2, 0] = 0.7, 0.8
    assert on_previous_token(weights).tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(("shift", "found"), [(0, 1.0), (1, 0.0), (-1, 0.0)])
def test_induction_is_weight_on_the_token_that_followed_the_first_occurrence(shift: int, found: float):
    # By hand: begin a b c a b c. The second a (position 4) looks at b (2), b (5) at c (3), c (6) at the second a (4).
    weights = torch.zeros(7, 7)
    for query, key in ((4, 2), (5, 3), (6, 4)):
        weights[query, key + shift] = 1.0
    assert on_token_after_first(weights, 3).tolist() == [found] * 3


def test_repeated_sequences_are_a_begin_token_and_ordinary_tokens_twice():
    ids = repeated_sequences(rows=3, length=50, seed=0)
    assert ids.shape == (3, 101) and (ids[:, 0] == 1).all()
    assert torch.equal(ids[:, 1:51], ids[:, 51:])
    assert ids[:, 1:].min() >= 259 and ids[:, 1:].unique().numel() > 100


def test_story_loss_of_a_model_that_knows_nothing_is_the_logarithm_of_the_vocabulary():
    config = LlamaConfig(
        vocab_size=64, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, dtype="float32"
    )
    model = Llama.random(config)
    torch.nn.init.zeros_(model.lm_head.weight)
    documents = [Document([1, 5, 6, 7, 2]), Document([1, 9, 2])]
    assert story_loss(model, documents) == pytest.approx(4.158883, abs=1e-5)  # ln 64


def test_a_story_without_an_end_has_a_fault():
    assert faults([None]) == [["the story finds no end"]]
