"""The README and its neighbours: every command, example and link in them is true."""

import re
import subprocess
import sys

import pytest
from checkout import ROOT, code_blocks

DOCUMENTS = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
COMMANDS = [
    line.split("  #")[0].strip()
    for document in DOCUMENTS
    for block in code_blocks(document, "sh")
    for line in block.splitlines()
    if line.strip()
]
TARGETS = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE).group(1).split()


@pytest.mark.parametrize("command", sorted({line for line in COMMANDS if line.startswith("make")}))
def test_each_make_command_has_its_target(command):
    targets = [word for word in command.split()[1:] if "=" not in word]
    assert targets and set(targets) <= set(TARGETS)


@pytest.mark.parametrize("command", sorted({line for line in COMMANDS if line.startswith("llama-core")}))
def test_each_llama_core_command_has_its_subcommand_and_options(command):
    subcommand = command.split()[1]
    asked = subprocess.run([sys.executable, "-m", "llama_core", subcommand, "--help"], capture_output=True, text=True)
    assert asked.returncode == 0, asked.stderr
    assert set(re.findall(r"(?<= )--[a-z-]+", command)) <= set(re.findall(r"--[a-z-]+", asked.stdout))


@pytest.mark.parametrize("command", sorted({line for line in COMMANDS if ".venv/bin/python" in line}))
def test_each_file_named_in_a_python_command_exists(command):
    for name in re.findall(r"\b(?:tests|tools)/[\w./]+", command):
        assert (ROOT / name).exists(), f"there is no {name}"


@pytest.mark.parametrize("example", code_blocks("README.md", "python"))
def test_the_python_example_of_the_readme_runs(example, tmp_path):
    result = subprocess.run([sys.executable, "-c", example], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "One day" in result.stdout


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_link_to_a_file_leads_somewhere(document):
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / document).read_text())
    assert [link for link in links if not (ROOT / link).exists()] == []


@pytest.mark.parametrize("path", sorted(set(re.findall(r"`([\w.]+/[\w./]*)`", (ROOT / "README.md").read_text()))))
def test_each_path_that_the_readme_names_exists(path):
    assert (ROOT / path).exists()
