"""Real processes for tests, started in milliseconds: a server that has imported torch forks one for each.

Where nothing can be forked, a process that has imported torch waits for each job, and the next one is on its way.
Each is the leader of a session of its own, runs a script as ``__main__`` and writes to a file.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from systems import OWN_GROUP, WINDOWS, send

_TIMEOUT_S = 240 if WINDOWS else 60  # there, each data worker imports torch anew
SOURCE = Path(__file__).parents[2] / "src"


class Process:
    """One script that runs; its output is in ``log``, its errors in ``errors``, which may be the same file.

    Args:
        ended: the exit code once it has one, or None after so many seconds.
    """

    def __init__(self, ended: Callable[[float], int | None], pid: int, job: dict) -> None:
        self._ended = ended
        self.pid = pid
        self.log = Path(job["log"])
        self.errors = Path(job["errors"])
        self.code: int | None = None

    def wait(self, timeout: float = _TIMEOUT_S) -> int:
        """The exit code, negative for a signal that ended it."""
        if self.code is None:
            self.code = self._ended(timeout)
        assert self.code is not None, f"still runs after {timeout} s:\n{self.output()}"
        return self.code

    def output(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def until(self, text: str, timeout: float = _TIMEOUT_S) -> None:
        """Return once ``text`` was printed."""
        deadline = time.monotonic() + timeout
        while text not in self.output():
            ended = self._ended(0.01)
            self.code = ended if self.code is None else self.code
            assert self.code is None, f"ended with {self.code} before it printed {text!r}:\n{self.output()}"
            assert time.monotonic() < deadline, f"{text!r} was not printed:\n{self.output()}"

    def signal(self, number: int) -> None:
        send(self.pid, number)

    def signal_group(self, number: int) -> None:
        send(self.pid, number) if WINDOWS else os.killpg(self.pid, number)


class Zygote:
    """Forks. Use with ``with``."""

    def __enter__(self) -> Zygote:
        self._server = _begin("forks")
        self._pids: set[int] = set()
        self._count = 0
        return self

    def __exit__(self, *error) -> None:
        for pid in self._pids:
            with contextlib.suppress(OSError):
                os.killpg(pid, signal.SIGKILL)
        self._server.stdin.close()
        self._server.wait(10)

    def ask(self, job: dict) -> dict:
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        if answer.get("code") is not None:
            self._pids.discard(job["wait"])
        return answer

    def start(
        self,
        script: Path,
        *words: object,
        cwd: Path,
        uid: int = 0,
        ignore: tuple[int, ...] = (),
        apart: Path | None = None,
    ) -> Process:
        """Run a script.

        Args:
            cwd: its folder, where its output goes too.
            uid: whose process it is.
            ignore: signals that it is started with ignored.
            apart: another folder for the output, with the errors in a file of their own.
        """
        self._count += 1
        job = _job(self._count, script, words, cwd, uid, ignore, apart)
        pid = self.ask(job)["pid"]
        self._pids.add(pid)
        return Process(lambda timeout: self.ask({"wait": pid, "timeout": timeout})["code"], pid, job)


class Waiting:
    """The same where nothing can be forked."""

    def __enter__(self) -> Waiting:
        self._started = [_begin("waits")]
        return self

    def __exit__(self, *error) -> None:
        for process in self._started:
            process.kill()
            process.wait(10)

    def start(self, script: Path, *words: object, cwd: Path, uid: int = 0, ignore: tuple[int, ...] = ()) -> Process:
        job = _job(len(self._started), script, words, cwd, uid, ignore)
        process = self._started[-1]
        process.stdout.readline()
        self._started.append(_begin("waits"))
        process.stdin.write(json.dumps(job) + "\n")
        process.stdin.flush()

        def ended(timeout: float) -> int | None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                return process.wait(timeout)
            return None

        return Process(ended, process.pid, job)


def _begin(how: str) -> subprocess.Popen:
    path = f"{SOURCE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    environment = {"PYTHONIOENCODING": "utf-8", **os.environ, "PYTHONPATH": path}
    own = OWN_GROUP if how == "waits" else {}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, __file__, how], text=True, env=environment, **pipes, **own)


def _job(
    number: int, script: Path, words: tuple, cwd: Path, uid: int, ignore: tuple[int, ...], apart: Path | None = None
) -> dict:
    log = (apart or cwd) / f"output_{number}.txt"
    errors = log.with_name(f"errors_{number}.txt") if apart else log
    for file in (log, errors):
        file.touch()
        file.chmod(0o666)
    job = {"script": str(script), "words": [str(w) for w in words], "cwd": str(cwd)}
    return {**job, "log": str(log), "errors": str(errors), "uid": uid, "ignore": list(ignore)}


def _warm_up() -> None:
    import torch

    import ganguard.training.cgan  # noqa: F401

    weight = torch.nn.Parameter(torch.zeros(1))
    weight.grad = torch.zeros(1)
    torch.optim.Adam([weight]).step()  # what torch imports only then takes seconds


def _import_for_all() -> None:
    """What most trainings come to need: pictures, curves, event files."""
    for name in (
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
        "tensorboard.summary.writer.event_file_writer",
        "torchvision.utils",
    ):
        importlib.import_module(name)


def _serve() -> dict:
    """Answer until the input ends; returns, in a forked child, the job that it is to do."""
    for line in sys.stdin:
        job = json.loads(line)
        answer = {}
        if "wait" in job:
            answer["code"] = _code(job["wait"], job["timeout"])
        else:
            pid = os.fork()
            if pid == 0:
                return job
            answer["pid"] = pid
        print(json.dumps(answer), flush=True)
    sys.exit()


def _code(pid: int, timeout: float) -> int | None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            return None
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > deadline:
            return None
        time.sleep(0.005)


def _become(job: dict) -> None:
    if not WINDOWS:
        os.setsid()
    output = os.open(job["log"], os.O_WRONLY)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output if job["errors"] == job["log"] else os.open(job["errors"], os.O_WRONLY), 2)
    os.chdir(job["cwd"])
    for number in job["ignore"]:
        signal.signal(number, signal.SIG_IGN)
    if job["uid"]:
        os.setgroups([])
        os.setgid(job["uid"])
        os.setuid(job["uid"])
    sys.argv = [job["script"], *job["words"]]
    sys.orig_argv = [sys.executable, *sys.argv]
    sys.path[0] = str(Path(job["script"]).parent)


if __name__ == "__main__":
    import runpy

    _warm_up()
    if sys.argv[1] == "waits":
        print("ready", flush=True)
        todo = json.loads(sys.stdin.readline())
    else:
        _import_for_all()
        todo = _serve()
    _become(todo)
    runpy.run_path(todo["script"], run_name="__main__")
