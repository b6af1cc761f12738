"""Checkpoints 1 to 6 as an inference engine has them: fused kernels, one matrix for q, k and v, one for gate and up."""

import torch
import torch.nn.functional as F
from right import loops


def _bias(weights, names):
    biases = [weights.get(f"{name}.bias") for name in names]
    return None if biases[0] is None else torch.cat(biases)


def _fused_linear(x, weights, names):
    """Several projections as one product, split afterwards."""
    matrices = [weights[f"{name}.weight"] for name in names]
    return F.linear(x, torch.cat(matrices), _bias(weights, names)).split([len(m) for m in matrices], dim=-1)


def _norm(x, weight, config):
    return F.rms_norm(x, x.shape[-1:], weight, config.rms_norm_eps)


def _qkv(x, weights, config):
    parts = _fused_linear(x, weights, [f"self_attn.{name}_proj" for name in "qkv"])
    q, k, v = (part.unflatten(-1, (-1, config.head_dim)) for part in parts)
    if config.qk_norm:
        q, k = (
            _norm(q, weights["self_attn.q_norm.weight"], config),
            _norm(k, weights["self_attn.k_norm.weight"], config),
        )
    return q, k, v


def _rotate(x, positions, config):
    """A 2 by 2 rotation of every pair, tables in float32."""
    half, s = config.head_dim // 2, config.rope_scaling
    stretch = 0.1 * torch.tensor(s.factor).log() + 1 if s and s.kind == "yarn" else torch.tensor(1.0)
    f = torch.tensor([[loops.frequency(i, config, int(row.max()) + 1) for i in range(half)] for row in positions])
    angle = (positions.clamp(min=0)[..., None] * f[:, None].float())[:, :, None]
    cos, sin = angle.cos() * stretch, angle.sin() * stretch
    matrix = torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
    pairs = x.unflatten(-1, (2, half)).transpose(-1, -2) if config.rope_layout == "half" else x.unflatten(-1, (half, 2))
    turned = (matrix @ pairs.float()[..., None])[..., 0]
    turned = turned.transpose(-1, -2) if config.rope_layout == "half" else turned
    return turned.flatten(-2).to(x.dtype)


def _attend(q, k, v, positions, key_positions, window):
    keys, queries = key_positions[:, None, None], positions[:, None, :, None]
    seen = (keys >= 0) & (keys <= queries)
    if window:
        seen = seen & (keys > queries - window)
    return F.scaled_dot_product_attention(q.transpose(1, 2), k, v, seen, enable_gqa=True).transpose(1, 2)


def _feed_forward(x, weights):
    gate, up = _fused_linear(x, weights, ["mlp.gate_proj", "mlp.up_proj"])
    return F.linear(F.silu(gate) * up, weights["mlp.down_proj.weight"], weights.get("mlp.down_proj.bias"))


def _output(context, weights):
    return F.linear(context.flatten(-2), weights["self_attn.o_proj.weight"], weights.get("self_attn.o_proj.bias"))


def run_1(inputs, weights, config):
    return _norm(inputs["layer_input"], weights["input_layernorm.weight"], config)


def run_1b(inputs, weights, config):
    q, k = (_rotate(inputs[name], inputs["position_ids"], config) for name in "qk")
    return {"q_rotated": q, "k_rotated": k, "v": inputs["v"]}


def run_2(inputs, weights, config):
    return _qkv(inputs["attention_norm"], weights, config)


def run_3(inputs, weights, config):
    names = ("q_rotated", "cache_k", "cache_v", "position_ids", "key_positions")
    return _attend(*(inputs[name] for name in names), config.sliding_window)


def run_4(inputs, weights, config):
    return _output(inputs["attention_context"], weights)


def run_5(inputs, weights, config):
    return _feed_forward(inputs["ffn_norm"], weights)


def run_6(inputs, weights, config):
    x, positions = inputs["layer_input"], inputs["position_ids"]
    q, k, v = _qkv(_norm(x, weights["input_layernorm.weight"], config), weights, config)
    q, k = _rotate(q, positions, config), _rotate(k, positions, config)
    context = _attend(q, k.transpose(1, 2), v.transpose(1, 2), positions, positions, config.sliding_window)
    h = x + _output(context, weights)
    y = h + _feed_forward(_norm(h, weights["post_attention_layernorm.weight"], config), weights)
    return {"attention_residual": h, "output": y}


RUNS = {"1": run_1, "1B": run_1b, "2": run_2, "3": run_3, "4": run_4, "5": run_5, "6": run_6}
