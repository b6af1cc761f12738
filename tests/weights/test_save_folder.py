"""Saving: the folder is whole or not at all, and nothing in it that is not the model's is lost."""

import errno
import json
import os
import signal
import stat
import subprocess
import sys

import pytest
import torch
from safetensors import safe_open

from llama_core import Llama, LlamaConfig
from llama_core.errors import LlamaCoreError, WeightsError
from llama_core.weights import load_model, replace_folder, save_model
from llama_core.weights.safetensors_file import read_header
from llama_core.weights.write_safetensors import write_safetensors

SIZES = dict(vocab_size=31, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=4)


def model(seed=0, **changes):
    return Llama.random(LlamaConfig(**(SIZES | changes)), seed=seed)


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


def leftovers(folder):
    return sorted(path.name for path in folder.parent.iterdir() if path != folder)


def test_a_tied_head_is_written_once(tmp_path):
    save_model(model(tie_word_embeddings=True), tmp_path / "m")
    with safe_open(tmp_path / "m" / "model.safetensors", "pt") as file:
        assert "lm_head.weight" not in file.keys() and len(file.keys()) == 2 * 9 + 2
        assert file.metadata() == {"format": "pt"}


def test_shards_stay_below_the_size_and_the_index_names_each_tensor_once(tmp_path):
    save_model(model(), tmp_path / "m", max_shard_bytes=4_000)
    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    found, total = {}, 0
    for path in sorted((tmp_path / "m").glob("*.safetensors")):
        with safe_open(path, "pt") as file:
            found |= dict.fromkeys(file.keys(), path.name)
            size = sum(file.get_tensor(name).nbytes for name in file.keys())
        assert size <= 4_000
        total += size
    assert index["weight_map"] == found and len(found) == 2 * 9 + 3
    assert index["metadata"]["total_size"] == total == model().config.num_parameters * 4


def test_every_tensor_starts_at_a_multiple_of_its_item_size(tmp_path):
    tensors = {"a": torch.ones(3, dtype=torch.bfloat16), "b": torch.ones(5), "c": torch.ones(1, dtype=torch.float64)}
    write_safetensors(tmp_path / "x.safetensors", tensors)
    for name, entry in read_header(tmp_path, "x.safetensors").items():
        assert entry.start % tensors[name].dtype.itemsize == 0, name


def test_saving_again_in_another_form_leaves_nothing_of_the_first(tmp_path):
    save_model(model(), tmp_path / "m", max_shard_bytes=4_000)
    save_model(model(seed=1), tmp_path / "m")
    assert sorted(os.listdir(tmp_path / "m")) == ["config.json", "generation_config.json", "model.safetensors"]
    assert same(load_model(tmp_path / "m"), model(seed=1))
    assert leftovers(tmp_path / "m") == []


def test_other_peoples_files_are_carried_over(tmp_path):
    folder = tmp_path / "m"
    save_model(model(), folder)
    (folder / "tokenizer.model").write_bytes(b"pieces")
    (folder / "original" / "deep").mkdir(parents=True)
    (folder / "original" / "deep" / "notes.txt").write_text("kept")
    (folder / "link").symlink_to("tokenizer.model")
    os.chmod(folder, 0o750)
    save_model(model(seed=1), folder)
    assert (folder / "tokenizer.model").read_bytes() == b"pieces"
    assert (folder / "original" / "deep" / "notes.txt").read_text() == "kept"
    assert os.readlink(folder / "link") == "tokenizer.model"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o750
    assert same(load_model(folder), model(seed=1))


def test_files_are_carried_over_where_there_are_no_hard_links(tmp_path, monkeypatch):
    def no_links(*_, **__):
        raise OSError(errno.EPERM, "no hard links here")

    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "tokenizer.model").write_bytes(b"pieces")
    monkeypatch.setattr(os, "link", no_links)
    save_model(model(), tmp_path / "m")
    assert (tmp_path / "m" / "tokenizer.model").read_bytes() == b"pieces"


def test_a_model_can_be_saved_over_the_folder_that_it_is_mapped_from(tmp_path):
    save_model(model(), tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    with torch.no_grad():
        loaded.norm.weight.mul_(2)
    save_model(loaded, tmp_path / "m")
    wanted = model().state_dict() | {"norm.weight": model().norm.weight * 2}
    found = load_model(tmp_path / "m").state_dict()
    assert all(torch.equal(found[name], values) for name, values in wanted.items())
    assert torch.equal(loaded.lm_head.weight, model().lm_head.weight)


def test_a_link_to_a_folder_stays_a_link(tmp_path):
    save_model(model(), tmp_path / "real")
    (tmp_path / "link").symlink_to("real")
    save_model(model(seed=1), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert same(load_model(tmp_path / "real"), model(seed=1))


def test_a_new_folder_has_the_usual_rights_and_its_parents_are_made(tmp_path):
    save_model(model(), tmp_path / "a" / "b" / "m")
    (tmp_path / "usual").mkdir()
    assert (tmp_path / "a" / "b" / "m").stat().st_mode == (tmp_path / "usual").stat().st_mode


def spoil_home(place):
    (place / "Documents").mkdir(parents=True)


def spoil_file(place):
    place.write_text("a file")


@pytest.mark.parametrize(("spoil", "words"), [(spoil_file, "is a file"), (spoil_home, "no model folder")])
def test_what_is_no_model_folder_is_not_replaced(tmp_path, spoil, words):
    spoil(tmp_path / "m")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(WeightsError, match=words) as caught:
        save_model(model(), tmp_path / "m")
    assert (caught.value.file, caught.value.key) == (str(tmp_path / "m"), "folder")
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", [".", "..", "/"])
def test_the_working_directory_and_what_it_lies_in_are_not_replaced(tmp_path, monkeypatch, place):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(WeightsError, match="working directory"):
        save_model(model(), place)


@pytest.mark.parametrize(
    ("spoilt", "key"),
    [
        (lambda: Llama(LlamaConfig(**SIZES)), "embed_tokens.weight"),
        (lambda: model(rope_layout="interleaved"), "rope_layout"),
    ],
    ids=["no weights", "interleaved"],
)
def test_a_model_that_cannot_be_written_leaves_the_old_folder(tmp_path, spoilt, key):
    save_model(model(), tmp_path / "m")
    with pytest.raises(LlamaCoreError) as caught:
        save_model(spoilt(), tmp_path / "m")
    assert caught.value.key == key
    assert same(load_model(tmp_path / "m"), model())
    assert leftovers(tmp_path / "m") == []


def test_a_shard_size_of_zero_is_refused(tmp_path):
    with pytest.raises(WeightsError) as caught:
        save_model(model(), tmp_path / "m", max_shard_bytes=0)
    assert caught.value.key == "max_shard_bytes"


def test_where_folders_cannot_change_places_they_are_renamed(tmp_path, monkeypatch):
    def unknown(a, b):
        raise OSError(errno.ENOSYS, "not here")

    save_model(model(), tmp_path / "m")
    (tmp_path / "m" / "tokenizer.model").write_bytes(b"pieces")
    monkeypatch.setattr(replace_folder, "_exchange_in_one_step", unknown)
    save_model(model(seed=1), tmp_path / "m")
    assert same(load_model(tmp_path / "m"), model(seed=1))
    assert (tmp_path / "m" / "tokenizer.model").read_bytes() == b"pieces"
    assert leftovers(tmp_path / "m") == []


@pytest.mark.parametrize("failing", ["fsync", "rename", "exchange"])
def test_an_error_of_the_disk_leaves_the_old_folder(tmp_path, monkeypatch, failing):
    save_model(model(), tmp_path / "m")

    def broken(*_, **__):
        raise OSError(errno.EIO, "Input/output error")

    if failing == "fsync":
        monkeypatch.setattr(os, "fsync", broken)
    elif failing == "exchange":
        monkeypatch.setattr(replace_folder, "_exchange_in_one_step", broken)
    else:
        monkeypatch.setattr(replace_folder, "_exchange_in_one_step", lambda a, b: broken_exchange())
        calls = iter([os.rename, broken, os.rename])
        monkeypatch.setattr(os, "rename", lambda a, b: next(calls)(a, b))
    with pytest.raises(WeightsError, match="Input/output error") as caught:
        save_model(model(seed=1), tmp_path / "m")
    assert caught.value.file == str(tmp_path / "m")
    monkeypatch.undo()
    assert same(load_model(tmp_path / "m"), model())
    assert leftovers(tmp_path / "m") == []


def broken_exchange():
    raise OSError(errno.ENOSYS, "not here")


#: One process that forks a child for each case: [folder, the call to break, how many of them go well].
#: The child saves the model of seed 1 over the folder, is killed before that call, or finds the disk full.
FORKER = """
import json, os, resource, signal, sys, traceback
import torch
from llama_core import Llama, LlamaConfig
from llama_core.weights import replace_folder, save_model

torch.set_num_threads(1)
model = Llama.random(LlamaConfig(vocab_size=31, hidden_size=16, intermediate_size=20, num_hidden_layers=2,
                                 num_attention_heads=4), seed=1)

def killed_after(count, function):
    left = [count]
    def counted(*args, **kwargs):
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return function(*args, **kwargs)
    return counted

def save(folder, call, count):
    if call == "full disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (count, count))
    elif call == "exchange":
        replace_folder._exchange_in_one_step = killed_after(count, replace_folder._exchange_in_one_step)
    else:
        setattr(os, call, killed_after(count, getattr(os, call)))
    save_model(model, folder, max_shard_bytes=4000)

results = []
for case in json.load(sys.stdin):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            save(*case)
        except BaseException as error:
            os.write(writer, f"{type(error).__name__}: {error}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read()
    results.append([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said])
print(json.dumps(results))
"""

#: (call before which the process is killed, how many of them go well, seed of the model that the folder then holds).
#: The weights go to six shards, so the nine files and the staged folder take ten calls of fsync; the eleventh is for
#: the parent, after the exchange.
KILLS = [
    *[("fsync", count, 0) for count in range(10)],
    ("fsync", 10, 1),
    ("link", 0, 0),
    ("link", 1, 0),
    ("chmod", 0, 0),
    ("exchange", 0, 0),
    *[("unlink", count, 1) for count in range(5)],
    ("rmdir", 0, 1),
]
FULL = [("full disk", bytes_per_file) for bytes_per_file in (0, 100, 1_000, 2_500)]


@pytest.fixture(scope="module")
def broken_saves(tmp_path_factory):
    """(call, count) -> the folder that a broken save left, its exit code and its error."""
    if sys.platform != "linux":
        pytest.skip("fork, RLIMIT_FSIZE and the exchange in one step are tested on Linux")
    cases = {}
    for call, count, *_ in KILLS + FULL:
        folder = tmp_path_factory.mktemp("broken") / "m"
        save_model(model(), folder)
        (folder / "tokenizer.model").write_bytes(b"pieces")
        (folder / "notes.txt").write_text("kept")
        cases[call, count] = folder
    question = json.dumps([[str(folder), *case] for case, folder in cases.items()])
    done = subprocess.run([sys.executable, "-c", FORKER], input=question, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return {case: (cases[case], *result) for case, result in zip(cases, json.loads(done.stdout), strict=True)}


@pytest.mark.parametrize(("call", "count", "seed"), KILLS)
def test_a_kill_leaves_the_old_or_the_new_model_whole(broken_saves, call, count, seed):
    folder, code, said = broken_saves[call, count]
    assert code == -signal.SIGKILL, said
    assert same(load_model(folder), model(seed))
    assert (folder / "tokenizer.model").read_bytes() == b"pieces"
    assert (folder / "notes.txt").read_text() == "kept"


@pytest.mark.parametrize(("call", "count"), FULL)
def test_a_full_disk_leaves_the_old_model_and_says_so(broken_saves, call, count):
    folder, _, said = broken_saves[call, count]
    assert said.startswith("WeightsError: the model could not be saved: File too large")
    assert f"file: {folder}" in said
    assert same(load_model(folder), model())
    assert leftovers(folder) == []
