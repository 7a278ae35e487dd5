"""What is run by hand and seldom: each proof and each benchmark still starts."""

import subprocess
import sys

import pytest
from typed import REPOSITORY

PROGRAMS = sorted([*REPOSITORY.glob("proofs/*.py"), *REPOSITORY.glob("benchmarks/*.py")])


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda path: path.stem)
def test_it_starts(program):
    done = subprocess.run([sys.executable, program, "--help"], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
