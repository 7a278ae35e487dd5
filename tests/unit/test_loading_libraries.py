"""How the commands load torch."""

import os
import subprocess
import sys

import pytest

LOADING = "from ganguard.cli import running\nwith running.loading_libraries(): import torch"


@pytest.mark.skipif(sys.platform != "linux", reason="GNU's OpenMP tells its settings in this form")
@pytest.mark.parametrize(("asked", "spins"), [({}, "1000"), ({"OMP_WAIT_POLICY": "active"}, "30000000000")])
def test_threads_that_wait_spin_shortly_unless_the_user_wants_otherwise(asked, spins):
    environment = {
        name: value for name, value in os.environ.items() if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    } | asked
    environment["OMP_DISPLAY_ENV"] = "verbose"
    done = subprocess.run([sys.executable, "-c", LOADING], env=environment, capture_output=True, text=True, check=True)
    assert f"GOMP_SPINCOUNT = '{spins}'" in done.stderr
