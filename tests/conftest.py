"""Shared by all tests."""

import os
import sys
from pathlib import Path

# Two cores are shared by the test and the processes that it starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent / "cli"))
