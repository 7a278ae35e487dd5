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


def test_the_benchmark_of_saving_runs_to_its_end(tmp_path):
    program = REPOSITORY / "benchmarks/saving.py"
    words = ["--megabytes", "1", "--rounds", "1", "--list-count", "5", "--folder", str(tmp_path)]
    done = subprocess.run([sys.executable, program, *words], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "verified load / torch.load" in done.stdout
    assert not list(tmp_path.iterdir())
