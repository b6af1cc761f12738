"""The hand-written Llama of the gates' tests as an engine that writes traces, with a mistake in one of its layers."""

from types import MethodType

import torch
from plain_llama import Plain
from planted import PLANTED

from llama_core.traces.format import Manifest
from llama_core.traces.write import TraceWriter


class Traced(Plain):
    """Runs the calls of a golden trace; ``mistakes`` is layer -> replaced methods, ``None`` as a layer is the model's.

    Every method reports what it returns (or is given), so a mistake that goes around a method leaves its names out.
    """

    def __init__(self, mistakes=None):
        super().__init__("7")
        self.mistakes = mistakes or {}
        self.report = lambda name, value: None
        for name, fn in self.mistakes.get(None, {}).items():
            setattr(self, name, MethodType(fn, self))

    def enter(self, layer):
        """Plant the layer's mistakes, and take out those of the layer before."""
        for names in self.mistakes.values():
            for name in names:
                self.__dict__.pop(name, None)
        for name, fn in (self.mistakes.get(None, {}) | self.mistakes.get(layer, {})).items():
            setattr(self, name, MethodType(fn, self))

    def block(self, x, positions, keys, past=(None, None), past_positions=None):
        note = self.report
        normed = self.attention_norm(x)
        note("attention_norm", normed)
        q, k, v = self.qkv(normed)
        note("q", q), note("k", k)
        q, k, v = self.rotate_q(q, positions), self.rotate_k(k, positions), self.rotate_v(v, positions)
        note("v", v), note("q_rotated", q), note("k_rotated", k)
        k = self.append_k(past[0], k.transpose(1, 2), past_positions)
        v = self.append_v(past[1], v.transpose(1, 2))
        note("cache_k", k), note("cache_v", v)
        context = self.attend(q, k, v, positions, keys)
        note("attention_context", context)
        attention = self.output(context)
        note("attention_output", attention)
        h = self.join_attention(x, normed, attention)
        note("attention_residual", h)
        y = self.join_ffn(h, x, self.ffn(self.noted("ffn_norm", self.ffn_norm(h, x, attention))))
        note("output", y)
        return h, y, (k, v)

    def noted(self, name, value):
        self.report(name, value)
        return value

    def attend(self, q, k, v, positions, keys):
        q = q.transpose(1, 2)
        k, v = self.expand(k, q.shape[1]), self.expand(v, q.shape[1])
        scores = self.noted("scores", self.scores(q, k))
        visible = self.visible(positions, keys)
        self.report("masked_scores", scores.masked_fill(~visible, float("-inf")))
        weights = self.noted("attention_weights", self.weigh(scores, visible))
        return self.merge(weights @ v)

    def ffn(self, x):
        gate, up = self.noted("ffn_gate", self.gate(x)), self.noted("ffn_up", self.up(x))
        self.report("ffn_activation", self.activation(gate))
        hidden = self.noted("ffn_hidden", self.hidden(gate, up))
        return self.noted("ffn_output", self.down(hidden))

    @torch.no_grad()
    def trace(self, model, calls, folder, names=lambda name: True, **options):
        """Run the calls on a model's weights and write what ``names`` picks."""
        self.config, self.weights = model.config, dict(model.state_dict())
        dtype = str(model.dtype).removeprefix("torch.")
        manifest = Manifest({"name": "plain"}, None, "", dtype, dtype, model.config.rope_layout, [])
        caches = {}
        with TraceWriter(folder, manifest, **options) as writer:
            for number, call in enumerate(calls):
                self.call = number
                writer.begin_call(call)
                past = caches.get(call.past, ([(None, None)] * model.config.num_hidden_layers, None, None))
                caches[number] = self.forward(call, past, lambda name, x: names(name) and writer.add(name, x))

    def forward(self, call, past, add):
        ids = torch.from_numpy(call.input_ids)
        mask = torch.from_numpy(call.key_positions >= 0).long()
        self.prefix = ""
        self.enter(None)
        positions = self.count(mask, ids.shape[1])
        keys = self.key_positions(past[1], positions)
        add("input_ids", ids), add("position_ids", positions)
        x = self.embed(ids)
        add("embedding", x)
        new = []
        for n, source in enumerate(self.order()):
            self.enter(n)
            self.prefix = f"layers.{source}."
            skipped = n in self.skipped()

            def report(name, value, n=n, skipped=skipped, before=x):
                add(f"layers.{n}.{name}", before if skipped and name == "output" else value)

            self.report = report
            _, y, cache = self.block(x, positions, keys, past[0][n], past[1])
            x = x if skipped else y
            new.append(cache)
        self.enter(None)
        self.prefix = ""
        x = self.final_norm(x)
        add("final_norm", x)
        add("logits", self.head(x))
        return new, keys, None


def planted(id, layer):
    """The engine with a mistake of the catalogue in one layer; those of the whole model are in all of it."""
    checkpoint, replaced = PLANTED[id]
    everywhere = checkpoint == "7" or {"count", "key_positions"} & replaced.keys()
    return Traced({None if everywhere else layer: replaced})
