"""Running the commands as a person types them: real processes, their output read line by line.

A training that is run to its end is forked from a process that has imported torch, where there is fork.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import tempfile
import time
from functools import cache
from pathlib import Path

import torch
from systems import OWN_GROUP, STOP, WINDOWS, send
from zygote import Zygote

REPOSITORY = Path(__file__).parents[2]
GAN = [sys.executable, str(REPOSITORY / "gan.py")]
PROGAN = [sys.executable, str(REPOSITORY / "progan_local.py")]
MANAGER = [sys.executable, str(REPOSITORY / "checkpoint_manager.py")]
TINY = [
    "--limit-images",
    "96",
    "--batch-size",
    "8",
    "--width",
    "4",
    "--checkpoint-interval",
    "1",
    "--epochs",
    "3",
    "--threads",
    "1",
    "--fid-every",
    "0",
]  # 12 batches an epoch
UTF_8 = {"PYTHONIOENCODING": "utf-8"}  # not the console's encoding, which other systems have
CONFIG_FREE = {
    "autosave_batches",
    "checkpoint_interval",
    "workers",
    "epochs",
    "save_budget",
    "sample_every",
    "fid_every",
}


@cache
def forking():
    """What all tests of this process fork from."""
    server = Zygote().__enter__()
    atexit.register(server.__exit__)
    return server


def run(command, *words, cwd, env=None, timeout=120):
    """Run to the end; returns the finished process with its text output."""
    if command in (GAN, PROGAN) and env is None and hasattr(os, "fork"):
        with tempfile.TemporaryDirectory() as apart:
            process = forking().start(Path(command[1]), *words, cwd=cwd, apart=Path(apart))
            code = process.wait(timeout)
            texts = (file.read_text(encoding="utf-8") for file in (process.log, process.errors))
            return subprocess.CompletedProcess(command, code, *texts)
    return subprocess.run(
        [*command, *map(str, words)],
        cwd=cwd,
        env={**UTF_8, **os.environ, **(env or {})},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )


def run_and_signal(command, *words, cwd, at, number=STOP, group=False, delay=0.0, timeout=120):
    """Send a signal ``delay`` seconds after a line that holds ``at``; returns (exit code, output)."""
    process = subprocess.Popen(
        [*command, *map(str, words)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        env={**UTF_8, **os.environ},
        **OWN_GROUP,
    )
    lines = []
    sent = False
    for line in process.stdout:
        lines.append(line)
        if at in line and not sent:
            sent = True
            time.sleep(delay)
            (os.killpg if group and not WINDOWS else send)(process.pid, number)
    return process.wait(timeout), "".join(lines)


def flat(value, path=""):
    if isinstance(value, dict):
        for key, item in value.items():
            yield from flat(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from flat(item, f"{path}[{index}]")
    else:
        yield path, value


def differences(one, other):
    """Names of everything that differs between two checkpoints, but for run ids and settings that may differ."""
    first, second = (dict(flat(torch.load(path, weights_only=True))) for path in (one, other))
    free = {f".ganguard.{name}" for name in ("run", "branch", "parent", "saved_at")}
    free |= {f".config.{name}" for name in CONFIG_FREE}

    def same(key):
        if key not in first or key not in second:
            return False
        a, b = first[key], second[key]
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    # gan.py never draws from Python's and numpy's streams; they are not seeded. Its speed need not be equal.
    watched = [
        k
        for k in sorted({*first, *second} - free)
        if not k.startswith((".random.python", ".random.numpy")) and "images_per_second" not in k
    ]
    return [key for key in watched if not same(key)]
