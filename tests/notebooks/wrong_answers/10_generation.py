"""Wrong answers to the exercises of 10_generation: exercise, source, the mistake that the check must name."""

_BATCH = """
def batch_of(prompts, width, bos):
    rows = [[{begin}, *prompt] for prompt in prompts]
    width = max(width, *map(len, rows))
    ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
    positions = [[-1] * (width - len(row)) + list({count}) for row in rows]
    return ids, torch.tensor(positions)
"""

_STREAM = """
def stream(tokens, pieces, ends):
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for token in tokens:
        yield token, {text}
        if {stop}:
            return
"""
_HELD_BACK = "decoder.decode(pieces[token])"

WRONG = [
    (
        "10-batch",
        _BATCH.format(begin="bos", count="range(width - len(row), width)"),
        "generation-padding-shifts-positions",
    ),
    ("10-batch", _BATCH.format(begin="bos, bos", count="range(len(row))"), "generation-begin-token-doubled"),
    ("10-batch", _BATCH.format(begin="0", count="range(len(row))"), "generation-begin-token-missing"),
    (
        "10-stream",
        _STREAM.format(text="pieces[token].decode(errors='replace')", stop="token in ends"),
        "generation-character-cut",
    ),
    ("10-stream", _STREAM.format(text=_HELD_BACK, stop="False"), "generation-end-token-ignored"),
    ("10-stream", _STREAM.format(text=_HELD_BACK, stop="token == ends[0]"), "generation-only-first-end-id"),
]
