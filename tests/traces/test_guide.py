"""The guide from an engine to a verdict: every command in it, run from top to bottom."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import llama_core.traces
from llama_core.cli import main
from llama_core.traces.maps import read_map

GUIDE = Path(llama_core.traces.__file__).parent / "GUIDE.md"
TEXT = GUIDE.read_text()
ROOT = Path(__file__).parents[2]


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)
    return [block for said, block in found if said == language]


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("cc") or sys.platform == "win32", reason="the guide's commands need cc")
def test_every_command_does_what_the_guide_says(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").symlink_to(ROOT / "notebooks")
    said = ""
    for command in "".join(blocks("sh")).splitlines():
        expected = int(re.search(r"  # exit status (\d)$", command)[1]) if "  # " in command else 0
        command = command.split("  # ")[0]
        if command.startswith("llama-core "):
            status = main([word.strip('"') for word in re.findall(r'"[^"]*"|\S+', command)[1:]])
            said += capsys.readouterr().out
        else:
            status = subprocess.run(command, shell=True).returncode
        assert status == expected, f"{command}\n{said[-3000:]}"
    [quoted] = blocks("")
    assert all(line in said for line in quoted.splitlines())


def test_the_map_of_the_guide_is_one(tmp_path):
    [text] = blocks("toml")
    (tmp_path / "mine.toml").write_text(text)
    [rule] = read_map(tmp_path / "mine.toml").rules
    assert tomllib.loads(text)["tensor"][0]["axes"] == rule.axes == "B H S D"
    assert rule.match("blk.3.query") == "layers.3.q"


def test_its_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", TEXT)
    assert links and [link for link in links if not (GUIDE.parent / link).exists()] == []
