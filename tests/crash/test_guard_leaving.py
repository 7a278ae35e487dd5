"""Leaving a run of somebody else's: nobody is trapped, and nobody loses more than the batch under way."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from systems import STOP, needs_posix

sys.path.insert(0, str(Path(__file__).parents[1] / "exact"))
from zygote import SOURCE

LOOP = """
import random, sys, time
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from ganguard import Guard

class Items(Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, index):
        if guard_step() == {hang_at} and HANG:
            {hang}
        return torch.randn(2)

def guard_step():
    return guard.step if guard else 0

guard = None
HANG = "hang" in sys.argv
torch.manual_seed(0); np.random.seed(0); random.seed(0)
net = torch.nn.Linear(2, {width})
opt = torch.optim.SGD(net.parameters(), 0.01)
loader = DataLoader(Items(), batch_size=4, shuffle=True, num_workers={workers})

def main():
    global guard
    with Guard("{folder}", {{"net": net, "opt": opt}}, {options}) as guard:
        for epoch in guard.epochs(2):
            for x in guard.batches(loader):
                opt.zero_grad()
                net(x + 0.1 * torch.randn(2)).square().mean().backward()
                opt.step()
                {body}
                print("step", guard.step + 1, flush=True)
    print("the end", flush=True)

if __name__ == "__main__":
    main()
"""
DEFAULTS = {"hang_at": -1, "hang": "pass", "width": 1, "workers": 0, "options": "", "body": "pass", "folder": "ck"}
# With workers the guard's step is not seen in them: they hang by what they were given.
HANGING_WORKER = "time.sleep(1000 if index == 7 else 0)"


def written(cwd, **changes):
    script = cwd / f"loop_{len(list(cwd.glob('loop_*')))}.py"
    script.write_text(LOOP.format(**{**DEFAULTS, **changes}), encoding="utf-8")
    return script


def newest(cwd, folder="ck"):
    return torch.load(cwd / folder / "checkpoint_epoch_002.pth", weights_only=True)


@pytest.fixture(scope="module")
def whole(zygote, tmp_path_factory):
    """The same training without an interruption, and without workers."""
    cwd = tmp_path_factory.mktemp("whole")
    assert zygote.start(written(cwd), cwd=cwd).wait() == 0
    return newest(cwd)


@pytest.mark.parametrize(
    ("workers", "hang"),
    [
        (0, "print('waiting', flush=True); time.sleep(1000)"),
        (0, "print('waiting', flush=True)\n            try: time.sleep(1)\n            except: pass"),
        (0, "print('waiting', flush=True)\n            try: time.sleep(1000)\n            except Exception: pass"),
        (2, "print('waiting', flush=True); time.sleep(1000)"),
    ],
    ids=["hangs", "swallows everything", "falls back on exceptions", "two workers"],
)
def test_a_wait_for_data_is_broken_off_at_once(zygote, tmp_path, whole, workers, hang):
    """Ctrl+C while an item hangs: saved at the last whole batch, gone within seconds, exact afterwards."""
    # A worker has an idea of the step of its own: 0, so its first item hangs.
    changes = {"hang_at": 0 if workers else 3, "hang": hang, "workers": workers}
    process = zygote.start(written(tmp_path, **changes), "hang", cwd=tmp_path)
    process.until("waiting")
    time.sleep(0.2)
    began = time.monotonic()
    process.signal_group(STOP)
    assert process.wait() == 128 + STOP, process.output()
    assert time.monotonic() - began < 8
    assert "Traceback" not in process.output()
    process = zygote.start(written(tmp_path, **changes), cwd=tmp_path)
    assert process.wait() == 0, process.output()
    one = newest(tmp_path)
    assert all(torch.equal(one["net"][key], whole["net"][key]) for key in whole["net"])
    assert torch.equal(one["random"]["torch"], whole["random"]["torch"])


def test_three_presses_leave_a_batch_that_hangs(zygote, tmp_path):
    """Exit code 6, since what was trained is not on disk; the message said how."""
    process = zygote.start(written(tmp_path, body="time.sleep(100 * (guard.step == 2))"), cwd=tmp_path)
    process.until("step 2")
    time.sleep(0.3)
    for _ in range(3):
        process.signal(STOP)
        time.sleep(0.1)
    # The sleep in the body goes on after each handler, as a long computation would.
    assert process.wait(10) == 6, process.output()


def test_three_presses_lose_nothing_where_nothing_is_at_risk(zygote, tmp_path):
    """Saved just before: the exit code is that of the signal."""
    script = written(tmp_path, body="time.sleep(100 * (guard.step == 2))", options="save_every_batches=1")
    process = zygote.start(script, cwd=tmp_path)
    process.until(f"saved {Path('ck', 'checkpoint_epoch_001_batch_00002')}")
    time.sleep(1)
    for _ in range(3):
        process.signal(STOP)
        time.sleep(0.1)
    assert process.wait(10) == 128 + STOP, process.output()


SLOW_WRITE = """
import time
from ganguard.store import durable, envelope
own_write = envelope.HashingFile.write
def slow(self, data):
    time.sleep(0.05)
    return own_write(self, data)
envelope.HashingFile.write = slow
"""


def test_ten_presses_during_a_save_do_no_harm(zygote, tmp_path):
    """They say how far it is; the save ends, and so does the process, with the code of a stop."""
    script = written(tmp_path, width=500_000, body="print('NOW', flush=True)")
    script.write_text(SLOW_WRITE + script.read_text(encoding="utf-8"), encoding="utf-8")
    process = zygote.start(script, cwd=tmp_path)
    process.until("NOW")
    for _ in range(10):
        process.signal(STOP)
        time.sleep(0.1)
    assert process.wait() == 128 + STOP, process.output()
    assert "% of" in process.output() or "put together" in process.output()
    assert list((tmp_path / "ck").glob("EMERGENCY_*"))
    assert not list((tmp_path / "ck").glob(".tmp*"))


def test_workers_that_hang_do_not_keep_the_process(zygote, tmp_path):
    """An exception in the loop ends the process, whatever its workers are doing."""
    script = written(tmp_path, workers=2, hang_at=0, hang=HANGING_WORKER, body="raise ValueError('mine')")
    began = time.monotonic()
    process = zygote.start(script, "hang", cwd=tmp_path)
    if process.wait(20) != 1:
        raise AssertionError(process.output())
    assert "ValueError: mine" in process.output()
    assert time.monotonic() - began < 15


@needs_posix("SIGHUP, and processes that are started with it ignored")
def test_nohup_is_respected(zygote, tmp_path):
    """Where SIGHUP is ignored on purpose, it stays ignored."""
    script = written(tmp_path, body="time.sleep(0.1 * (guard.step == 2))")
    process = zygote.start(script, cwd=tmp_path, ignore=(signal.SIGHUP,))
    process.until("step 2")
    process.signal(signal.SIGHUP)
    assert process.wait() == 0, process.output()
    assert "the end" in process.output()


def environment(**more):
    import os

    return {**os.environ, "PYTHONPATH": str(SOURCE), **more}


@needs_posix("SIGHUP")
def test_a_closed_terminal_saves_and_leaves(tmp_path):
    """The reader of standard output goes away, then SIGHUP comes: a print of the loop's own does not spoil it."""
    script = written(tmp_path, body="time.sleep(0.3)")
    process = subprocess.Popen(
        [sys.executable, script], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while b"step 2" not in process.stdout.readline():
        pass
    process.stdout.close()
    process.send_signal(signal.SIGHUP)
    assert process.wait(30) == 128 + signal.SIGHUP
    assert list((tmp_path / "ck").glob("EMERGENCY_*"))


def test_cp1252_and_an_emoji_in_the_folder(tmp_path):
    """A terminal that cannot show the folder's name fails nothing."""
    script = written(tmp_path, folder="ckpt_🎨_ł")
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING="cp1252"),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ckpt_🎨_ł" / "checkpoint_epoch_002.pth").exists()
    assert b"saved" in done.stdout


HOLD = """
import sys, time
from pathlib import Path
from ganguard.store.lock import BACKUP, REMOVAL, Lock
for folder in sys.argv[1:]:
    Path(folder).mkdir(exist_ok=True)
with Lock(Path(sys.argv[1]), REMOVAL), Lock(Path(sys.argv[2]), BACKUP):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("presses", [0, 1, 3])
def test_law_8_locks_of_another_process_keep_neither_the_training_nor_who_wants_to_leave(zygote, tmp_path, presses):
    """The cleanup and the backup wait for locks that nobody lets go; the run ends all the same, in its own time."""
    (tmp_path / "hold.py").write_text(HOLD)
    other = zygote.start(tmp_path / "hold.py", tmp_path / "ck", tmp_path / "backups", cwd=tmp_path)
    other.until("held")
    options = 'save_every_batches=1, keep=1, backups=BackupPlan(every_s=1, keep=1, folder=Path("backups"))'
    body = "time.sleep(100 * (guard.step == 2 and presses == 3)); time.sleep(0.05)"
    script = written(tmp_path, options=options, body=body)
    imports = "from pathlib import Path\nfrom ganguard.store.scheduled import BackupPlan\n"
    script.write_text(f"{imports}presses = {presses}\n{script.read_text()}")
    process = zygote.start(script, cwd=tmp_path)
    process.until("checkpoint_epoch_001_batch_00002")
    time.sleep(1)
    for _ in range(presses):
        process.signal(signal.SIGINT)
        time.sleep(0.1)
    assert process.wait(60) == (130 if presses else 0), process.output()
    if presses != 3:  # three presses leave on the spot
        assert "A backup was given up" in process.output()
    other.signal(signal.SIGTERM)
