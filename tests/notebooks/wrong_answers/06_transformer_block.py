"""Wrong answers to the exercises of 06_transformer_block: exercise, source, the mistake that the check must name."""

_BLOCK = """
def my_block(x, first_weight, second_weight, norm, attention, feed_forward):
    h = {}
    y = {}
    return h, y
"""
_H = "x + attention(norm(x, first_weight))"
_Y = "h + feed_forward(norm(h, second_weight))"
_PARTS = """
def parts(x, h, y):
    return {}
"""

WRONG = [
    ("06-block", _BLOCK.format("attention(norm(x, first_weight))", _Y), "block-first-residual-missing"),
    ("06-block", _BLOCK.format(_H, "h + feed_forward(norm(h, first_weight))"), "block-first-norm-twice"),
    ("06-block", _BLOCK.format(_H, "x + feed_forward(norm(h, second_weight))"), "block-second-residual-from-input"),
    ("06-block", _BLOCK.format(_H, "h + feed_forward(norm(x, second_weight))"), "block-parallel-residual"),
    ("06-from-parts", _PARTS.format("h - x, y - h - h + x"), "block-second-residual-from-input"),
    ("06-from-parts", _PARTS.format("h - x, y - 2 * h"), "block-second-residual-missing"),
]
