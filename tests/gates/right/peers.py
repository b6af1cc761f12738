"""transformers' own modules as implementations of the checkpoints."""

import codecs

import torch
import torch.nn.functional as F
import transformers
from transformers.cache_utils import DynamicCache
from transformers.models.llama import modeling_llama as llama
from transformers.models.mistral import modeling_mistral as mistral
from transformers.models.qwen2 import modeling_qwen2 as qwen2
from transformers.models.qwen3 import modeling_qwen3 as qwen3


def kind(config):
    """What transformers calls such a model, and the fields that only this kind has."""
    if config.sliding_window:
        return "Mistral", mistral, {"sliding_window": config.sliding_window}
    if config.qkv_bias:
        return "Qwen2", qwen2, {}
    if config.qk_norm:
        return "Qwen3", qwen3, {"attention_bias": config.attention_bias}
    return "Llama", llama, {"attention_bias": config.attention_bias, "mlp_bias": config.mlp_bias}


def peer_config(config, attention="sdpa"):
    s = config.rope_scaling
    rope = {"rope_type": "default", "rope_theta": config.rope_theta}
    if s:
        rope |= {"rope_type": s.kind, "factor": s.factor}
        if s.original_max_position_embeddings:
            rope["original_max_position_embeddings"] = s.original_max_position_embeddings
        if s.kind == "llama3":
            rope |= {"low_freq_factor": s.low_freq_factor, "high_freq_factor": s.high_freq_factor}
    names = (
        "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
        "max_position_embeddings rms_norm_eps tie_word_embeddings"
    ).split()
    name, _, own = kind(config)
    sizes = {name: getattr(config, name) for name in names} | own
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    made = getattr(transformers, f"{name}Config")(**sizes, rope_parameters=rope, **ids)
    made._attn_implementation = attention
    return made


def loaded(module, weights, prefix=""):
    """A module with the weights below a prefix, in their type; its rotary frequencies stay float32."""
    chosen = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
    module.load_state_dict(chosen, assign=True)
    return module.eval()


def visible(positions, key_positions, window):
    keys, queries = key_positions[:, None, None], positions[:, None, :, None]
    seen = (keys >= 0) & (keys <= queries)
    return seen & (keys > queries - window) if window else seen


def additive(mask, dtype):
    """What transformers hands to its eager attention: the smallest number of the type where nothing may be seen."""
    return torch.zeros(mask.shape, dtype=dtype).masked_fill(~mask, torch.finfo(dtype).min)


@torch.no_grad()
def run_1(inputs, weights, config):
    norm = llama.LlamaRMSNorm(config.hidden_size, config.rms_norm_eps)
    return loaded(norm, weights, "input_layernorm.")(inputs["layer_input"])


@torch.no_grad()
def run_1b(inputs, weights, config):
    """Each row by itself: with dynamic scaling transformers takes the longest of the batch."""
    rows = [
        _rotate(*(inputs[n][b : b + 1] for n in ("q", "k", "position_ids")), config) for b in range(len(inputs["q"]))
    ]
    q, k = (torch.cat(parts) for parts in zip(*rows, strict=True))
    return {"q_rotated": q, "k_rotated": k, "v": inputs["v"]}


def _rotate(q, k, positions, config):
    cos, sin = llama.LlamaRotaryEmbedding(peer_config(config))(q, positions)
    return llama.apply_rotary_pos_emb(q, k, cos, sin, unsqueeze_dim=2)


class _Heads(torch.nn.Module):
    """What transformers' attention functions read off the module that calls them."""

    def __init__(self, config):
        super().__init__()
        self.num_key_value_groups = config.num_attention_heads // config.num_key_value_heads
        self.is_causal = False


def attention(name):
    function = {"sdpa": transformers.AttentionInterface()["sdpa"], "eager": llama.eager_attention_forward}[name]

    @torch.no_grad()
    def run_3(inputs, weights, config):
        q = inputs["q_rotated"].transpose(1, 2)
        mask = visible(inputs["position_ids"], inputs["key_positions"], config.sliding_window)
        mask = mask if name == "sdpa" else additive(mask, q.dtype)
        module = _Heads(config).eval()
        return function(module, q, inputs["cache_k"], inputs["cache_v"], mask, scaling=config.head_dim**-0.5)[0]

    return run_3


@torch.no_grad()
def run_5(inputs, weights, config):
    return loaded(llama.LlamaMLP(peer_config(config)), weights, "mlp.")(inputs["ffn_norm"])


@torch.no_grad()
def run_6(inputs, weights, config):
    x, positions = inputs["layer_input"], inputs["position_ids"]
    made = peer_config(config)
    name, module, _ = kind(config)
    layer = loaded(getattr(module, f"{name}DecoderLayer")(made, 0), weights)
    seen = {}
    layer.post_attention_layernorm.register_forward_pre_hook(lambda _, args: seen.update(h=args[0]))
    tables = llama.LlamaRotaryEmbedding(made)(x, positions.clamp(min=0))
    mask = visible(positions, positions, config.sliding_window)
    y = layer(x, attention_mask=mask, position_embeddings=tables)
    return {"attention_residual": seen["h"], "output": y}


def _model(weights, config):
    model = getattr(transformers, f"{kind(config)[0]}ForCausalLM")(peer_config(config))
    return loaded(model, {name if name == "lm_head.weight" else f"model.{name}": w for name, w in weights.items()})


def _positions(mask):
    return (mask.cumsum(1) - 1).clamp(min=0)


@torch.no_grad()
def run_7(inputs, weights, config):
    model, mask = _model(weights, config), inputs["attention_mask"]
    hidden = {}
    for n, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda _, args, out, n=n: hidden.update({f"layers.{n}.output": out}))
    logits = model(inputs["input_ids"], attention_mask=mask, position_ids=_positions(mask)).logits
    return hidden | {"logits": logits}


@torch.no_grad()
def run_8(inputs, weights, config):
    model, mask, ids = _model(weights, config), inputs["attention_mask"], inputs["input_ids"]
    cache, positions = DynamicCache(), _positions(mask)
    logits = torch.zeros(*ids.shape, config.vocab_size, dtype=weights["norm.weight"].dtype)
    for begin, end in inputs["calls"].tolist():
        if begin < cache.get_seq_length():
            cache.crop(begin - cache.get_seq_length())  # a negative number: how many to drop
        logits[:, begin:end] = model(
            ids[:, begin:end],
            attention_mask=mask[:, :end],
            position_ids=positions[:, begin:end],
            past_key_values=cache,
        ).logits
    caches = {f"layers.{n}.cache_k": layer.keys for n, layer in enumerate(cache.layers)}
    caches |= {f"layers.{n}.cache_v": layer.values for n, layer in enumerate(cache.layers)}
    return caches | {"logits": logits, "position_ids": positions}


def run_9(inputs, weights, config):
    scores, temperature = inputs["logits"].float(), float(inputs["temperature"])
    best = scores.argmax(-1)
    if temperature == 0:
        return {"greedy_ids": best, "kept": F.one_hot(best, 41), "probabilities": F.one_hot(best, 41).float()}
    warpers = [transformers.TemperatureLogitsWarper(temperature)]
    if int(inputs["top_k"]):
        warpers.append(transformers.TopKLogitsWarper(int(inputs["top_k"])))
    if float(inputs["top_p"]) < 1:
        warpers.append(transformers.TopPLogitsWarper(float(inputs["top_p"])))
    for warper in warpers:
        scores = warper(None, scores)
    return {"greedy_ids": best, "kept": (scores > -torch.inf).long(), "probabilities": scores.softmax(-1)}


@torch.no_grad()
def run_10(inputs, weights, config):
    """``generate`` of transformers; positions and bytes are then counted in plain Python."""
    model, ids, mask = _model(weights, config), inputs["prompt_ids"], inputs["attention_mask"]
    limit, ends = int(inputs["max_new_tokens"]), inputs["eos_ids"].tolist()
    options = {"max_new_tokens": limit, "do_sample": False, "eos_token_id": ends, "pad_token_id": 0}
    new = model.generate(ids, attention_mask=mask, **options)[:, ids.shape[1] :]
    outputs = {n: torch.full((len(ids), limit), -1) for n in ("token_ids", "position_ids", "streamed_bytes")}
    for row, tokens in enumerate(new.tolist()):
        text = b""
        for n, token in enumerate(tokens):
            if token not in ends:
                text += bytes(inputs["piece_bytes"][token, : inputs["piece_lengths"][token]].tolist())
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            decoder.decode(text)
            shown = len(text) - len(decoder.getstate()[0])
            for name, value in zip(outputs, (token, int(mask[row].sum()) + n, shown), strict=True):
                outputs[name][row, n] = value
            if token in ends:
                break
    return outputs


RUNS = {
    "1": run_1,
    "1B": run_1b,
    "3": attention("sdpa"),
    "5": run_5,
    "6": run_6,
    "7": run_7,
    "8": run_8,
    "9": run_9,
    "10": run_10,
}
