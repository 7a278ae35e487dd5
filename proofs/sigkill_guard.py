"""Criterion 3 for a loop that is not ours: ``python proofs/sigkill_guard.py 200`` kills that many runs at random."""

import os
import subprocess
import sys
from pathlib import Path

TEST = Path(__file__).parents[1] / "tests" / "crash" / "test_guard_kill.py"

if __name__ == "__main__":
    count = sys.argv[1] if len(sys.argv) > 1 else "200"
    words = [sys.executable, "-m", "pytest", "-q", str(TEST)]
    sys.exit(subprocess.run(words, env={**os.environ, "GANGUARD_KILLS": count}, check=False).returncode)
