"""pyproject.toml, constraints.txt and environment.yml say one thing."""

import re
import tomllib

import pytest
import yaml
from checkout import ROOT
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [
    Requirement(line)
    for line in [*PROJECT["dependencies"], *(line for lines in EXTRAS.values() for line in lines)]
    if not line.startswith("llama-core[")
]


def constraints() -> dict[str, Requirement]:
    lines = (line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines())
    pins = [Requirement(line) for line in lines if line]
    return {canonicalize_name(pin.name): pin for pin in pins}


def exact_version(pin: Requirement) -> str:
    (only,) = pin.specifier
    assert only.operator == "==" and "*" not in only.version, f"{pin} is no exact version"
    return only.version


def conda() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text())


def test_conda_installs_the_project_with_its_constraints_and_nothing_else():
    pip_sections = [entry["pip"] for entry in conda()["dependencies"] if isinstance(entry, dict)]
    assert pip_sections == [["-c constraints.txt", "-e .[dev]"]]


def test_conda_itself_brings_only_python_and_pip():
    names = {re.split("[=<>]", entry)[0] for entry in conda()["dependencies"] if isinstance(entry, str)}
    assert names == {"python", "pip"}


def test_condas_python_is_one_that_the_project_allows():
    (version,) = (
        entry.removeprefix("python=") for entry in conda()["dependencies"] if str(entry).startswith("python=")
    )
    assert version in SpecifierSet(PROJECT["requires-python"])


def test_condas_environment_is_named_like_the_project():
    assert conda()["name"] == PROJECT["name"]


@pytest.mark.parametrize("declared", DECLARED, ids=lambda declared: declared.name)
def test_every_declared_package_is_pinned_within_its_declared_range(declared):
    pin = constraints().get(canonicalize_name(declared.name))
    assert pin is not None, f"{declared.name} is declared in pyproject.toml and not pinned in constraints.txt"
    assert exact_version(pin) in declared.specifier


def test_every_constraint_is_an_exact_version():
    for pin in constraints().values():
        exact_version(pin)
