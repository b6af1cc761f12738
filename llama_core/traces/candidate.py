"""A candidate as it comes: a trace, or bare files with nothing but names; its names, layout and ids made ours."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from os import PathLike
from pathlib import Path

import numpy as np

from llama_core.errors import LlamaCoreError, TraceError
from llama_core.layers.rope import layout_permutation
from llama_core.traces.align import short, tokens_of
from llama_core.traces.format import DTYPE_NAMES, MANIFEST, Call, Manifest, TensorRecord, known_axes, make_call
from llama_core.traces.maps import NameMap, read_map
from llama_core.traces.read import Trace, read_bytes
from llama_core.traces.verdict import Finding
from llama_core.traces.write import widened
from llama_core.weights.safetensors_file import TensorEntry, read_header

#: Activations whose coordinates the rotary layout orders.
ROTARY = ("q", "k", "q_rotated", "k_rotated", "cache_k")
#: How a file of ``numpy.save`` begins.
_NPY = b"\x93NUMPY"
_COMPARED = ("rms_norm_eps", "rope_theta", "rope_scaling", "num_hidden_layers", "num_attention_heads", "head_dim")


def open_candidate(
    source: str | PathLike[str] | Trace, golden: Trace, map: str | PathLike[str] | None = None
) -> tuple[Trace, list[Finding]]:
    """The candidate under our names and on the golden's positions, and what is to be said of that.

    Raises:
        TraceError: when it cannot be read, or when its ids are not the golden's.
    """
    names = read_map(map) if map is not None else None
    if isinstance(source, Trace):
        trace = source
    elif (Path(source).expanduser() / MANIFEST).exists():
        trace = Trace.open(source)
    else:
        trace = _bare(Path(source).expanduser(), golden, names)
    findings: list[Finding] = []
    if names is not None:
        trace = names.apply(trace, golden)
    trace = _in_layout(trace, golden.manifest.rope_layout, findings)
    _compare_configurations(trace, golden, findings)
    return _on_positions(trace, golden, findings), findings


def open_unmapped(source: str | PathLike[str] | Trace, golden: Trace) -> list[Trace]:
    """The candidate under its own names, on the golden's positions; for bare files once for each run that they may be.

    Raises:
        TraceError: as ``open_candidate``.
    """
    place = None if isinstance(source, Trace) else Path(source).expanduser()
    if place is None or (place / MANIFEST).exists():
        trace = source if isinstance(source, Trace) else Trace.open(source)
        return [_on_positions(trace, golden, [])]
    sources = _sources(place)
    lengths = {call.positions.shape[1]: call for call in (_one_call(golden), golden.calls[0])}
    return [_of_call(place, golden, call, _as_they_are(sources)) for call in lengths.values()]


def changed(trace: Trace, calls: list[Call], records: list[TensorRecord], load) -> Trace:
    """The same trace with other calls, records and a way to load them."""
    manifest = dataclasses.replace(trace.manifest, calls=calls, tensors=records)
    return Trace(trace.label, manifest, load, trace.folder)


def _in_layout(trace: Trace, layout: str, findings: list[Finding]) -> Trace:
    """Queries and keys in our rotary layout, where the candidate says that it has the other."""
    theirs = trace.manifest.rope_layout
    if theirs == layout:
        return trace
    findings.append(
        Finding("layout", "q and k", None, f"are stated to be {theirs}; they are compared as {layout}", False)
    )
    load = trace._load

    def in_ours(record: TensorRecord) -> np.ndarray:
        return in_layout(record.name, load(record), theirs, layout)

    return changed(trace, trace.calls, trace.manifest.tensors, in_ours)


def in_layout(name: str, values: np.ndarray, theirs: str, ours: str) -> np.ndarray:
    """An activation in our rotary layout; those that have none as they are."""
    if theirs == ours or short(name) not in ROTARY:
        return values
    return values[..., layout_permutation(values.shape[-1], theirs, ours)]


def _compare_configurations(trace: Trace, golden: Trace, findings: list[Finding]) -> None:
    stated, right = trace.manifest, golden.manifest
    known = stated.weights_sha256 and right.weights_sha256 and stated.compute_dtype == right.compute_dtype
    if known and stated.weights_sha256 != right.weights_sha256:
        text = "are other values than the golden's; of a quantized model, write the golden from the file itself"
        findings.append(Finding("weights", "the candidate's weights", None, text, False))
    mine, theirs = golden.manifest.config, trace.manifest.config
    for key in _COMPARED if theirs else ():
        if key in theirs and theirs[key] != mine.get(key):
            text = f"is {theirs[key]!r} in the candidate's configuration, {mine.get(key)!r} in the golden's"
            findings.append(Finding("configuration", key, None, text, False))


# Ids and positions


def _on_positions(trace: Trace, golden: Trace, findings: list[Finding]) -> Trace:
    """The trace with the golden's positions. Ids must be the golden's; positions that differ while the ids in their
    order agree are a finding."""
    right, found = tokens_of(golden), tokens_of(trace)
    moves: dict[int, dict[int, int]] = {}
    for sequence, tokens in found.items():
        expected = right.get(sequence)
        if expected is None:
            raise TraceError(
                f"the golden trace has no sequence {sequence}",
                key="sequences",
                expected=" ".join(map(str, sorted(right))),
                actual=sequence,
            )
        if all(expected.get(p, token) == token for p, token in tokens.items()) and tokens.keys() & expected.keys():
            extra = sorted(tokens.keys() - expected.keys())
            if not extra or [t for _, t in sorted(tokens.items())] != [t for _, t in sorted(expected.items())]:
                continue
        theirs, ours = sorted(tokens.items()), sorted(expected.items())
        same = [t for _, t in theirs] == [t for _, t in ours[: len(theirs)]]
        if not same:
            at = next((p for p, t in theirs if expected.get(p) != t), None)
            raise TraceError(
                f"the ids of sequence {sequence} differ from the golden's at position {at}",
                key="input_ids",
                expected=expected.get(at, "no token there"),
                actual=tokens.get(at),
                hint="feed the candidate the golden's ids, decoded ones included: llama-core trace --ids-from GOLDEN",
            )
        moves[sequence] = {p: q for (p, _), (q, _) in zip(theirs, ours, strict=False)}
        wrong = next((p, q) for p, q in moves[sequence].items() if p != q)
        text = f"of sequence {sequence} are not the golden's: {wrong[0]} where {wrong[1]} is right"
        findings.append(Finding("positions", "positions", None, text))
    if not moves:
        return trace
    calls = [_moved(call, moves) for call in trace.calls]
    return changed(trace, calls, trace.manifest.tensors, trace._load)


def _moved(call: Call, moves: dict[int, dict[int, int]]) -> Call:
    def move(positions: np.ndarray) -> np.ndarray:
        out = positions.copy()
        for row, sequence in enumerate(call.sequences):
            for old, new in moves.get(sequence, {}).items():
                out[row][positions[row] == old] = new
        return out

    return dataclasses.replace(call, positions=move(call.positions), key_positions=move(call.key_positions))


# Bare files


Source = tuple[tuple[int, ...], str, Callable[[], np.ndarray]]
#: A name's axes ("" where they are not known) and its source.
Named = dict[str, tuple[str, Source]]


def _bare(place: Path, golden: Trace, names: NameMap | None) -> Trace:
    """``NAME.npy`` and safetensors files with nothing but names: the golden's ids in one call, or its prompt alone."""
    whole, prompt = _one_call(golden), golden.calls[0]
    lengths = {whole.positions.shape[1]: whole, prompt.positions.shape[1]: prompt}
    found: Named = _as_they_are(_sources(place))
    votes = []
    for name, (_, source) in found.items():
        if names is not None:
            axes, length = names.axes_of(name), names.length_of(name, source[0])
        else:
            axes, source = known_axes(name), _in_our_axes(golden, known_axes(name), source, len(whole.positions))
            letters = axes.split()
            length = source[0][letters.index("S")] if "S" in letters and len(source[0]) == len(letters) else None
        found[name] = axes, source
        votes.append(length)
    call = next((lengths[n] for n in votes if n in lengths), whole)
    return _of_call(place, golden, call, found)


def _as_they_are(sources: dict[str, Source]) -> Named:
    return {name: ("", source) for name, source in sources.items()}


def _sources(place: Path) -> dict[str, Source]:
    sources = _bare_files(place) if place.is_dir() else _bare_file(place)
    if not sources:
        raise TraceError(
            f"{place.name} holds nothing to compare",
            file=place,
            key="candidate",
            expected=f"{MANIFEST}, NAME.npy files or safetensors files",
            actual="no such file" if place.is_dir() else "nothing",
        )
    return sources


def _in_our_axes(golden: Trace, axes: str, source: Source, batch: int) -> Source:
    """Under our own names a batch of one may be left out, and heads may lie side by side."""
    shape, dtype, load = source
    letters = axes.split()
    if "B" in letters and len(shape) == len(letters) - 1 and batch == 1:
        shape, load = (1, *shape), _with_batch(load)
    if letters[-2:] in (["H", "D"], ["K", "D"]) and len(shape) == len(letters) - 1:
        shape, load = _split_heads(golden, letters, shape, load)
    return shape, dtype, load


def _of_call(place: Path, golden: Trace, call: Call, found: Named) -> Trace:
    records = [
        TensorRecord(name, 0, axes if len(axes.split()) == len(shape) else "", shape, dtype, file=name)
        for name, (axes, (shape, dtype, _)) in found.items()
    ]
    float_dtypes = [r.dtype for r in records if not r.dtype.startswith("int")]
    dtype = max(set(float_dtypes), key=float_dtypes.count, default="float32")
    # Whether an engine computed in half precision or only stored so, bare files do not say.
    computed = "float32" if dtype == "float16" else dtype
    manifest = Manifest({"name": "unknown"}, None, "", computed, dtype, golden.manifest.rope_layout, [call], records)
    folder = place if place.is_dir() else None
    return Trace(place.name, manifest, lambda record: found[record.name][1][2](), folder)


def _one_call(golden: Trace) -> Call:
    """All tokens of the golden trace in one call, as far as its rows are of one length."""
    tokens = tokens_of(golden)
    sequences = sorted(tokens)
    if len({tuple(sorted(tokens[s])) for s in sequences}) > 1:
        raise TraceError(
            "bare files cannot say which positions they hold, and the golden's sequences differ in length",
            key="candidate",
            expected=MANIFEST,
            hint="write a manifest beside the tensors; FORMAT.md tells how",
        )
    positions = np.array([sorted(tokens[s]) for s in sequences], np.int64)
    ids = np.array([[tokens[s][p] for p in sorted(tokens[s])] for s in sequences], np.int64)
    return make_call([], ids, positions, sequences)


def _bare_files(place: Path) -> dict[str, Source]:
    found: dict[str, Source] = {}
    for path in sorted(place.iterdir()):
        if path.suffix in (".npy", ".safetensors") and path.is_file():
            for name, source in _bare_file(path).items():
                if name in found:
                    raise TraceError(f"{name} is there twice", file=path, key=name, expected="each name once")
                found[name] = source
    return found


def _bare_file(path: Path) -> dict[str, Source]:
    if not path.is_file():
        raise TraceError(
            f"there is no candidate {str(path)!r}",
            file=path,
            key="candidate",
            expected="a folder or a file",
            actual="nothing" if not path.exists() else "neither",
        )
    if path.suffix == ".npy":
        return {path.stem: _npy(path)}
    try:
        entries = read_header(path.parent, path.name)
    except LlamaCoreError as e:
        raise TraceError(e.message, file=e.file, key=e.key, expected=e.expected, actual=e.actual) from e
    for entry in entries.values():
        if entry.dtype not in DTYPE_NAMES:
            raise TraceError(
                f"{entry.name} is stored as {entry.dtype}",
                file=path,
                key=entry.name,
                expected=" | ".join(DTYPE_NAMES),
                actual=entry.dtype,
            )
    return {name: (entry.shape, DTYPE_NAMES[entry.dtype], _reading(entry)) for name, entry in entries.items()}


def _reading(entry: TensorEntry) -> Callable[[], np.ndarray]:
    return lambda: widened(read_bytes(entry), entry.dtype)


def _npy(path: Path) -> Source:
    try:
        with path.open("rb") as file:
            if file.read(len(_NPY)) != _NPY:
                raise ValueError("it does not begin as one does")
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        ok = isinstance(array, np.ndarray) and array.dtype.name in ("float64", "float32", "float16", "int64", "int32")
        if not ok:
            raise ValueError(f"it holds {getattr(array, 'dtype', 'several arrays')}")
    except (OSError, ValueError, EOFError, MemoryError, OverflowError) as e:
        reason = (str(e).splitlines() or [type(e).__name__])[0][:120]
        raise TraceError(
            f"{path.name} is no array file: {reason}",
            file=path,
            key=path.stem,
            expected="one array of float64, float32, float16, int64 or int32, written by numpy.save",
            actual=reason,
        ) from e
    return array.shape, array.dtype.name, lambda: np.array(array)


def _with_batch(load):
    return lambda: load()[None]


def _split_heads(golden: Trace, letters: list[str], shape: tuple[int, ...], load):
    """[B, S, H·D] as [B, S, H, D]."""
    d = golden.config.head_dim
    if shape[-1] % d:
        return shape, load
    split = (*shape[:-1], shape[-1] // d, d)
    return split, lambda: load().reshape(split)
