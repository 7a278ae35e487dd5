"""Runs of a loop that is not ours, each killed with SIGKILL at random instants; see tests/crash/test_guard_kill.py.

python proofs/sigkill_guard.py --runs 200
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

TEST = Path(__file__).parents[1] / "tests" / "crash" / "test_guard_kill.py"

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    environment = {**os.environ, "GANGUARD_KILLS": str(parser.parse_args().runs)}
    words = [sys.executable, "-m", "pytest", "-q", "--timeout", "0", str(TEST)]
    sys.exit(subprocess.run(words, env=environment, check=False).returncode)
