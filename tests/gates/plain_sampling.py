"""From logits to the tokens that may follow, a third time."""

import torch


class PlainSampling:
    """Temperature, top-k, top-p, in this order."""

    def cool(self, logits, temperature):
        if temperature == 0:
            return torch.full_like(logits, float("-inf")).scatter(-1, logits.argmax(-1, keepdim=True), 0.0)
        return logits / temperature

    def top_k(self, logits, k):
        return logits if k == 0 else logits.masked_fill(logits < logits.topk(k).values[:, -1:], float("-inf"))

    def inside(self, sums, probabilities, p):
        return sums - probabilities < p

    def top_p(self, logits, p, raw):
        if p >= 1:
            return logits
        ordered, order = logits.softmax(-1).sort(-1, descending=True)
        keep = self.inside(ordered.cumsum(-1), ordered, p)
        return logits.masked_fill(~keep.scatter(-1, order, keep), float("-inf"))

    def normalise(self, cut, uncut):
        return cut.softmax(-1)

    def greedy(self, logits):
        return logits.argmax(-1)

    def checkpoint_9(self, logits, temperature, top_k, top_p):
        raw = logits.float()
        cooled = self.cool(raw, float(temperature))
        cut = self.top_p(self.top_k(cooled, int(top_k)), float(top_p), raw)
        kept = (cut > float("-inf")).long()
        return {"greedy_ids": self.greedy(raw), "kept": kept, "probabilities": self.normalise(cut, cooled)}
