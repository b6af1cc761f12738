"""Wrong answers to the exercises of 08_kv_cache: exercise, source, the mistake that the check must name."""

_STORE = """
def store(keys, values, k, v, length):
    start = {start}
    end = start + k.shape[2]
    keys[:, :, start:end] = k
    values[:, :, start:end] = {value}
"""

_POSITIONS = """
def turned_by(mask, length):
    new = mask[:, length:]
    return {positions}
"""

WRONG = [
    ("08-store", _STORE.format(start="0", value="v"), "cache-overwritten-at-start"),
    ("08-store", _STORE.format(start="max(length - 1, 0)", value="v"), "cache-last-slot-overwritten"),
    ("08-store", _STORE.format(start="length", value="k"), "cache-values-hold-keys"),
    (
        "08-positions",
        _POSITIONS.format(positions="torch.arange(new.shape[1]).expand_as(new)"),
        "rope-positions-restart",
    ),
    ("08-positions", _POSITIONS.format(positions="mask.cumsum(1)[:, length:]"), "rope-position-plus-one"),
    (
        "08-positions",
        _POSITIONS.format(positions="torch.zeros_like(new) if new.shape[1] == 1 else (mask.cumsum(1) - 1)[:, length:]"),
        "rope-position-zero-when-decoding",
    ),
]
