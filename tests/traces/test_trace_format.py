"""Traces on disk: what is written is what was computed; what is not a trace is refused, and nothing is lost."""

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from bad_manifests import BAD_MANIFESTS, change
from safetensors.numpy import load_file
from small_traces import CONFIG, edit_manifest, ids, model

from llama_core import capture
from llama_core.cli import main
from llama_core.errors import LlamaCoreError, TraceError
from llama_core.names import activation_names
from llama_core.traces import Trace, record
from llama_core.traces.format import Statistics, fingerprint, parse_rows
from llama_core.traces.read import validate


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces") / "golden"
    return record(model(), ids(2), folder, steps=2)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traces") / "original"
    record(model(), ids(), folder, steps=1, names=["layers.1.*", "logits"])
    return folder


@pytest.fixture
def copy(original, tmp_path):
    return Path(shutil.copytree(original, tmp_path / "golden"))


def test_the_values_are_those_that_capture_sees(made):
    right = model()
    with torch.no_grad(), capture(right, "*") as seen:
        right(ids(2))
    for name in activation_names(CONFIG.num_hidden_layers):
        torch.testing.assert_close(torch.from_numpy(made.values(name, 0)), seen[name], rtol=0, atol=2e-6)


def test_a_decode_step_is_fed_the_most_likely_token_at_the_next_position(made):
    last = made.values("logits", 0)[:, -1]
    assert made.calls[1].input_ids.tolist() == last.argmax(-1)[:, None].tolist()
    assert made.calls[1].positions.tolist() == [[7], [7]]
    assert made.records["layers.0.cache_k", 2].shape == (2, 2, 9, 12)


def test_the_safetensors_library_reads_the_files(made):
    stored = load_file(made.folder / "call-0-layer-001.safetensors")
    assert np.array_equal(stored["layers.1.q"], made.values("layers.1.q", 0))


def test_rows_cut_queries_and_leave_keys_whole(tmp_path, made):
    cut = record(model(), ids(2), tmp_path / "cut", rows="0,last,2-3")
    assert np.array_equal(cut.values("layers.2.scores", 0), made.values("layers.2.scores", 0)[:, :, [0, 2, 3, 6]])
    assert np.array_equal(cut.values("layers.2.cache_v", 0), made.values("layers.2.cache_v", 0))


def test_bfloat16_is_stored_in_two_bytes_and_read_exactly(tmp_path):
    trace = record(model(dtype="bfloat16"), ids(), tmp_path / "half", names="logits")
    with torch.no_grad():
        logits = model(dtype="bfloat16")(ids())
    assert trace.records["logits", 0].dtype == "bfloat16"
    np.testing.assert_allclose(trace.values("logits", 0), logits.float().numpy(), rtol=0, atol=0.05)
    assert (trace.values("logits", 0).view(np.uint32) & 0xFFFF == 0).all()


def test_statistics_are_those_of_the_finite_entries():
    found = Statistics.of(np.array([3.0, -4.0, -np.inf, np.nan]))
    assert found == Statistics(sum=-1.0, l2=5.0, min=-4.0, max=3.0, nan=1, negative_infinity=1)


def test_statistics_of_many_entries_count_what_is_not_finite_wherever_it_stands():
    x = np.random.default_rng(1).normal(size=400_001)
    x[[0, 131_072, 300_000]], x[[5, 400_000]], x[7] = np.nan, -np.inf, np.inf  # the first and last of pieces
    kept, found = x[np.isfinite(x)], Statistics.of(torch.from_numpy(x))
    assert (found.nan, found.negative_infinity, found.positive_infinity) == (3, 2, 1)
    assert (found.min, found.max) == (kept.min(), kept.max())
    np.testing.assert_allclose([found.sum, found.l2], [kept.sum(), np.linalg.norm(kept)], rtol=1e-12)


def test_the_fingerprint_is_the_one_that_the_page_of_the_format_tells():
    half = torch.linspace(-1, 1, 70_000).bfloat16().reshape(7, -1)
    digests = {"a": half.float().numpy(), "b": np.array([1.0, -2.5], "<f4")}
    expected = hashlib.sha256()
    for name, values in digests.items():
        expected.update(name.encode() + b"\0" + hashlib.sha256(values.tobytes()).digest())
    assert fingerprint([("b", torch.tensor([1.0, -2.5]).double()), ("a", lambda: half)]) == expected.hexdigest()


def test_statistics_alone_take_no_files(tmp_path):
    trace = record(model(), ids(), tmp_path / "few", statistics_only=True)
    assert [path.name for path in trace.folder.iterdir()] == ["manifest.json"]
    assert trace.values("logits", 0) is None


def test_a_trace_in_the_way_is_replaced_and_anything_else_is_not(tmp_path):
    record(model(), ids(), tmp_path / "t", names="layers.0.*")
    record(model(), ids(), tmp_path / "t", names="logits")
    assert sorted(p.name for p in (tmp_path / "t").iterdir()) == ["call-0-output.safetensors", "manifest.json"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(TraceError, match="other things"):
        record(model(), ids(), tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_an_interrupt_leaves_the_old_trace(tmp_path, monkeypatch):
    record(model(), ids(), tmp_path / "t", names="logits")
    before = (tmp_path / "t" / "manifest.json").read_bytes()
    from llama_core.traces.write import TraceWriter

    def interrupt(self, name, *arguments):
        if name == "layers.2.q":
            raise KeyboardInterrupt

    monkeypatch.setattr(TraceWriter, "add", interrupt)
    with pytest.raises(KeyboardInterrupt):
        record(model(), ids(), tmp_path / "t")
    assert (tmp_path / "t" / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="files are told by /proc/self/fd")
def test_every_file_is_on_the_disk_before_the_trace_takes_its_place(tmp_path, monkeypatch):
    synced, exchanged = set(), []
    sync, rename = os.fsync, os.rename

    def note(descriptor):
        synced.add(Path(f"/proc/self/fd/{descriptor}").resolve().name)
        sync(descriptor)

    def renamed(source, target):
        exchanged.append(set(synced))
        rename(source, target)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(os, "rename", renamed)
    trace = record(model(), ids(), tmp_path / "t", steps=1)
    assert exchanged and {path.name for path in trace.folder.iterdir()} <= exchanged[-1]


def test_a_disk_that_fails_to_keep_a_file_leaves_the_old_trace(tmp_path, monkeypatch):
    record(model(), ids(), tmp_path / "t", names="logits")
    before = (tmp_path / "t" / "manifest.json").read_bytes()
    count, sync = [0], os.fsync

    def fail(descriptor):
        count[0] += 1
        if count[0] == 2:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(TraceError, match="could not be written"):
        record(model(), ids(), tmp_path / "t")
    assert (tmp_path / "t" / "manifest.json").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


@pytest.mark.parametrize("case", BAD_MANIFESTS)
def test_a_manifest_that_is_wrong_is_refused_by_name(copy, case):
    key, value, message = BAD_MANIFESTS[case]
    edit_manifest(copy, change(key, value))
    with pytest.raises(LlamaCoreError, match=message) as caught:
        validate(copy)
    assert caught.value.file and caught.value.key


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 1, "format": 2}', '{"format": NaN}', "[" * 100_000, "\xff\xfe"]
)
def test_a_manifest_that_is_no_json_object_is_refused(copy, text):
    (copy / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(TraceError):
        Trace.open(copy)


def test_a_truncated_file_is_refused_and_named(copy):
    path = copy / "call-0-layer-001.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TraceError, match="cut off") as caught:
        Trace.open(copy)
    assert caught.value.file.endswith(path.name)


def test_changed_bytes_are_found_when_they_are_read(copy):
    path = copy / "call-0-output.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(TraceError, match="have changed"):
        Trace.open(copy).values("logits", 0)


def test_a_link_out_of_the_folder_is_refused(copy, tmp_path):
    path = copy / "call-0-output.safetensors"
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(TraceError, match="leads out"):
        Trace.open(copy)


@pytest.mark.parametrize("rows", ["7", "-1", "last,x", "", "3-9"])
def test_rows_that_the_prompt_does_not_have_are_refused(rows):
    with pytest.raises(TraceError, match="selects no rows"):
        parse_rows(rows, 7)


def test_the_command_writes_and_validates(tmp_path, capsys):
    model().save_pretrained(tmp_path / "model")
    out = str(tmp_path / "golden")
    arguments = ["trace", "--model", str(tmp_path / "model"), "--ids", "1,5,9", "--steps", "2", "--noise", "none"]
    assert main([*arguments, "--out", out]) == 0
    assert main(["trace", "--validate", out, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (facts["calls"], facts["tokens"], facts["tensors"]) == (3, 5, 3 * 68)
    assert main([*arguments, "--out", out, "--names", "nothing"]) == 2
    assert "names no activation" in capsys.readouterr().err
