"""What the tests of figures share: one example of each figure at any size, and ways to read a figure's data back."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from llama_core import viz
from llama_core.viz.style import STYLE

WORDS = ("<s>", "▁One", "▁day", ",", "▁Ann", "▁saw", "▁a", "▁little", "▁cat", ".")


def looks(test):
    """Compare the figure that a test returns with its baseline image, text left out: fonts may differ by a pixel."""
    mark = pytest.mark.mpl_image_compare(
        remove_text=True, tolerance=2, style=str(STYLE), savefig_kwargs={"dpi": 60, "metadata": {"Software": None}}
    )
    return mark(test)


def words(count: int) -> list[str]:
    return [WORDS[n % len(WORDS)] for n in range(count)]


def wave(*shape: int, speed: float = 1.7) -> np.ndarray:
    """Numbers between -1 and 1 without a pattern that a transposed or shifted picture would share."""
    n = np.arange(np.prod(shape), dtype=np.float64)
    return np.sin(speed * n + 0.01 * n**2).reshape(shape)


def causal(queries: int, keys: int) -> np.ndarray:
    """Visible cells by the definition: query s stands at position keys - queries + s."""
    return np.array([[key <= keys - queries + query for key in range(keys)] for query in range(queries)])


def softmax(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)


def attention(heads: int, queries: int, keys: int) -> np.ndarray:
    """Causal weights of some heads, rows summing to 1."""
    return softmax(np.where(causal(queries, keys), 3 * wave(heads, queries, keys), -np.inf))


def pipeline(queries: int, keys: int, size: int = 4) -> tuple[np.ndarray, ...]:
    products = 5 * wave(queries, keys)
    scores = products / 2
    masked = np.where(causal(queries, keys), scores, -np.inf)
    weights = softmax(masked)
    return products, scores, masked, weights, weights @ wave(keys, size)


def residual(tokens: int, layers: int = 2, size: int = 8) -> dict[str, np.ndarray]:
    """A stream in which each addition is larger than the one before."""
    seen = {"embedding": wave(tokens, size)}
    stream = seen["embedding"]
    for n in range(layers):
        for part, after, scale in (("attention_output", "attention_residual", 2), ("ffn_output", "output", 3)):
            seen[f"layers.{n}.{part}"] = (n + 1) * scale * wave(tokens, size, speed=2.3)
            stream = stream + seen[f"layers.{n}.{part}"]
            seen[f"layers.{n}.{after}"] = stream
    return seen


def turned(positions: int, size: int = 8, theta: float = 100.0) -> np.ndarray:
    """Each pair of the half layout at unit length, turned by position times theta^(-2i/D)."""
    angles = np.arange(positions)[:, None] * theta ** (-np.arange(0, size, 2) / size)
    return np.concatenate([np.cos(angles), np.sin(angles)], axis=1)


def passes(count: int, slots: int) -> np.ndarray:
    """A prefill of three, then one slot more in each pass."""
    return np.array([[slot if slot < min(3 + n, slots) else -1 for slot in range(slots)] for n in range(count)])


def _wrong(n: int) -> dict[str, np.ndarray]:
    right = attention(1, n, n)[0]
    return {"mask never applied": softmax(3 * wave(n, n)), "moved by one key": np.roll(right, 1, axis=1)}


def ladder(layers: int) -> tuple[dict, dict]:
    """Errors of three runs with so many layers; the second is wrong from the middle on, the third everywhere."""
    names = [
        "embedding",
        *(f"layers.{n}.{part}" for n in range(layers) for part in ("q", "scores", "output")),
        "logits",
    ]
    middle = f"layers.{layers // 2}.scores"
    late = {name: 0.0 if n < names.index(middle) else 10.0 ** (n % 5 - 4) for n, name in enumerate(names)}
    runs = {"right": dict.fromkeys(names, 1e-7), "late": late, "all": dict.fromkeys(names, 0.5)}
    return runs, {"late": [middle], "all": names[1::3]}


#: Name -> the figure for n tokens.
FIGURES = {
    "score_pipeline": lambda n, labels: viz.score_pipeline(*pipeline(n, n), labels),
    "causal_masks": lambda n, labels: viz.causal_masks({"prefill": causal(n, n), "decode": causal(1, n)}, labels),
    "head_sheet": lambda n, labels: viz.head_sheet(
        [attention(4, n, n), attention(8, n, n)[4:]], labels, num_key_value_heads=2
    ),
    "attention_maps": lambda n, labels: viz.attention_maps(
        {"one": attention(1, n, n)[0], "two": attention(2, n, n)[1]}, labels, framed={"one": np.eye(n, dtype=bool)}
    ),
    "rotary_pairs": lambda n, labels: viz.rotary_pairs(turned(n)),
    "frequency_map": lambda n, labels: viz.frequency_map(100.0 ** (-np.arange(8) / 8), np.arange(n)),
    "rotary_layouts": lambda n, labels: viz.rotary_layouts(2 * min(n, 16)),
    "rms_norm_distribution": lambda n, labels: viz.rms_norm_distribution(3 * wave(n, 32), wave(n, 32), labels),
    "rms_norm_epsilon": lambda n, labels: viz.rms_norm_epsilon(
        10.0 ** -np.arange(n), {"ε = 1e-5": np.linspace(1, 0.1, n), "ε = 1e-3": np.linspace(0.9, 0, n)}
    ),
    "rms_norm_precision": lambda n, labels: viz.rms_norm_precision(
        wave(n, 32), {"half": wave(n, 32).astype(np.float16), "single": wave(n, 32).astype(np.float32)}
    ),
    "swiglu": lambda n, labels: viz.swiglu(2 * wave(n, 16), wave(n, 16, speed=2.9), wave(n, 16, speed=0.7)),
    "residual_stream": lambda n, labels: viz.residual_stream(residual(n), labels),
    "logit_lens": lambda n, labels: viz.logit_lens(4 * wave(4, n, 10), labels, WORDS),
    "next_token": lambda n, labels: viz.next_token(
        softmax(4 * wave(40)), words(40), kept=np.arange(40) % 3 > 0, top_p=0.9, shown=n
    ),
    "cache_filling": lambda n, labels: viz.cache_filling(passes(3, n), labels),
    "cache_bytes": lambda n, labels: viz.cache_bytes(
        {"MHA": 32, "GQA": 8, "MQA": 1}, num_layers=32, head_dim=128, lengths=2 ** np.arange(1, min(n, 17) + 1)
    ),
    "fingerprint": lambda n, labels: viz.fingerprint(
        attention(1, n, n)[0], _wrong(n), labels, labels, weights=True, hidden=~causal(n, n)
    ),
    "noise_ladder": lambda n, labels: viz.noise_ladder(
        [f"layers.{k // 3}.step_{k % 3}" for k in range(3 * n)],
        {kind: np.abs(wave(1, 3 * n))[0] ** 9 for kind in ("one", "two")},
        {kind: np.full(3 * n, 0.01) for kind in ("one", "two")},
        wrong=["layers.0.step_2"],
    ),
    "error_ladder": lambda n, labels: viz.error_ladder(*ladder(n)),
    "error_map": lambda n, labels: viz.error_map(np.abs(wave(4, n)) ** 9, labels, tolerance=0.1),
}


def images(fig: Figure) -> list[np.ma.MaskedArray]:
    """The arrays of all heat maps, in the order of their axes; colour scales are left out."""
    return [ax.images[0].get_array() for ax in fig.axes if ax.images]


def panels(fig: Figure) -> list:
    return [ax for ax in fig.axes if ax.images]


def hatched(ax, kind: str = "masked") -> np.ndarray:
    """Which cells of a heat map are hatched, found by asking the patch about the centre of each."""
    rows, columns = ax.images[0].get_array().shape
    cells = np.zeros((rows, columns), bool)
    for patch in ax.patches:
        if patch.get_gid() != kind:
            continue
        assert patch.get_hatch()
        centres = [(column, row) for row in range(rows) for column in range(columns)]
        for part in _polygons(patch.get_path()):
            cells |= np.reshape([part.contains_point(centre) for centre in centres], cells.shape)
    return cells


def _polygons(path):
    from matplotlib.path import Path

    return [Path(polygon) for polygon in path.to_polygons()]


def row_labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def column_labels(ax) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def heading(fig: Figure) -> str:
    """The title on one line."""
    return " ".join(fig.get_suptitle().split())
