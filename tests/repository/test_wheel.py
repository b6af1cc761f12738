"""What people install is whole."""

import subprocess
import sys

import pytest
from checkout import ROOT


@pytest.mark.slow
def test_the_wheel_alone_with_its_declared_dependencies_tells_a_story():
    result = subprocess.run([sys.executable, ROOT / "tools" / "wheel_test.py"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "One day" in result.stdout
