"""Greedy ids that rounding decides: where the two best logits are nearer than the noise, either is right."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from llama_core.checkpoints.arithmetic import right_arithmetics
from llama_core.checkpoints.cases import Case, positions_of
from llama_core.checkpoints.compare import error, scale
from llama_core.checkpoints.noise import FACTOR
from llama_core.checkpoints.procedures import model, run_procedure
from llama_core.checkpoints.specification import Checkpoint

Arrays = dict[str, np.ndarray]


def is_shipped(checkpoint: Checkpoint, case: Case) -> bool:
    """Whether these are a shipped case's own values, whose seed was chosen so that no id is in doubt."""
    return case.given is None and any(c.name == case.name and c.seed == case.seed for c in checkpoint.every_case)


class Margins:
    """Which greedy ids of one case of checkpoint 10 are in doubt; nothing is computed unless an id differs.

    Args:
        expected: [B, N], the reference's ids, -1 after an end id.
        dtype: what implementations compute in.
    """

    def __init__(self, case: Case, inputs: Arrays, weights: Arrays, expected: np.ndarray, dtype: str):
        self.case, self.inputs, self.weights, self.expected, self.dtype = case, inputs, weights, expected, dtype

    def kept(self, token_ids: np.ndarray) -> tuple[np.ndarray | None, str]:
        """Which entries [B, N] count, and a note where some do not.

        A row counts up to the first id that differs from the reference's, if the reference's own logit for that id is
        within twice the tolerance of its best: both may move by one tolerance.
        """
        if np.array_equal(token_ids, self.expected):
            return None, ""
        logits, allowed = self._logits_and_tolerance
        kept = np.ones(self.expected.shape, bool)
        notes = []
        for row, n in enumerate((token_ids != self.expected).argmax(axis=1)):
            token = token_ids[row, n]
            if token == self.expected[row, n] or self.expected[row, n] < 0 or not 0 <= token < logits.shape[-1]:
                continue
            gap = logits[row, n].max() - logits[row, n, token]
            if gap <= 2 * allowed:
                kept[row, n:] = False
                notes.append(f"row {row} undecided from token {n}: two logits {gap:.2g} apart")
        return kept, "; ".join(notes)

    @cached_property
    def _logits_and_tolerance(self) -> tuple[np.ndarray, float]:
        """The reference's logits [B, N, V] before each of its own tokens, and how far a right one's may be."""
        prompts, mask = self.inputs["prompt_ids"], self.inputs["attention_mask"].astype(np.int64)
        read = self.expected[:, :-1]
        fed = {
            "input_ids": np.concatenate([prompts, np.maximum(read, 0)], axis=1),
            "attention_mask": np.concatenate([mask, np.ones_like(read)], axis=1),
        }
        arguments = (model, fed, self.weights, self.case.config)
        logits = run_procedure(*arguments)["logits"]
        kept = (positions_of(fed["attention_mask"]) >= 0)[..., None]
        floor = max(
            error(run_procedure(*arguments, arithmetic)["logits"], logits, kept)
            for arithmetic in right_arithmetics(self.dtype)
        )
        unit = scale(logits[np.broadcast_to(kept, logits.shape)])
        return logits[:, prompts.shape[1] - 1 :], FACTOR * floor * unit
