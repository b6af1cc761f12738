"""Wrong answers to the exercises of 09_sampling: exercise, source, the mistake that the check must name."""

_TOP_K = """
def my_top_k(scaled, k):
    ordered = np.sort(scaled, axis=-1)[:, ::-1]
    return np.where(scaled {cut}, -np.inf, scaled)
"""

_SAMPLE = """
def my_sampling(inputs, weights, config):
    logits = inputs["logits"]
    T, k, p = float(inputs["temperature"][0]), int(inputs["top_k"][0]), float(inputs["top_p"][0])
    greedy = {greedy}
    if T == 0:
        cut = np.where(np.arange(logits.shape[1]) == logits.argmax(-1)[:, None], 0.0, -np.inf)
    else:
        cut = logits {scale} T
    scaled = cut
    if k:
        cut = np.where(cut < np.sort(cut, -1)[:, -k, None], -np.inf, cut)
    if p < 1:
        order = np.argsort({sort}cut, -1)
        ordered = np.take_along_axis(softmax_rows(cut), order, -1)
        inside = {inside}
        inside[:, 0] = True
        keep = np.zeros_like(inside)
        np.put_along_axis(keep, order, inside, -1)
        cut = np.where(keep & np.isfinite(cut), cut, -np.inf)
    kept = cut > -np.inf
    return {{"greedy_ids": greedy, "kept": kept.astype(int), "probabilities": {probabilities}}}
"""

_RIGHT = {
    "greedy": "logits.argmax(-1)",
    "scale": "/",
    "sort": "-",
    "inside": "np.cumsum(ordered, -1) - ordered < p",
    "probabilities": "softmax_rows(cut)",
}


def _sample(**changes: str) -> str:
    return _SAMPLE.format(**(_RIGHT | changes))


WRONG = [
    ("09-top-k", _TOP_K.format(cut="< ordered[:, k : k + 1]"), "sampling-top-k-one-more"),
    ("09-top-k", _TOP_K.format(cut="<= ordered[:, k - 1 : k]"), "sampling-top-k-one-less"),
    ("09-sample", _sample(scale="*"), "sampling-temperature-multiplied"),
    ("09-sample", _sample(inside="np.cumsum(ordered, -1) <= p"), "sampling-crossing-token-dropped"),
    ("09-sample", _sample(sort=""), "sampling-top-p-from-the-tail"),
    ("09-sample", _sample(greedy="logits.argmax(0)[: len(logits)]"), "sampling-argmax-over-batch"),
    ("09-sample", _sample(probabilities="np.where(kept, softmax_rows(scaled), 0)"), "sampling-not-renormalised"),
]
