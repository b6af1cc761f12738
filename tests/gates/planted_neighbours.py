"""Known mistakes in the steps that a Llama's neighbours have more, planted by hand as people write them."""

import torch
import torch.nn.functional as F
from plain_llama import Plain


def band(near):
    """Causal, padding hidden, and near by another rule: ``near(window, positions, keys)`` where there is a window."""

    def visible(self, positions, keys):
        seen = (keys >= 0)[:, None, None, :] & (keys[:, None, None, :] <= positions[:, None, :, None])
        window = self.config.sliding_window
        return seen & near(window, positions, keys) if window else seen

    return dict(visible=visible)


def looking_back(window, positions, keys):
    """As a kernel counts that is told how many keys to look back."""
    return keys[:, None, None, :] >= positions[:, None, :, None] - window


def band_of_rows(window, positions, keys):
    """triu over the rows of the call, without the past in front of them."""
    return torch.ones(positions.shape[1], keys.shape[1]).triu(1 - window).bool()


def band_of_slots(window, positions, keys):
    past = keys.shape[1] - positions.shape[1]
    return torch.ones(positions.shape[1], keys.shape[1]).triu(1 - window + past).bool()


def rolled(window, positions, keys):
    """What is left of the keys once a cache of ``window`` slots has been filled with the whole call."""
    return torch.arange(keys.shape[1]) >= keys.shape[1] - window


WINDOW = {
    "attention-window-ignored": band(lambda window, p, keys: torch.ones((), dtype=torch.bool)),
    "attention-window-one-more": band(looking_back),
    "attention-window-one-less": band(lambda window, p, keys: keys[:, None, None] > p[:, None, :, None] - (window - 1)),
    "attention-window-in-the-call": band(band_of_rows),
    "attention-window-of-the-last-query": band(rolled),
    "attention-window-counts-padding": band(band_of_slots),
}


def over_all_heads(self, heads, name):
    weight = self.parameter(f"self_attn.{name}_norm.weight")
    if weight is None:
        return heads
    normed = F.rms_norm(heads.float(), heads.shape[-2:], eps=self.config.rms_norm_eps)
    return (normed * weight.float()).to(heads.dtype)


HEAD_NORM = {
    "qk-norm-missing": dict(head_norm=lambda self, heads, name: heads),
    "qk-norm-over-all-heads": dict(head_norm=over_all_heads),
    "qk-norms-swapped": dict(norm_heads=lambda self, q, k: (self.head_norm(q, "k"), self.head_norm(k, "q"))),
}

AFTER_ROTATION = {
    "qk-norm-after-rotation": dict(
        norm_heads=lambda self, q, k: (q, k),
        rotate_q=lambda self, q, positions: self.head_norm(Plain.rotate_q(self, q, positions), "q"),
        rotate_k=lambda self, k, positions: self.head_norm(Plain.rotate_k(self, k, positions), "k"),
    )
}
