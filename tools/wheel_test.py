"""Build the wheel, install it in an empty environment outside the checkout, and let it tell a story.

The environment holds the wheel and the distributions that the wheel says it needs, directly or through another, and
nothing else. Those are linked from the environment that runs this file, not downloaded, so the test takes seconds and
works offline; a dependency that the wheel uses and does not declare is missing there, and the story fails.

usage: python tools/wheel_test.py
"""

import os
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).resolve().parents[1]
STORY = ["generate", "--model", "stories", "--prompt", "One day", "--max-new-tokens", "20"]


def package_files(root: Path) -> set[str]:
    """The files of the package below `root`, as a wheel names them."""
    found = (path for path in (root / "llama_core").rglob("*") if path.is_file())
    return {path.relative_to(root).as_posix() for path in found if "__pycache__" not in path.parts}


def build(folder: Path) -> Path:
    """Build the wheel from a copy of the sources: a `build` folder left in the checkout would lend it stale files."""
    source = folder / "source"
    shutil.copytree(CHECKOUT / "llama_core", source / "llama_core", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    pip(sys.executable, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder / "dist"), str(source))
    (wheel,) = (folder / "dist").glob("*.whl")
    return wheel


def pip(python: str | Path, *arguments: str) -> None:
    """Run this environment's pip on the environment of `python`, without any index of packages."""
    command = [sys.executable, "-m", "pip", "--python", str(python), arguments[0], "--quiet", "--no-index"]
    subprocess.run([*command, *arguments[1:]], check=True, cwd=tempfile.gettempdir())


def required(requirements: list[str]) -> dict[str, Distribution]:
    """The installed distributions that `requirements` name on this platform, and all that those need in turn."""
    found: dict[str, Distribution] = {}
    visited: set[tuple[str, str]] = set()
    pending = [(Requirement(line), "") for line in requirements]
    while pending:
        requirement, of_extra = pending.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": of_extra}):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = distribution(name)
        for extra in {"", *requirement.extras} - {seen for other, seen in visited if other == name}:
            visited.add((name, extra))
            pending += [(Requirement(line), extra) for line in found[name].requires or []]
    return found


def link(distributions: dict[str, Distribution], site_packages: Path) -> None:
    """Link what each distribution installed, its top-level files and folders, into `site_packages`."""
    for found in distributions.values():
        for top in {file.parts[0] for file in found.files or [] if file.parts[0] != ".."}:
            target = site_packages / top
            if not target.exists() and top != "__pycache__":
                target.symlink_to(found.locate_file(top))


def install(wheel: Path, folder: Path) -> tuple[Path, Path]:
    """Make the environment; returns its folder of commands and its site-packages."""
    venv.create(folder, with_pip=False)
    commands = folder / ("Scripts" if os.name == "nt" else "bin")
    pip(commands / "python", "install", "--no-deps", str(wheel))
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    output = subprocess.run([commands / "python", "-c", ask], check=True, capture_output=True, text=True).stdout
    return commands, Path(output.strip())


def tell(commands: Path, folder: Path) -> str:
    """Run the installed command outside the checkout; returns the story, and raises where it does not come."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    result = subprocess.run(
        [commands / "llama-core", *STORY], cwd=folder, env=clean, capture_output=True, text=True, timeout=300
    )
    if result.returncode != 0:
        raise SystemExit(f"the installed llama-core failed with {result.returncode}:\n{result.stdout}{result.stderr}")
    return result.stdout


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="llama-core-wheel-") as temporary:
        folder = Path(temporary)
        wheel = build(folder)

        with zipfile.ZipFile(wheel) as archive:
            carried = {name for name in archive.namelist() if name.startswith("llama_core/")}
        differing = carried ^ package_files(folder / "source")
        if differing:
            raise SystemExit(f"wheel and sources differ in {sorted(differing)}")
        print(f"{wheel.name}: {len(carried)} files, {wheel.stat().st_size / 1e6:.1f} MB")

        commands, site_packages = install(wheel, folder / "environment")
        (metadata,) = site_packages.glob("llama_core-*.dist-info")
        needed = required(Distribution.at(metadata).requires or [])
        link(needed, site_packages)
        print("beside it:", *sorted(needed))
        print(tell(commands, folder))


if __name__ == "__main__":
    main()
