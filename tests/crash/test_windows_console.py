"""Windows' consoles: a window that is closed, Ctrl+C while workers start. The console's own routine is run for real."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "win32", reason="consoles are Windows'")

SOURCE = Path(__file__).parents[2] / "src"
# Windows runs kernelbase's CtrlRoutine in a new thread of the process; after a closed window it waits five seconds for
# that, and ends the process.
CONSOLE = """
import ctypes, sys, threading, time
kernel = ctypes.windll.kernel32
kernel.GetModuleHandleW.restype = kernel.GetProcAddress.restype = kernel.CreateThread.restype = ctypes.c_void_p
kernel.GetProcAddress.argtypes = [ctypes.c_void_p, ctypes.c_char_p]
kernel.CreateThread.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *3 * [ctypes.c_void_p], ctypes.c_void_p]
kernel.WaitForSingleObject.argtypes = kernel.TerminateProcess.argtypes = [ctypes.c_void_p, ctypes.c_uint]

def event(number):
    routine = kernel.GetProcAddress(kernel.GetModuleHandleW("kernelbase.dll"), b"CtrlRoutine")
    thread = kernel.CreateThread(None, 0, routine, number, None, None)
    kernel.WaitForSingleObject(thread, 5000)

def close(number):
    event(number)
    kernel.TerminateProcess(ctypes.c_void_p(-1), 99)

import torch
from torch.utils.data import DataLoader, Dataset
from ganguard import Guard

CASE = sys.argv[1]
guard = None

class Items(Dataset):
    def __len__(self):
        return 100
    def __getitem__(self, index):
        if CASE == "waiting" and guard.step == 2:
            time.sleep(1000)
        return torch.zeros(2)
    def __getstate__(self):
        event(0)  # while a worker starts
        return {}

def main():
    global guard
    net = torch.nn.Linear(2, 1)
    opt = torch.optim.SGD(net.parameters(), 0.01)
    workers = 1 if CASE == "starting" else 0
    with Guard("ck", {"net": net, "opt": opt}, save_every_batches=1 if workers else 0) as guard:
        for epoch in guard.epochs(1):
            for x in guard.batches(DataLoader(Items(), 1, num_workers=workers)):
                opt.zero_grad()
                net(x).sum().backward()
                opt.step()
                if guard.step == 1 and not workers:
                    threading.Thread(target=close, args=[int(sys.argv[2])], daemon=True).start()
                    time.sleep(0.5)
                time.sleep(0.1)
    print("the end", flush=True)

if __name__ == "__main__":
    main()
"""


def ended(cwd, *words):
    (cwd / "loop.py").write_text(CONSOLE)
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    done = subprocess.run(
        [sys.executable, "loop.py", *words], cwd=cwd, env=environment, capture_output=True, timeout=500, check=False
    )
    return done.returncode, done.stdout.decode(errors="replace") + done.stderr.decode(errors="replace")


@pytest.mark.parametrize(("case", "event"), [("running", 2), ("waiting", 2), ("running", 5), ("running", 6)])
def test_a_closed_window_a_log_off_and_a_shutdown_are_a_stop(tmp_path, case, event):
    """Saved within Windows' five seconds, while it waits for data too."""
    code, output = ended(tmp_path, case, str(event))
    assert code == 130, output
    assert list((tmp_path / "ck").glob("EMERGENCY_*.pth")), output


def test_ctrl_c_while_workers_start_is_heard(tmp_path):
    """They never hear it themselves."""
    code, output = ended(tmp_path, "starting")
    assert code == 130, output
    assert "the end" not in output
    assert "Traceback" not in output
