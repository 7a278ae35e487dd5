"""Reading a guide and doing what it says: its commands are run as they are typed, what it quotes is looked for.

Fences of a guide:

- ``sh``: commands, one a line.
- ``text``: what the commands above print. The lines must appear in this order, other lines may lie between them;
  ``…`` stands for what varies.
- Others are files for the commands that follow, or a tree; they are told apart by what stands before them.

What only a test needs is an HTML comment before the fence, ``<!-- test: … -->``, which a reader does not see:

- ``exit 3``: the exit code of the commands; 0 without it.
- ``stop after WORDS``: Ctrl+C soon after a line with these words. Pressed within a quarter of a second after a save,
  it is not answered, so it comes that much later and as long as that line took.
- ``kill after WORDS``: SIGKILL at once, as a power cut does it.
- ``also OPTIONS``: added to the commands, so that they take seconds. They are taken out of what is printed.
- ``make KIND PLACE``: before the commands; see ``_MAKERS``.
- ``file NAME``: this fence is that file.
- ``tree``: this fence names paths below the current folder that are there now.
- ``edit FILE``: each line of this fence takes the place of the line of FILE that sets the same name.
- ``disk FOLDER SIZE``: run at another place, where FOLDER is a disk of its own of that size.

A date and time in a command stand for those of the newest file of such a name.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from typed import REPOSITORY

SCRIPTS = ("gan.py", "checkpoint_manager.py", "progan_local.py")
_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
_DIRECTIVE = re.compile(r"^<!-- test: (.*?) -->$")
_INLINE = re.compile(r"`([^`\n]+)`")
_STAMP = re.compile(r"\d{8}_\d{6}")
_TIMEOUT_S = 240
_LATER_S = 0.4


@dataclass
class Fence:
    """One fence of a guide, with what the comments before it ask for."""

    line: int
    kind: str
    lines: list[str]
    exit: int | None = None
    stop: str = ""
    kill: str = ""
    also: list[str] = field(default_factory=list)
    make: list[list[str]] = field(default_factory=list)
    file: str = ""
    edit: str = ""
    tree: bool = False
    disk: list[str] = field(default_factory=list)

    @property
    def code(self) -> int:
        """The exit code that the commands must have."""
        if self.exit is not None:
            return self.exit
        return 128 + signal.SIGINT if self.stop else -signal.SIGKILL if self.kill else 0

    def ask(self, directive: str) -> None:
        """Take in what one comment says. Raises ValueError where it says nothing that is known."""
        word, _, rest = directive.partition(" ")
        if word == "exit":
            self.exit = int(rest)
        elif word in ("stop", "kill") and rest.startswith("after "):
            setattr(self, word, rest.removeprefix("after "))
        elif word == "also":
            self.also = shlex.split(rest)
        elif word == "make":
            self.make.append(rest.split())
        elif word in ("file", "edit") and rest:
            setattr(self, word, rest)
        elif word == "disk" and len(rest.split()) == 2:
            self.disk = rest.split()
        elif word == "tree" and not rest:
            self.tree = True
        else:
            raise ValueError(f"line {self.line}: no test knows what {directive!r} means")


def read(text: str) -> list[Fence]:
    """The fences of a guide, in order.

    Raises:
        ValueError: one of them would not be tested, or a comment is not understood or belongs to none.
    """
    fences, used = [], 0
    for found in _FENCE.finditer(text):
        indent, kind, body = found.groups()
        fence = Fence(text.count("\n", 0, found.start()) + 1, kind, [line[len(indent) :] for line in body.splitlines()])
        for line in reversed(text[: found.start()].splitlines()):
            if not (directive := _DIRECTIVE.match(line.strip())):
                break
            fence.ask(directive[1])
            used += 1
        if kind not in ("sh", "text") and not (fence.file or fence.edit or fence.tree):
            raise ValueError(f"line {fence.line}: nothing tests this fence of kind {kind!r}")
        fences.append(fence)
    if text.count("<!--") != used or text.count("```") != 2 * len(fences):
        raise ValueError("a comment belongs to no fence, or a fence is not closed")
    return fences


def commands(fences: list[Fence]) -> list[str]:
    return [line for fence in fences if fence.kind == "sh" for line in fence.lines]


def inline_commands(text: str) -> list[str]:
    """Commands that stand within sentences."""
    return [
        code for code in _INLINE.findall(_FENCE.sub("", text)) if re.match(r"(python\d?|tensorboard|ganguard) ", code)
    ]


def options(text: str) -> set[str]:
    """Every option that a guide's sentences name."""
    shown = re.sub("<!--.*?-->", "", _FENCE.sub("", text))
    return set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", shown))


class Place:
    """A folder in which the commands of a guide are typed, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.printed: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        for name in SCRIPTS:
            shutil.copy(REPOSITORY / name, folder)

    def do(self, fence: Fence) -> None:
        """Run, look up or write what a fence holds; an AssertionError names its line."""
        for kind, *words in fence.make:
            _MAKERS[kind](self.folder, *words)
        if fence.file:
            (self.folder / fence.file).write_text("\n".join([*fence.lines, ""]), encoding="utf-8")
        elif fence.edit:
            self._edit(self.folder / fence.edit, fence.lines)
        elif fence.tree:
            for line in filter(None, fence.lines):
                pattern = line.split("  ")[0].strip().replace("…", "*").rstrip("/")
                assert list(self.folder.glob(pattern)), f"line {fence.line}: {pattern} is not there"
        elif fence.kind == "sh":
            self._run_all(fence)
        else:
            self._look_for(fence)

    def _edit(self, file: Path, lines: list[str]) -> None:
        text = file.read_text(encoding="utf-8")
        for line in lines:
            name = re.escape(line.partition(" =")[0])
            text, count = re.subn(rf"^{name} = .*$", lambda _, line=line: line, text, flags=re.MULTILINE)
            assert count == 1, f"{file.name} does not set {name} once"
        file.write_text(text, encoding="utf-8")

    def _run_all(self, fence: Fence) -> None:
        self.printed = []
        for line in fence.lines:
            code, output = self._type(line, fence)
            self.printed += output
            text = "\n".join(output)
            assert code == fence.code, f"line {fence.line}: {line}\nended with {code}, not {fence.code}:\n{text}"
            assert "Traceback" not in text, f"line {fence.line}: {line}\n{text}"

    def _type(self, line: str, fence: Fence) -> tuple[int, list[str]]:
        program, *words = shlex.split(self._with_real_date(line))
        known = {"python": [sys.executable], "tensorboard": [sys.executable, "-m", "tensorboard.main"]}
        assert program in known, f"line {fence.line}: nothing runs {line!r}"
        process = subprocess.Popen(
            [*known[program], *words, *fence.also],
            cwd=self.folder,
            env={**os.environ, "PYTHONIOENCODING": "utf-8"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
        )
        limit = threading.Timer(_TIMEOUT_S, process.kill)
        limit.start()
        output, words, last = [], fence.stop or fence.kill, time.monotonic()
        try:
            for printed in process.stdout:
                output.append(self._as_typed(printed.rstrip("\n"), fence))
                since, last = time.monotonic() - last, time.monotonic()
                if words and words in printed:
                    time.sleep(since + _LATER_S if fence.stop else 0)
                    process.send_signal(signal.SIGINT if fence.stop else signal.SIGKILL)
                    words = ""
            return process.wait(), output
        finally:
            limit.cancel()
            process.kill()

    def _as_typed(self, printed: str, fence: Fence) -> str:
        """A line of output as it would be, had the guide's own words been typed."""
        return printed.replace(sys.executable, "python").replace(
            f" {shlex.join(fence.also)}" if fence.also else "\0", ""
        )

    def _with_real_date(self, line: str) -> str:
        def newest(word: str) -> str:
            folder, name = self.folder / Path(word).parent, Path(word).name
            folders = (folder, self.folder / "checkpoints") if len(Path(word).parts) == 1 else (folder,)
            found = [path for place in folders for path in place.glob(_STAMP.sub("*", name))]
            assert found, f"no file is called like {word}"
            return str(Path(word).with_name(max(found, key=lambda path: path.stat().st_mtime).name))

        return " ".join(newest(word) if _STAMP.search(word) else word for word in line.split(" "))

    def _look_for(self, fence: Fence) -> None:
        left = iter(self.printed)
        for line in fence.lines:
            pattern = ".*".join(map(re.escape, re.split(r" *… *", line.strip())))
            assert any(re.fullmatch(pattern, printed.strip()) for printed in left), (
                f"line {fence.line}: was not printed, or not in this order: {line}\n" + "\n".join(self.printed)
            )


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Within, ``folder`` is a disk of its own. Needs root on Linux."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _make_images(folder: Path, count: str, *places: str) -> None:
    for number, place in enumerate(places):
        (folder / place).mkdir(parents=True, exist_ok=True)
        for index in range(int(count)):
            Image.new("RGB", (60, 70), (25 * index % 256, 90 * number, 120)).save(folder / place / f"{index + 1}.jpg")


def _make_older(folder: Path, *places: str) -> None:
    """Files of an older script, whose networks are built otherwise."""
    weights = {"initial.1.weight": torch.zeros(8, 8, 4, 4), "initial.1.bias": torch.zeros(8)}
    for place in places:
        (folder / place).parent.mkdir(exist_ok=True)
        torch.save({"state_dict": weights, "optimizer": {"state": {}, "param_groups": []}}, folder / place)


def _damage(folder: Path, *patterns: str) -> None:
    """Change one byte in the middle of each file; of several names of one file, once."""
    done = set()
    for path in sorted(path for pattern in patterns for path in folder.glob(pattern)):
        if path.stat().st_ino not in done:
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 4
            path.chmod(0o644)
            path.write_bytes(content)
            done.add(path.stat().st_ino)
    assert done, f"nothing to damage: {patterns}"


_MAKERS: dict[str, Callable[..., None]] = {"images": _make_images, "older": _make_older, "damage": _damage}
