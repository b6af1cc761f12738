"""Cases as files for any language, and what another program made of them.

``FOLDER/3/left-padding/`` holds ``case.json``, ``inputs.safetensors``, ``weights.safetensors`` where there are some,
and ``expected.safetensors``. A program answers with ``ANSWERS/3/left-padding/results.safetensors``, or with one
``NAME.npy`` per output.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from llama_core.checkpoints.cases import Case, Stream, make_weights
from llama_core.checkpoints.compare import HIDDEN, axes_of, kept_entries
from llama_core.checkpoints.implementation import required_outputs
from llama_core.checkpoints.noise import EXACT, computed_in, generic, output_names, tolerances
from llama_core.checkpoints.outputs import Foreign, Unfit, describe_array
from llama_core.checkpoints.procedures import run_procedure
from llama_core.checkpoints.specification import Checkpoint
from llama_core.errors import CheckpointError

Arrays = dict[str, np.ndarray]

README = f"""\
Cases of llama-core's checkpoints: inputs, weights and expected values for an implementation in any language.

  CHECKPOINT/CASE/case.json              configuration, axes, tolerances, how the bits were drawn
  CHECKPOINT/CASE/inputs.safetensors     what the implementation is given
  CHECKPOINT/CASE/weights.safetensors    its parameters; rows first, as in Hugging Face files
  CHECKPOINT/CASE/expected.safetensors   what it must give, in float64: the outputs that are required, and others
                                         that help to find a fault

Floating-point inputs and weights are stored in the type of the case ("dtype" in case.json), rounded to it; ids and
positions are int64. Tensors are stored row by row, the last axis fastest. Axes: B batch, S query positions, T key
positions, H query heads, K key/value heads, D head dimension, E hidden size, F feed-forward size, V vocabulary,
L layers, P prompt positions, N entries. A position of -1 is padding.

The cases are those of a plain Llama ("family" in case.json). Those of its neighbours, Mistral, Qwen2 and Qwen3, are
written and judged with --family NAME.

To answer, write ANSWERS/CHECKPOINT/CASE/results.safetensors with the required outputs by name, or one file NAME.npy
for each, and run: llama-core check CHECKPOINT --results ANSWERS (with the --dtype of the export, if one was given).
A wider floating-point type is welcome. A result that is missing is a failure.

The error of an output is max |result - expected| / rms(expected) over its finite expected entries; whole numbers
must be equal. Where the expected value is -inf, anything at or below {HIDDEN:g} will do. Along the axes that an
output lists as "padding_axes" in case.json, the positions of padding are left out. A tolerance is a stated factor
times the noise floor: the largest error of several right ways to compute.

The bits, so that nothing needs to be read: draw n (from 0) of the stream with seed s is
  z = s + (n + 1) * 0x9E3779B97F4A7C15                       (all modulo 2^64)
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9
  z = (z ^ (z >> 27)) * 0x94D049BB133111EB
  z = z ^ (z >> 31)
The first draws of seed 1234567 are 0x599ed017fb08fc85, 0x2c73f08458540fa5, 0x883ebce5a3f27c77.
A uniform value is float32((z >> 40) - 2^23) times one float32 constant, a whole number is (z >> 40) modulo its
bound. "draws" in case.json lists seed, shape, constant or bound of every tensor in order, with the sha256 of its bytes
(float32 or int64, little-endian) as drawn. What was done to a draw afterwards (1 + a draw for a norm's weight, rows
made tiny or zero) shows in the stored tensors. A large case stores no weights: draw them.
"""


def export_cases(
    checkpoint: Checkpoint, folder: str | PathLike, dtype: str = "float32", cases: Sequence[Case] | None = None
) -> list[Path]:
    """Write a checkpoint's cases (of a plain Llama by default) below ``folder``; returns the folder of each case."""
    folder = Path(folder)
    written = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "README.txt").write_text(README, encoding="utf-8")
        for case in checkpoint.cases if cases is None else cases:
            place = folder / checkpoint.id / slug(case.name)
            place.mkdir(parents=True, exist_ok=True)
            _export_case(checkpoint, case, place, dtype)
            written.append(place)
    except OSError as e:
        raise CheckpointError(
            f"the cases could not be written: {e.strerror}",
            file=e.filename or folder,
            expected="a folder that can be written to",
            actual=e.strerror,
        ) from e
    return written


def slug(name: str) -> str:
    """A case's name as a folder's."""
    return name.replace(" ", "-").replace("/", "-").replace(",", "")


def _export_case(checkpoint: Checkpoint, case: Case, place: Path, dtype: str) -> None:
    inputs, weights = case.values(dtype)
    reference = run_procedure(checkpoint.procedure, inputs, weights, case.config)
    expected = {name: reference[name] for name in output_names(checkpoint, reference)}
    _save(place / "inputs.safetensors", inputs, dtype)
    if weights and not case.large:
        _save(place / "weights.safetensors", weights, dtype)
    _save(place / "expected.safetensors", expected, "float64")
    document = _describe_case(checkpoint, case, inputs, weights, expected, dtype)
    (place / "case.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _describe_case(
    checkpoint: Checkpoint, case: Case, inputs: Arrays, weights: Arrays, expected: Arrays, dtype: str
) -> dict[str, Any]:
    allowed = tolerances(checkpoint, case, dtype, expected)
    required = required_outputs(checkpoint, case)
    outputs = {}
    for name, value in expected.items():
        tolerance = allowed.get(name, EXACT)
        axes = checkpoint.outputs.get(generic(name)) or axes_of(name)
        outputs[name] = {
            "axes": axes,
            "shape": list(value.shape),
            "required": name in required,
            "dtype": computed_in(checkpoint, dtype) if value.dtype.kind == "f" else "int64",
            "tolerance": tolerance.value,
            "floor": tolerance.floor,
        }
        kept = kept_entries(checkpoint.id, name, inputs)
        if kept is not None:
            outputs[name]["padding_axes"] = [
                a for a, size in zip(axes.split()[1:], kept.shape[1:], strict=True) if size > 1
            ]
    return {
        "checkpoint": checkpoint.id,
        "title": checkpoint.title,
        "formula": checkpoint.formula,
        "case": case.name,
        "family": case.family,
        "about": case.about,
        "dtype": dtype,
        "config": dataclasses.asdict(case.config),
        "inputs": {n: {"axes": checkpoint.inputs.get(n, ""), "shape": list(x.shape)} for n, x in inputs.items()},
        "weights": {n: {"shape": list(x.shape)} for n, x in weights.items()},
        "weights_stored": bool(weights) and not case.large,
        "outputs": outputs,
        "draws": [] if case.given is not None else list(_draws(case)),
    }


class _RecordingStream(Stream):
    """A stream that remembers what was asked of it, and the sha256 of what it gave."""

    def __init__(self, seed: int):
        super().__init__(seed)
        self.draws: list[dict[str, Any]] = []

    def uniform(self, *shape: int, std: float = 1.0) -> np.ndarray:
        drawn = super().uniform(*shape, std=std)
        constant = float(np.float32(std * 3**0.5 / 2**23))
        self._record("uniform", drawn, constant=constant, constant_hex=constant.hex())
        return drawn

    def ids(self, *shape: int, below: int) -> np.ndarray:
        drawn = super().ids(*shape, below=below)
        self._record("whole", drawn, below=below)
        return drawn

    def permutation(self, rows: int, count: int) -> np.ndarray:
        drawn = super().permutation(rows, count)
        self._record("permutation: the order of draws below 2^24, row by row", drawn)
        return drawn

    def _record(self, kind: str, drawn: np.ndarray, **facts: Any) -> None:
        seed = self.seed * 1000 + self.count
        digest = hashlib.sha256(drawn.tobytes()).hexdigest()
        self.draws.append({"seed": seed, "kind": kind, "shape": list(drawn.shape), **facts, "sha256": digest})


def _draws(case: Case) -> Iterator[dict[str, Any]]:
    """Every draw of a case in order; those behind ``weights`` carry the parameter's name."""
    stream = _RecordingStream(case.seed)
    case.make_inputs(stream)
    first = len(stream.draws)
    if case.weight_names:
        weights = make_weights(case.config, stream, case.weight_names, case.layers)
        names = [name for name in weights if not (name == "lm_head.weight" and case.config.tie_word_embeddings)]
        for draw, name in zip(stream.draws[first:], names, strict=True):
            draw["weight"] = name
    yield from stream.draws


def _save(path: Path, arrays: Arrays, dtype: str) -> None:
    import torch
    from safetensors.torch import save_file

    tensors = {}
    for name, x in arrays.items():
        tensor = torch.from_numpy(np.ascontiguousarray(x))
        tensors[name] = (tensor.to(getattr(torch, dtype)) if x.dtype.kind == "f" else tensor).clone()
    save_file(tensors, path)


# Answers


def from_folder(folder: str | PathLike, checkpoint: Checkpoint, cases: Sequence[Case]):
    """A gate's source of outputs: what another program wrote for each case.

    Raises:
        CheckpointError: there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        found = "a file" if folder.exists() else "nothing"
        message = "there is no such folder of results"
        raise CheckpointError(message, file=folder, key="results", expected="a folder", actual=found)

    def produce(checkpoint: Checkpoint, case: Case, inputs: Arrays, weights: Arrays, dtype: str) -> dict[str, Any]:
        return read_results(folder, checkpoint, case)

    return produce


def read_results(folder: Path, checkpoint: Checkpoint, case: Case) -> dict[str, Foreign]:
    """The outputs of one case by name.

    Raises:
        Unfit: there are none, or a file cannot be read.
    """
    place = folder / checkpoint.id / slug(case.name)
    found: dict[str, Foreign] = {}
    file = place / "results.safetensors"
    if file.is_file():
        found |= _read_safetensors(file)
    names = required_outputs(checkpoint, case) + [n for n in checkpoint.welcome if not n.startswith("layers.N.")]
    for name in names:
        if (place / f"{name}.npy").is_file():
            found[name] = _read_npy(place / f"{name}.npy")
    if not found:
        shown = f"{checkpoint.id}/{slug(case.name)}"
        what = "; these are the cases, not a program's answers" if (place / "case.json").is_file() else ""
        raise Unfit(f"no result: {shown}/results.safetensors or {shown}/{names[0]}.npy is not there{what}")
    return found


def _read_safetensors(file: Path) -> dict[str, Foreign]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from llama_core.weights.safetensors_file import read_header

    try:
        whole = file.resolve()
        read_header(whole.parent, whole.name)  # what it claims, before the library makes room for it
        tensors = load_file(whole)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as e:
        raise Unfit(f"{_shown(file)} is no safetensors file: {_first_line(e)}") from e
    return {name: Foreign(*describe_array(tensor)) for name, tensor in tensors.items()}


def _read_npy(file: Path) -> Foreign:
    try:
        array = np.load(file, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("an archive of several arrays")
        return Foreign(array.dtype.name, np.array(array))
    except (OSError, ValueError, EOFError, MemoryError, BadZipFile) as e:
        raise Unfit(f"{_shown(file)} is no array file: {_first_line(e)}") from e


def _shown(file: Path) -> str:
    return "/".join(file.parts[-3:])


def _first_line(e: BaseException) -> str:
    return (str(e).splitlines() or [type(e).__name__])[0][:120]
