"""Writes ``digests.json`` and ``files/`` anew: ``python tests/golden/record.py digests`` or ``… files``.

Files are recorded once for each format of checkpoints and stay for ever. Digests change where a training is meant to
come to other figures, and with the version of torch.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from runs import PINNED

HERE = Path(__file__).parent
PAUSES_S = (0.0, 0.01, 0.02, 0.03, 0.05, 0.08)


def digests() -> None:
    """Of uninterrupted trainings."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run([sys.executable, HERE / "runs.py", folder], check=True, stdout=subprocess.PIPE, text=True)
    (HERE / "digests.json").write_text(done.stdout, encoding="utf-8")


def stopped(folder: Path, name: str, at: str) -> None:
    """A training that Ctrl+C stops shortly after it printed ``at``, between two regular saves."""
    for pause_s in PAUSES_S:
        _stopped(folder, name, at, pause_s)
        place = folder / name.partition(":")[0]
        if any(place.glob("*/EMERGENCY_*.pth")):
            return
        shutil.rmtree(place)
    raise AssertionError(f"{name}: no stop fell between two regular saves")


def _stopped(folder: Path, name: str, at: str, pause_s: float) -> None:
    command = [sys.executable, "-u", HERE / "runs.py", folder, name]
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env={**os.environ, **PINNED}
    )
    assert process.stderr is not None
    for line in process.stderr:
        if at in line:
            time.sleep(pause_s)
            process.send_signal(signal.SIGINT)
    process.wait()


def files() -> None:
    """What a stop leaves of each training, a backup, and a run that was set aside by a start afresh."""
    kept = HERE / "files"
    shutil.rmtree(kept, ignore_errors=True)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        stopped(folder, "hinge:--autosave-batches 5", at="epoch_001_batch_00005")
        _keep(folder / "hinge", kept / "hinge", "checkpoints/EMERGENCY_*.pth", "checkpoints/run.json")
        manager = [sys.executable, HERE.parents[1] / "checkpoint_manager.py"]
        subprocess.run([*manager, "--backup", "latest_checkpoint.pth"], cwd=folder / "hinge", check=True)
        _keep(folder / "hinge", kept / "hinge-backup", "checkpoint_backups/*.pth")
        _stopped(folder, "hinge:--no-checkpoint", at="Checkpoints in", pause_s=0)
        _keep(folder / "hinge", kept / "hinge-set-aside", "checkpoints/set_aside/*/EMERGENCY_*.pth")
        stopped(folder, "progressive:--auto-save-every-n-batches 2", at="epoch_001")
        _keep(folder / "progressive", kept / "progressive", "weights/EMERGENCY_*.pth", "weights/run_*.json")
        _keep(folder / "progressive", kept / "progressive-history", "weights/history/*.pth")
        stopped(folder, "foreign_loop", at="Checkpoints in")
        _keep(folder / "foreign_loop", kept / "foreign_loop", "checkpoints/EMERGENCY_*.pth", "checkpoints/run.json")


def _keep(source: Path, target: Path, *names: str) -> None:
    for path in (path for name in names for path in source.glob(name)):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, copy)


if __name__ == "__main__":
    {"digests": digests, "files": files}[sys.argv[1]]()
