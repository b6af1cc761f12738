"""What lies in the repository: few names at the top, no paths of one machine, no large files."""

import re

import pytest
from checkout import ROOT, tracked_files

TOP_LEVEL = {
    *("notebooks", "llama_core", "tests", "benchmarks", "tools", ".ci"),
    *("pyproject.toml", "constraints.txt", "environment.yml", "Makefile", ".gitignore"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "LICENSE"),
}
EMBEDDED_MODEL = ROOT / "llama_core" / "stories"
HOME_FOLDER = re.compile(rb"(?<![\w.])/(home|Users|root|work|workspace)/\w|\b[A-Z]:\\\\?Users")


def test_the_top_level_holds_only_what_belongs_there():
    assert {path.relative_to(ROOT).parts[0] for path in tracked_files()} <= TOP_LEVEL


@pytest.mark.parametrize(
    "parts", [("", "home", "ada", "x"), ("", "root", "x"), ("see ", "Users", "ada"), ("C:", "Users")]
)
def test_a_path_of_one_machine_is_recognised(parts):
    separator = "\\" if parts[0] == "C:" else "/"
    assert HOME_FOLDER.search(separator.join(parts).encode())


@pytest.mark.parametrize("text", ["https://example.org/home/x", "../shared/real", "a/work/b", "llama_core/cli.py"])
def test_other_paths_are_not_taken_for_one(text):
    assert not HOME_FOLDER.search(text.encode())


def test_no_file_names_a_path_of_one_machine():
    assert [path.name for path in tracked_files() if HOME_FOLDER.search(path.read_bytes())] == []


def test_no_file_is_over_one_megabyte_but_the_embedded_model():
    large = [path for path in tracked_files() if path.stat().st_size > 1_000_000]
    assert [path for path in large if path.parent != EMBEDDED_MODEL or path.suffix != ".safetensors"] == []


def test_the_package_with_its_model_stays_within_six_megabytes():
    package = [path for path in tracked_files() if ROOT / "llama_core" in path.parents]
    assert sum(path.stat().st_size for path in package) <= 6_000_000
