"""Whatever fails in a data worker ends the training in words, with what was trained on disk: never a wait for ever."""

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
import json, multiprocessing, os, resource, signal, sys, time
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset
from ganguard import Guard

KIND = ""

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
        return fail(item) if index == 24 else item

class Stream(IterableDataset):
    def __iter__(self):
        return (Items()[index] for index in range(40))

def collate(items):
    # In memory of its own, where torch's collate uses shared memory in a worker.
    tensors = [item[0] if isinstance(item, tuple) else item for item in items]
    return torch.stack(tensors), [item[1] for item in items if isinstance(item, tuple)]

def init(worker):
    if KIND == "worker_init_fn":
        raise ValueError("init is broken")

def train(kind, data, folder):
    global KIND
    KIND, steps = kind, 0
    torch.manual_seed(0)
    net = torch.nn.Linear(2, 1)
    opt = torch.optim.SGD(net.parameters(), 1e-4)
    workers = 1 if data == "stream" else 2
    loader = DataLoader(Stream() if data == "stream" else Items(), 4, num_workers=workers, collate_fn=collate,
                        worker_init_fn=init, persistent_workers=data == "persistent")
    with Guard(folder, {"net": net, "opt": opt}) as guard:
        for epoch in guard.epochs(2):
            for x, _ in guard.batches(loader):
                steps = guard.step + 1
                opt.zero_grad()
                net(x + 0.1 * torch.randn(2)).square().mean().backward()
                opt.step()
                if kind == "killed in mid-step" and guard.step == 3:
                    multiprocessing.active_children()[0].kill()
                    time.sleep(0.1)
                with open(f"{folder}.steps", "w") as file:
                    file.write(str(steps))

if __name__ == "__main__":
    for word in sys.argv[1:]:
        kind, _, data = word.partition("/")
        folder = word.replace(" ", "_").replace("/", "_")
        try:
            train(kind, data, folder)
        except Exception as error:
            with open(f"{folder}.error", "w") as file:
                file.write(f"{type(error).__name__}: {error}")
"""
LARGE_BATCHES = ["--img-size", 64, "--start-train-at-img-size", 64, "--batch-sizes", "1,1,1,1,64"]
FAILURES = {
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
LIKEWISE = [
    f"{kind}/{data}"
    for kind in ("exception that cannot be pickled", "batch that cannot be pickled", "killed")
    for data in ("stream", "persistent")
]


def start(zygote, cwd, *words):
    """One process that trains once for each word, from where its folder is, in a small shared memory."""
    script = cwd / "loop.py"
    script.write_text(SMALL_SHARED_MEMORY + LOOP)
    return ended(zygote.start(script, *words, cwd=cwd))[1]


def ended(process):
    """Its exit code and output."""
    code = process.wait(180)
    if code == 77:
        pytest.skip(f"no file system can be mounted here: {process.output()}")
    return code, process.output()


@pytest.fixture(scope="module")
def failed(zygote, tmp_path_factory):
    """The folder in which every failure was met once."""
    cwd = tmp_path_factory.mktemp("failed")
    output = start(zygote, cwd, *FAILURES, *LIKEWISE)
    print(output)
    return cwd


@pytest.mark.parametrize("failure", [*FAILURES, *LIKEWISE])
def test_what_fails_in_a_worker_ends_a_loop_in_words_and_saved(failed, failure):
    """A loop that is not ours: WorkerFailed with the cure, and a checkpoint of the last step."""
    name = failure.replace(" ", "_").replace("/", "_")
    told = (failed / f"{name}.error").read_text()
    assert told.startswith("WorkerFailed: ")
    assert FAILURES[failure.partition("/")[0]] in told
    assert "num_workers=0" in told
    if failure != "worker_init_fn":
        (emergency,) = (failed / name).glob("EMERGENCY_*.pth")
        steps = int((failed / f"{name}.steps").read_text())
        assert torch.load(emergency, weights_only=True)["progress"]["step"] == steps > 0


def test_once_mended_it_ends_as_if_nothing_had_failed(zygote, failed):
    """Bit for bit."""
    for name in ("exception", "killed", "killed in mid-step"):
        (failed / name.replace(" ", "_")).rename(failed / f"mended_{len(name)}")
    names = [f"mended {len(name)}" for name in ("exception", "killed", "killed in mid-step")]
    start(zygote, failed, "whole", *names)
    whole, *mended = (
        torch.load(failed / name.replace(" ", "_") / "checkpoint_epoch_002.pth", weights_only=True)
        for name in ("whole", *names)
    )
    for one in mended:
        assert all(torch.equal(one["net"][key], whole["net"][key]) for key in whole["net"])
        assert torch.equal(one["random"]["torch"], whole["random"]["torch"])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("gan.py", ["--data", "fashion-mnist-mini", "--limit-images", 2048, "--width", 4, "--batch-size", 1024]),
        ("progan_local.py", ["--data-dir", "emoji", "--limit-images", 128, "--in-channels", 4, *LARGE_BATCHES]),
    ],
)
def test_the_trainers_end_where_shared_memory_is_too_small(zygote, tmp_path, command, words):
    """As in a container: exit code 5, and what to do."""
    script = tmp_path / "small.py"
    script.write_text(COMMAND)
    code, output = ended(zygote.start(script, ROOT / command, *words, "--workers", 2, "--threads", 1, cwd=tmp_path))
    assert code == 5, output
    assert "Traceback" not in output
    assert all(words in output for words in ("shared memory", "--shm-size", "--workers 0"))
