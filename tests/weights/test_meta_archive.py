"""Archives that are not what they should be: one error each, in time, in little memory, and nothing of them is run."""

import os
import sys
import zipfile

import pytest
import torch
from bad_archives import BAD_ARCHIVES, NAME, records, root
from meta_folders import write_meta

from llama_core.errors import WeightsError
from llama_core.weights import load_model
from llama_core.weights.archive_directory import read_directory
from llama_core.weights.pickle_scan import check_pickle


@pytest.mark.parametrize("case", BAD_ARCHIVES)
def test_a_bad_archive_gives_one_error_that_names_it(tmp_path, case, monkeypatch):
    spoil, words = BAD_ARCHIVES[case]
    folder = write_meta(tmp_path / "m")
    monkeypatch.chdir(tmp_path)
    spoil(folder / NAME)
    with pytest.raises(WeightsError, match=words) as caught:
        load_model(folder)
    assert caught.value.file == str(folder / NAME)
    assert caught.value.expected is not None and caught.value.actual is not None
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("kind", ["a folder", "a pipe", "a link out of the folder"])
def test_what_is_no_regular_file_is_not_opened(tmp_path, kind):
    folder = write_meta(tmp_path / "m")
    path = folder / NAME
    path.rename(tmp_path / "elsewhere")
    {"a folder": path.mkdir, "a pipe": lambda: os.mkfifo(path)}.get(
        kind, lambda: path.symlink_to(tmp_path / "elsewhere")
    )()
    with pytest.raises(WeightsError) as caught:
        load_model(folder)
    assert caught.value.file == str(path)


@pytest.mark.parametrize("stop", range(0, 400, 23))
def test_no_cut_of_the_end_is_read(tmp_path, stop):
    folder = write_meta(tmp_path / "m")
    content = (folder / NAME).read_bytes()
    (folder / NAME).write_bytes(content[: len(content) - 1 - stop])
    with pytest.raises(WeightsError):
        load_model(folder)


def test_damaged_bytes_of_directory_and_pickle_never_raise_anything_else(tmp_path):
    folder = write_meta(tmp_path / "m")
    good = (folder / NAME).read_bytes()
    tables = [range(0, 4096), range(len(good) - 3000, len(good))]
    generator = torch.Generator().manual_seed(3)
    refused = 0
    for _ in range(300):
        table = tables[int(torch.randint(2, (), generator=generator))]
        content = bytearray(good)
        content[table[int(torch.randint(len(table), (), generator=generator))]] ^= 1 << int(
            torch.randint(8, (), generator=generator)
        )
        (folder / NAME).write_bytes(bytes(content))
        try:
            load_model(folder)
        except WeightsError:
            refused += 1
    assert refused > 100  # a flipped bit of a value, a date or an alignment does no harm


def test_an_archive_of_four_gigabytes_of_holes_is_read_with_64_bit_offsets(tmp_path):
    """A sparse file: zip's 32-bit fields do not reach the entries behind four gigabytes."""
    path = tmp_path / NAME
    torch.save({"norm.weight": torch.ones(4)}, path)
    entries = records(path)
    with open(path, "wb") as file, zipfile.ZipFile(file, "w", allowZip64=True) as archive:
        name = root(entries)
        for entry, content in entries.items():
            archive.writestr(entry, content)
        with archive.open(zipfile.ZipInfo(f"{name}/data/9"), "w", force_zip64=True) as hole:
            hole.write(b"")
        file.seek(2**32 + 10)
        archive.start_dir = file.tell()
        archive.writestr(f"{name}/data/10", b"abcd")
    assert path.stat().st_size > 2**32
    archive_read = read_directory(tmp_path, NAME)
    assert archive_read.records["10"] == 4
    check_pickle(archive_read)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory that Linux keeps in /proc")
def test_refusals_take_little_memory(tmp_path):
    """In a process of its own: the bomb and the tensor of 10¹² values are refused within 64 MB more than importing."""
    import subprocess

    folder = write_meta(tmp_path / "m")
    script = (
        "import sys\n"
        "from llama_core.errors import WeightsError\n"
        "from llama_core.weights import load_model\n"
        "peak = lambda: int(next(l for l in open('/proc/self/status') if l.startswith('VmHWM')).split()[1])\n"
        "before = peak()\n"
        "try:\n"
        "    load_model(sys.argv[1])\n"
        "except WeightsError:\n"
        "    print((peak() - before) // 1024)\n"
    )
    for case in ("a zip bomb", "stride 0", "nested 150,000 deep", "60,000 entries"):
        BAD_ARCHIVES[case][0](folder / NAME)
        done = subprocess.run([sys.executable, "-c", script, str(folder)], capture_output=True, text=True, timeout=120)
        assert done.stdout and int(done.stdout) < 64, (case, done)
        write_meta(folder)
