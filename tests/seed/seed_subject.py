"""What the seed's tests call: the layers of checkpoints 1 to 3, as llama_core has them or with a known mistake.

Both take and return numpy arrays; axes as everywhere. RoPE is pair-interleaved unless a test says otherwise.
"""

import dataclasses

import numpy as np
import torch

from llama_core.checkpoints.context import Context
from llama_core.checkpoints.steps import LAYER_STEPS, evaluate
from llama_core.config import LlamaConfig
from llama_core.layers import Attention, QKVProjection, RMSNorm, RoPE

#: The function that masks is right in these; ``forward`` does not call it.
MASK_NOT_CALLED = ("attention-mask-never-applied", "attention-no-mask-at-all")


class LlamaCore:
    """llama_core's layers, in float32."""

    def rms_norm(self, x, weight, eps=1e-5):
        norm = RMSNorm(x.shape[-1], eps)
        norm.load_state_dict({"weight": _tensor(weight)})
        return norm(_tensor(x)).numpy()

    def rope(self, q, k, positions, layout="interleaved", theta=10000.0):
        rope = RoPE(q.shape[-1], theta, layout, max_position_embeddings=4096)
        q, k = rope(_tensor(q), _tensor(k), torch.tensor(positions))
        return q.numpy(), k.numpy()

    def qkv(self, x, q_proj, k_proj, v_proj, head_dim):
        heads, groups = len(q_proj) // head_dim, len(k_proj) // head_dim
        with torch.device("meta"):
            layer = QKVProjection(x.shape[-1], heads, groups, head_dim)
        weights = {"q_proj.weight": q_proj, "k_proj.weight": k_proj, "v_proj.weight": v_proj}
        layer.load_state_dict({name: _tensor(w) for name, w in weights.items()}, assign=True)
        return tuple(t.numpy() for t in layer(_tensor(x)))

    def scores(self, q, k):
        return Attention(q.shape[-1]).compute_scores(_tensor(q), _tensor(k)).numpy()

    def causal_mask(self, scores):
        return Attention(32).apply_causal_mask(_tensor(scores)).numpy()

    def attention(self, q, k, v):
        """Causal: the queries are the last of the positions."""
        return Attention(q.shape[-1]).forward(_tensor(q), _tensor(k), _tensor(v), use_causal_mask=True).numpy()


class Mistaken:
    """The float64 reference with one known mistake of the catalogue, or with none."""

    def __init__(self, mistake=None):
        self.mistake = mistake
        self.touched = set()

    def rms_norm(self, x, weight, eps=1e-5):
        rows = x[None] if x.ndim == 2 else x
        config = _config(1, 1, 8, x.shape[-1], rms_norm_eps=eps)
        values = self._run(config, {"input_layernorm.weight": weight}, {"layer_input": rows}, "attention_norm")
        return values["attention_norm"].reshape(x.shape)

    def rope(self, q, k, positions, layout="interleaved", theta=10000.0):
        config = _config(q.shape[2], k.shape[2], q.shape[3], rope_layout=layout, rope_theta=theta)
        values = self._run(config, {}, {"q": q, "k": k, "position_ids": positions}, "q_rotated", "k_rotated")
        return values["q_rotated"], values["k_rotated"]

    def qkv(self, x, q_proj, k_proj, v_proj, head_dim):
        config = _config(len(q_proj) // head_dim, len(k_proj) // head_dim, head_dim, x.shape[-1])
        weights = {f"self_attn.{n}_proj.weight": w for n, w in zip("qkv", (q_proj, k_proj, v_proj), strict=True)}
        values = self._run(config, weights, {"attention_norm": x}, "q", "k", "v")
        return values["q"], values["k"], values["v"]

    def scores(self, q, k):
        config = _config(q.shape[2], k.shape[2], q.shape[3])
        inputs = {"q_rotated": q, "cache_k": k.transpose(0, 2, 1, 3)}
        return self._run(config, {}, inputs, "scores")["scores"]

    def causal_mask(self, scores):
        config = _config(scores.shape[1], scores.shape[1], 32)
        inputs = {"scores": scores} | _positions(len(scores), *scores.shape[2:])
        called = self if getattr(self.mistake, "id", "") not in MASK_NOT_CALLED else Mistaken()
        self.touched.add("3")
        return called._run(config, {}, inputs, "masked_scores")["masked_scores"]

    def attention(self, q, k, v):
        config = _config(q.shape[2], k.shape[2], q.shape[3])
        inputs = {"q_rotated": q, "cache_k": k.transpose(0, 2, 1, 3), "cache_v": v.transpose(0, 2, 1, 3)}
        inputs |= _positions(len(q), q.shape[1], k.shape[1])
        names = ("scores", "masked_scores", "attention_weights", "attention_context")
        context = self._run(config, {}, inputs, *names)["attention_context"]
        return context.reshape(*context.shape[:2], -1)

    def _run(self, config, weights, inputs, *names):
        steps = [step for step in LAYER_STEPS if step.name in names]
        self.touched |= {step.checkpoint for step in steps}
        inputs = {
            n: np.asarray(x, np.float64 if np.asarray(x).dtype.kind == "f" else np.int64) for n, x in inputs.items()
        }
        weights = {name: np.asarray(w, np.float64) for name, w in weights.items()}
        if self.mistake is None:
            return evaluate(Context(config, weights, inputs), steps)
        if self.mistake.checkpoint not in {step.checkpoint for step in steps}:  # v is not handed to RoPE here
            return evaluate(Context(config, weights, inputs), steps)
        changes = self.mistake.changes
        config = changes.config(config) if changes.config else config
        weights = changes.weights(weights, config) if changes.weights else weights
        with np.errstate(all="ignore"):
            return evaluate(Context(config, weights, inputs), steps, changes)


def _tensor(x):
    return torch.tensor(np.asarray(x), dtype=torch.float32)


def _positions(batch, queries, keys):
    rows = np.tile(np.arange(keys), (batch, 1))
    return {"position_ids": rows[:, keys - queries :], "key_positions": rows}


def _config(heads, groups, head_dim, hidden_size=None, **more):
    base = LlamaConfig(
        vocab_size=32,
        hidden_size=hidden_size or heads * head_dim,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=heads,
        num_key_value_heads=groups,
        head_dim=head_dim,
        max_position_embeddings=4096,
    )
    return dataclasses.replace(base, **more)
