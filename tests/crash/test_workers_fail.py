"""Whatever fails in a data worker ends the training in words, with what was trained on disk: never a wait for ever."""

import re
import sys
from pathlib import Path

import pytest
import torch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks, and fills /dev/shm")

ROOT = Path(__file__).parents[2]
SMALL_SHARED_MEMORY = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def or_skip(failed):
    if failed:
        print("SKIP", os.strerror(ctypes.get_errno()), flush=True)
        os._exit(77)
or_skip(libc.unshare(0x00020000))  # CLONE_NEWNS
or_skip(libc.mount(b"none", b"/", None, 0x44000, None))  # MS_REC | MS_PRIVATE
or_skip(libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=900k"))
"""
COMMAND = SMALL_SHARED_MEMORY + "import runpy, sys\nsys.argv.pop(0)\nrunpy.run_path(sys.argv[0], run_name='__main__')\n"
LOOP = """
import os, resource, signal, sys, time
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from ganguard import Guard

KIND, FAILS_AT = sys.argv[1], 24

def fail(item):
    if KIND == "exception":
        raise ValueError("item 24 is broken")
    if KIND == "exception that cannot be pickled":
        class Local(Exception):
            pass
        raise Local("item 24 is broken")
    if KIND == "StopIteration":
        next(iter([]))
    if KIND == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if KIND == "bus error":
        os.kill(os.getpid(), signal.SIGBUS)
    if KIND == "exit":
        sys.exit(3)
    if KIND == "batch that cannot be pickled":
        return item, lambda: None
    if KIND == "shared memory":
        return item, torch.zeros(1_000_000)
    if KIND == "descriptors":
        soft = max(map(int, os.listdir("/proc/self/fd"))) + 40
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, soft))
        return item, [torch.zeros(1) for _ in range(100)]
    return item

class Items(Dataset):
    def __len__(self):
        return 40
    def __getitem__(self, index):
        item = torch.full((2,), float(index))
        return fail(item) if index == FAILS_AT else item

class Stream(IterableDataset):
    def __iter__(self):
        return (Items()[index] for index in range(40))

def collate(items):
    # In memory of its own, as torch's is not in a worker.
    tensors = [item[0] if isinstance(item, tuple) else item for item in items]
    return torch.stack(tensors), [item[1] for item in items if isinstance(item, tuple)]

def init(worker):
    if KIND == "worker_init_fn":
        raise ValueError("init is broken")

def main():
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    opt = torch.optim.SGD(net.parameters(), 1e-4)
    data = Stream() if "stream" in sys.argv else Items()
    loader = DataLoader(data, 4, num_workers=2 - data.__class__.__name__.count("Stream"), collate_fn=collate,
                        worker_init_fn=init, persistent_workers="persistent" in sys.argv)
    with Guard("ck", {"net": net, "opt": opt}) as guard:
        for epoch in guard.epochs(2):
            for x, _ in guard.batches(loader):
                opt.zero_grad()
                net(x + 0.1 * torch.randn(2)).square().mean().backward()
                opt.step()
                print("step", guard.step + 1, flush=True)
                if KIND == "killed in mid-step" and guard.step == 3:
                    import multiprocessing
                    worker = multiprocessing.active_children()[0]
                    worker.kill()
                    time.sleep(0.3)
                    print("the step ends", flush=True)

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def whole(zygote, tmp_path_factory):
    """The same training where nothing fails."""
    cwd = tmp_path_factory.mktemp("whole")
    (cwd / "loop.py").write_text(LOOP)
    assert zygote.start(cwd / "loop.py", "nothing", cwd=cwd).wait() == 0
    return torch.load(cwd / "ck/checkpoint_epoch_002.pth", weights_only=True)


def failed(zygote, cwd, kind, *words):
    """What the loop printed, which ended by WorkerFailed with what was trained on disk; and what it goes on from."""
    script = cwd / "loop.py"
    script.write_text((SMALL_SHARED_MEMORY if kind == "shared memory" else "") + LOOP)
    process = zygote.start(script, kind, *words, cwd=cwd)
    code, output = process.wait(40), process.output()
    if code == 77:
        pytest.skip(f"no file system can be mounted here: {output}")
    assert code == 1, output
    assert "ganguard.errors.WorkerFailed: " in output
    assert "num_workers=0" in output
    steps = len(re.findall(r"^ ?step \d+$", output, re.MULTILINE))
    if steps:
        (emergency,) = (cwd / "ck").glob("EMERGENCY_*.pth")
        assert torch.load(emergency, weights_only=True)["progress"]["step"] == steps
    return output


KINDS = {
    "exception": "ValueError: item 24 is broken",
    "exception that cannot be pickled": "item 24 is broken",
    "StopIteration": "StopIteration",
    "killed": "SIGKILL",
    "killed in mid-step": "SIGKILL",
    "bus error": "shared memory",
    "exit": "exit code 3",
    "batch that cannot be pickled": "pickle",
    "shared memory": "/dev/shm holds 921.6 kB",
    "descriptors": "ulimit -n",
    "worker_init_fn": "ValueError: init is broken",
}


@pytest.mark.parametrize("kind", KINDS)
def test_what_fails_in_a_worker_ends_a_loop_that_is_not_ours(zygote, tmp_path, whole, kind):
    """In words; typed again where it is mended, it ends bit for bit like a run in which nothing failed."""
    assert KINDS[kind] in failed(zygote, tmp_path, kind)
    process = zygote.start(tmp_path / "loop.py", "nothing", cwd=tmp_path)
    assert process.wait() == 0, process.output()
    ended = torch.load(tmp_path / "ck/checkpoint_epoch_002.pth", weights_only=True)
    assert all(torch.equal(ended["net"][key], whole["net"][key]) for key in whole["net"])


@pytest.mark.parametrize("kind", ["exception", "batch that cannot be pickled", "killed"])
@pytest.mark.parametrize("data", ["stream", "persistent"])
def test_likewise_with_an_iterable_data_set_and_with_workers_that_persist(zygote, tmp_path, kind, data):
    assert KINDS[kind] in failed(zygote, tmp_path, kind, data)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("gan.py", ["--data", "emoji", "--width", 4, "--fid-every", 0, "--sample-every", 0, "--batch-size", 128]),
        (
            "progan_local.py",
            ["--data-dir", "emoji", "--in-channels", 4, "--img-size", 64, "--batch-sizes", "4,4,4,4,64"],
        ),
    ],
)
def test_the_trainers_end_where_shared_memory_is_too_small(zygote, tmp_path, command, words):
    """As in a container: exit code 5, and what to do."""
    script = tmp_path / "small.py"
    script.write_text(COMMAND)
    process = zygote.start(script, ROOT / command, *words, "--workers", 2, "--threads", 1, cwd=tmp_path)
    code, output = process.wait(60), process.output()
    if code == 77:
        pytest.skip(f"no file system can be mounted here: {output}")
    assert code == 5, output
    assert "Traceback" not in output
    assert all(words in output for words in ("shared memory", "--shm-size", "--workers 0"))
