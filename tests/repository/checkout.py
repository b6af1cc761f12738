"""The checkout as the tests of the repository see it."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tracked_files() -> list[Path]:
    """Every file that git tracks and that is there; skips where this is no clone, as in an unpacked archive."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git clone, so no list of tracked files")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def code_blocks(document: str, language: str) -> list[str]:
    """The fenced blocks of one language in a Markdown document of the repository."""
    blocks = (ROOT / document).read_text().split("```")[1::2]
    return [block.removeprefix(language).lstrip("\n") for block in blocks if block.startswith(f"{language}\n")]
