"""GGUF files read: values as they are stored, and one clear error for each way a file can be wrong."""

import struct
import warnings

import gguf
import gguf_files as g
import numpy as np
import pytest
import torch

from llama_core import Llama
from llama_core.errors import ConfigError, LlamaCoreError, WeightsError
from llama_core.weights import describe
from llama_core.weights.gguf_tensor import TYPES, GgufTensor


def write(folder, content=None, **options):
    path = folder / "model.gguf"
    path.write_bytes(g.encode(**options) if content is None else content)
    return path


def rows_in_halves(rows, heads):
    """Interleaved rows, pair i at (2i, 2i + 1), with the first members of all pairs in front: (i, i + D/2)."""
    per_head = rows.reshape(heads, -1, *rows.shape[1:])
    return np.concatenate([per_head[:, 0::2], per_head[:, 1::2]], axis=1).reshape(rows.shape)


def test_every_parameter_has_the_values_of_its_tensor_rows_of_q_and_k_in_halves(tmp_path):
    model = Llama.from_pretrained(write(tmp_path))
    stored, state = g.tensors(), {name: p.numpy() for name, p in model.state_dict().items()}
    assert (state["embed_tokens.weight"] == stored["token_embd.weight"]).all()
    assert (state["lm_head.weight"] == stored["output.weight"]).all()
    q, k = "layers.1.self_attn.q_proj.weight", "layers.1.self_attn.k_proj.weight"
    assert (state[q] == rows_in_halves(stored["blk.1.attn_q.weight"], 4)).all()
    assert (state[k] == rows_in_halves(stored["blk.1.attn_k.weight"], 2)).all()
    assert (state["layers.1.self_attn.v_proj.weight"] == stored["blk.1.attn_v.weight"]).all()
    assert (state["layers.0.mlp.down_proj.weight"] == stored["blk.0.ffn_down.weight"]).all()


@pytest.mark.parametrize("kind", [g.F16, g.BF16])
def test_half_precision_is_read_as_it_is(tmp_path, kind):
    dtype = {g.F16: torch.float16, g.BF16: torch.bfloat16}[kind]
    values = g.tensors()
    half = torch.from_numpy(values["blk.0.ffn_up.weight"]).to(dtype)
    shapes = {"blk.0.ffn_up.weight": (64, 32)}
    values["blk.0.ffn_up.weight"] = half.view(torch.int16).numpy().tobytes()
    path = write(tmp_path, values=values, kinds={"blk.0.ffn_up.weight": kind}, shapes=shapes)
    assert torch.equal(Llama.from_pretrained(path).layers[0].mlp.up_proj.weight, half.float())


def test_quantized_values_are_multiplied_out(tmp_path):
    values = g.tensors()
    stored = g.q8_0(values["blk.0.ffn_up.weight"])
    right = g.multiplied_out(stored, (64, 32))
    path = write(
        tmp_path,
        values=values | {"blk.0.ffn_up.weight": stored},
        kinds={"blk.0.ffn_up.weight": g.Q8_0},
        shapes={"blk.0.ffn_up.weight": (64, 32)},
    )
    found = Llama.from_pretrained(path).layers[0].mlp.up_proj.weight.detach().numpy()
    assert (found == right).all() and not (found == values["blk.0.ffn_up.weight"]).all()
    assert "Q8_0" in describe(path).to_text()


def test_sizes_of_stored_types_are_those_of_the_gguf_package():
    for number, stored in TYPES.items():
        kind = gguf.GGMLQuantizationType(number)
        assert (kind.name, gguf.GGML_QUANT_SIZES[kind]) == (stored.name, (stored.block, stored.bytes))


@pytest.mark.parametrize("number", [n for n, stored in TYPES.items() if stored.quantized])
def test_every_quantized_type_that_is_known_can_be_multiplied_out(tmp_path, number):
    """Twice the scales are twice the values: of each type the blocks hold small numbers times half-precision scales."""
    kind, rows = TYPES[number], 2
    raw = np.random.default_rng(number).integers(0, 256, (rows, 256 // kind.block, kind.bytes), np.uint8)
    scales = {10: (80, 82), 11: (108,), 14: (208,)}.get(number, (0, 2) if number in (3, 7, 12, 13) else (0,))
    found = []
    for scale in (0.25, 0.5):
        for at in scales:
            raw[..., at : at + 2] = np.array([scale], np.float16).view(np.uint8)
        (tmp_path / "values").write_bytes(raw.tobytes())
        found.append(GgufTensor("x", tmp_path / "values", (rows, 256), kind, 0).read())
    assert torch.equal(found[0] * 2, found[1]) and len(found[0].unique()) > 10


def test_a_number_is_the_decimal_that_was_meant(tmp_path):
    assert Llama.from_pretrained(write(tmp_path)).config.rms_norm_eps == 1e-5  # float32 has 9.999999747e-06


def without(name):
    return {key: value for key, value in g.tensors().items() if key != name}


def metadata(**changes):
    found = g.METADATA | {key.replace("__", "."): value for key, value in changes.items()}
    return {key: value for key, value in found.items() if value is not None}


WHOLE = g.encode()
UP = "blk.0.ffn_up.weight"
NAN_SCALE = struct.pack("<H", 0x7E00) + bytes(32)
SPOILT = {
    "empty": (b"", "is empty"),
    "a web page": (b"<!doctype html><html>" + bytes(200), "HTML page"),
    "another magic": (b"GGUX" + WHOLE[4:], "no GGUF file"),
    "version 1": (g.encode(version=1), "version 1"),
    "big-endian": (b"GGUF" + struct.pack(">I", 3) + WHOLE[8:], "other byte order"),
    "cut in the counts": (WHOLE[:10], "cut off within its header"),
    "cut in the header": (WHOLE[:300], "cut off within its header"),
    "cut in the values": (WHOLE[:-100], "cut off: 1 of 21 tensors"),
    "bytes left over": (WHOLE + bytes(64), "bytes that no tensor owns"),
    "a billion tensors": (g.encode(counts=(10**9, 9)), "announces 1,000,000,000 tensors"),
    "a billion entries": (g.encode(counts=(21, 10**9)), "announces 1,000,000,000 metadata entries"),
    "a text without end": (g.encode(metadata() | {"x": struct.pack("<IQ", 8, 2**60)}), "cut off within its header"),
    "an array without end": (
        g.encode(metadata() | {"x": struct.pack("<IIQ", 9, 4, 2**60)}),
        "cut off within its header",
    ),
    "an array of arrays": (g.encode(metadata() | {"x": struct.pack("<IIQ", 9, 9, 1)}), "array of an unknown type"),
    "a value of type 13": (g.encode(metadata() | {"x": struct.pack("<I", 13)}), "value of an unknown type"),
    "a key twice": (
        g.encode(metadata() | {"x": struct.pack("<II", 4, 1) + g.entry("x", 2)}, counts=(21, 11)),
        "'x' is in the header twice",
    ),
    "a text that is no UTF-8": (
        g.encode(metadata() | {"x": struct.pack("<I", 8) + g.text(b"\xff\xfe")}),
        "not UTF-8",
    ),
    "an alignment of 48": (g.encode(metadata(general__alignment=48)), "general.alignment is impossible"),
    "an overlap": (g.encode(offsets={UP: 0}), "overlaps"),
    "a hole": (g.encode(offsets={"blk.1.ffn_down.weight": 10**6}), "leaves a hole"),
    "an unknown type": (g.encode(kinds={UP: 99}), "a type that is not known here"),
    "rows that are no blocks": (
        g.encode(values=g.tensors() | {UP: bytes(34)}, kinds={UP: g.Q8_0}, shapes={UP: (1, 20)}),
        "do not divide into blocks",
    ),
    "five axes": (g.encode(shapes={UP: (1, 1, 1, 64, 32)}), "has 5 axes"),
    "an axis of nothing": (g.encode(shapes={UP: (64, 0)}), "impossible shape"),
    "a tensor missing": (g.encode(values=without(UP)), "1 missing"),
    "a tensor too many": (g.encode(values=g.tensors() | {"blk.0.extra": g.tensors()[UP]}), "1 unexpected"),
    "a tensor transposed": (g.encode(shapes={UP: (32, 64)}), "1 of the wrong shape"),
    "a mixture of experts": (g.encode(metadata(llama__expert_count=8)), "llama.expert_count is 8"),
    "another architecture": (g.encode(metadata(general__architecture="gemma")), "the architecture is 'gemma'"),
    "no number of layers": (g.encode(metadata(llama__block_count=None)), "llama.block_count is missing"),
    "a million layers": (g.encode(metadata(llama__block_count=10**6)), "a much larger model"),
    "a negative base": (g.encode(metadata() | {"llama.rope.freq_base": -1.0}), "llama.rope.freq_base"),
    "heads that differ": (
        g.encode(metadata() | {"llama.attention.head_count_kv": [2, 1]}),
        "differs between layers",
    ),
    "part of a split model": (g.encode(metadata(split__count=2)), "split.count is 2"),
    "NaN": (g.encode(values=g.tensors() | {UP: np.full((64, 32), np.nan, np.float32)}), "holds nan"),
    "a scale that is NaN": (
        g.encode(values=g.tensors() | {UP: NAN_SCALE * 64}, kinds={UP: g.Q8_0}, shapes={UP: (64, 32)}),
        "holds nan",
    ),
}


@pytest.mark.parametrize("content, message", SPOILT.values(), ids=SPOILT)
def test_a_spoilt_file_is_refused_with_its_reason(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(LlamaCoreError) as caught:
        Llama.from_pretrained(path)
    assert isinstance(caught.value, WeightsError | ConfigError)
    assert message in str(caught.value) and str(path) in str(caught.value), str(caught.value)


def test_the_tensors_whose_names_the_error_gives_are_those_of_the_file(tmp_path):
    with pytest.raises(WeightsError) as caught:
        Llama.from_pretrained(write(tmp_path, values=without(UP)))
    assert caught.value.key == UP


def test_a_key_that_changes_nothing_known_is_told(tmp_path):
    path = write(tmp_path, metadata=metadata() | {"llama.some_new_thing": 3})
    with pytest.warns(UserWarning, match="llama.some_new_thing is not used"):
        Llama.from_pretrained(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Llama.from_pretrained(write(tmp_path))
