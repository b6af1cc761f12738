"""The map that ships for nodes of llama.cpp's graph, collected by name."""

import numpy as np
from small_traces import golden, model

from llama_core.traces import compare

#: llama.cpp's name -> ours, and its axes: those of ours without the batch, heads side by side or in front.
NODES = {
    "Qcur-{n}": ("layers.{n}.q_rotated", "interleaved"),
    "Kcur-{n}": ("layers.{n}.k_rotated", "interleaved"),
    "Vcur-{n}": ("layers.{n}.v", ""),
    "kq_soft_max-{n}": ("layers.{n}.attention_weights", ""),
    "kqv_out-{n}": ("layers.{n}.attention_context", "flat"),
    "ffn_swiglu-{n}": ("layers.{n}.ffn_hidden", ""),
    "l_out-{n}": ("layers.{n}.output", ""),
    "result_output": ("logits", ""),
}


def test_nodes_collected_by_name_are_right_through_the_map_that_ships(tmp_path):
    right = golden(tmp_path / "golden", steps=0, noise=["float32"])
    folder = tmp_path / "nodes"
    folder.mkdir()
    for theirs, (ours, form) in NODES.items():
        for n in range(3 if "{n}" in theirs else 1):
            values = right.values(ours.format(n=n), 0)[0]
            if form == "interleaved":  # (i, i + D/2) to (2i, 2i + 1)
                values = np.stack(np.split(values, 2, axis=-1), axis=-1).reshape(values.shape)
            np.save(folder / f"{theirs.format(n=n)}.npy", values.reshape(len(values), -1) if form == "flat" else values)
    result = compare(right, folder, map="llama_cpp", model=model())
    assert result.passed, str(result)
    compared = {line.name for line in result.lines if line.status == "exact"}
    assert {"layers.2.q_rotated", "layers.1.k_rotated", "layers.0.attention_weights", "logits"} <= compared
