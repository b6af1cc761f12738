"""The notebooks of the checkout, and the tools that treat them, for the tests of both."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def tool(name: str) -> ModuleType:
    """A module of `tools/`, which is no package."""
    if name not in sys.modules:
        specification = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
        sys.modules[name] = importlib.util.module_from_spec(specification)
        specification.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


@dataclass
class Exercise:
    """One exercise of a notebook, as sources: stub, check and solution, and the imports that they need."""

    notebook: str
    id: str
    imports: str
    stub: str
    check: str
    solution: str


def exercises(path: Path) -> list[Exercise]:
    """The exercises of a notebook in order. Raises ValueError where one lacks a cell or has one twice."""
    cells = [cell for cell in read(path).cells if cell.cell_type == "code"]
    imports = "\n".join(cell.source for cell in cells if "imports" in tags(cell))
    ids = dict.fromkeys(c.metadata.llama_core.exercise for c in cells if "exercise" in c.metadata.get("llama_core", {}))
    found = []
    for id in ids:
        own = [cell for cell in cells if cell.metadata.get("llama_core", {}).get("exercise") == id]
        sources = {}
        for role in ("exercise", "check", "solution", "check-solution"):
            of_role = [cell.source for cell in own if role in tags(cell)]
            if len(of_role) != 1:
                raise ValueError(f"{path.name}: exercise {id} has {len(of_role)} cells tagged {role!r}, not one")
            sources[role] = of_role[0]
        found.append(Exercise(path.stem, id, imports, sources["exercise"], sources["check"], sources["solution"]))
    return found
