"""Test the parity tests: plant known mistakes in the model, one after the other, and see which tests notice.

Prints a matrix: a line for each mistake, a column for each test function, and in it how many of the function's cases
turned red. The exit status is 0 when every mistake turned at least one test red, every test was turned red by at least
one mistake, and without a mistake all are green.

    python tools/test_the_tests.py                    all mistakes: a minute and a half of one core
    python tools/test_the_tests.py "GQA tiled" ...    these alone; a test that none of them turns red is no failure then
"""

from __future__ import annotations

import contextlib
import io
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARITY = ROOT / "tests" / "parity"
#: Each of these costs time in every test or session, and is of no use here.
NO_PLUGINS = ("-p", "no:cacheprovider", "-p", "no:unraisableexception", "-p", "no:threadexception", "-p", "no:logging")


class Outcomes:
    """A pytest plugin that notes which tests passed and which failed."""

    def __init__(self):
        self.passed: set[str] = set()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report) -> None:
        if report.failed:
            self.failed.add(report.nodeid)
        elif report.when == "call" and report.passed:
            self.passed.add(report.nodeid)


def run_parity_tests(*options: str) -> Outcomes:
    """One session in this process: what transformers computes is kept from session to session."""
    import pytest

    outcomes, output = Outcomes(), io.StringIO()
    options = ("-q", "--tb=no", "-c", str(ROOT / "pyproject.toml"), "--rootdir", str(ROOT), *NO_PLUGINS, *options)
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        status = pytest.main([str(PARITY / "test_parity.py"), *options], plugins=[outcomes])
    if status not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        sys.exit(f"pytest did not run ({status!r}):\n{output.getvalue()}")
    return outcomes


def function_of(test: str) -> str:
    return test.rpartition("::")[2].partition("[")[0].removeprefix("test_")


def print_matrix(red: dict[str, set[str]], tests: set[str]) -> None:
    functions, sizes = sorted({function_of(test) for test in tests}), Counter(function_of(test) for test in tests)
    width = max(map(len, red))
    print("Cases of each test that turned red:\n")
    for number, function in enumerate(functions):
        print(f"  {chr(ord('A') + number)}  {function} ({sizes[function]})")
    print("\n" + " " * width + "".join(f"{chr(ord('A') + n):>5}" for n in range(len(functions))))
    for plant, failed in red.items():
        counts = Counter(function_of(test) for test in failed)
        print(f"{plant:{width}}" + "".join(f"{counts[function] or '·':>5}" for function in functions))


def main(chosen: list[str]) -> int:
    sys.path.insert(0, str(PARITY))
    # Imports the model before tests/conftest.py can add its shape checks, which cost more than these small models.
    from plants import PLANTS

    unknown = [name for name in chosen if name not in PLANTS]
    if unknown:
        sys.exit(f"unknown: {', '.join(unknown)}\nknown: " + ", ".join(PLANTS))
    green = run_parity_tests()
    if green.failed or not green.passed:
        print("without a planted mistake these fail:", *sorted(green.failed), sep="\n  ")
        return 1
    red = {plant: run_parity_tests("--plant", plant).failed for plant in chosen or PLANTS}
    print_matrix(red, green.passed)
    missed = [plant for plant, failed in red.items() if not failed]
    blind = sorted(green.passed.difference(*red.values()))
    print(f"\n{len(red)} mistakes, {len(green.passed)} tests.")
    print("Mistakes that no test notices:", ", ".join(missed) or "none")
    print("Tests that no mistake turns red:", ", ".join(blind) or "none")
    return 1 if missed or (blind and not chosen) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
