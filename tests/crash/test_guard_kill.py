"""SIGKILL at any instant: a run goes on from not before its newest reported save, and ends bit-equal."""

import os
import random
import re
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "exact"))
from loops import journal, same

SCRIPT = """
import random, sys
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from ganguard import Guard

class Items(Dataset):
    def __len__(self):
        return 60
    def __getitem__(self, index):
        return torch.randn(2) + random.random() + np.random.rand()

def main(workers):
    torch.manual_seed(0); np.random.seed(0); random.seed(0)
    net = torch.nn.Linear(2, 3)
    opt = torch.optim.Adam(net.parameters(), 0.01)
    decay = torch.optim.lr_scheduler.ExponentialLR(opt, 0.9)
    loader = DataLoader(Items(), batch_size=3, shuffle=True, num_workers=workers)
    with Guard("ck", {"net": net, "opt": opt, "decay": decay}, save_every_batches=2) as guard:
        for epoch in guard.epochs(4):
            for x in guard.batches(loader):
                loss = net(x + 0.1 * torch.randn(2)).square().mean()
                opt.zero_grad(); loss.backward(); opt.step()
                guard.log(loss=loss)
            decay.step()
            guard.score(fid=random.random())

if __name__ == "__main__":
    main(int(sys.argv[1]))
"""
RUNS = int(os.environ.get("GANGUARD_KILLS", "20"))
_SAVED = re.compile(r"^saved ck[\\/]checkpoint_epoch_(\d+)(?:_batch_(\d+))?(?:_\d+)?\.pth", re.MULTILINE)
_BATCHES = 20  # an epoch


def outcome(cwd):
    held = torch.load(cwd / "ck" / "checkpoint_epoch_004.pth", weights_only=True)
    del held["ganguard"]
    return {**held, "journal": journal(cwd / "ck")}


@pytest.fixture(scope="module")
def whole(zygote, tmp_path_factory):
    cwd = tmp_path_factory.mktemp("whole")
    script = cwd / "loop.py"
    script.write_text(SCRIPT)
    process = zygote.start(script, 0, cwd=cwd)
    assert process.wait() == 0, process.output()
    return outcome(cwd)


def newest_reported(text):
    steps = [
        (int(epoch) - 1) * _BATCHES + int(batch) if batch else int(epoch) * _BATCHES
        for epoch, batch in _SAVED.findall(text)
    ]
    return max(steps, default=0)


def resumed_from(text):
    found = re.search(r"resumed from step (\d+)", text)
    return int(found.group(1)) if found else 0


@pytest.mark.parametrize("run", range(RUNS))
def test_killed_anywhere(zygote, whole, tmp_path, run):
    """Killed up to three times, every fourth run with two workers, which may still be dying at the next start."""
    chance = random.Random(run)
    script = tmp_path / "loop.py"
    script.write_text(SCRIPT)
    reported = 0
    for _ in range(chance.randint(1, 3)):
        process = zygote.start(script, 2 if run % 4 == 3 else 0, cwd=tmp_path)
        try:
            process.wait(chance.uniform(0.02, 0.6))
        except AssertionError:
            process.signal(9)
            process.wait()
        text = process.output()
        assert "in use" not in text
        if "Checkpoints in" in text:
            assert resumed_from(text) >= reported, text
        reported = max(reported, newest_reported(text))
    process = zygote.start(script, 0, cwd=tmp_path)
    assert process.wait() == 0, process.output()
    assert resumed_from(process.output()) >= reported or "All 4 epochs are done" in process.output()
    assert not same(outcome(tmp_path), whole)
