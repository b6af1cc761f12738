"""Tests of traces; those that plant mistakes take them from the gates' tests."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "gates"))
