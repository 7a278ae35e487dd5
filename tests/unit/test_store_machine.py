"""Laws 3 and 9 against a model: an automatic start goes on from the newest valid checkpoint of the current line.

The model knows nothing of branches, lineages or run files: only which saves lie on the line, in order, and which
of them are damaged. Whatever is done, no checkpoint is ever deleted.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import archive, damage, part, start, summary
from systems import remove_tree

from ganguard.errors import CheckpointError, DamagedCheckpoint, NoCheckpoint
from ganguard.store import aliases, commit, durable, names, resume
from ganguard.store.runfile import Run
from ganguard.store.summary import Kind, Origin

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills real processes")


class Folder(RuleBasedStateMachine):
    """One folder, one training after another in it."""

    @initialize()
    def begin(self):
        self.folder = Path(tempfile.mkdtemp())
        self.line: list[int] = []  # saves on the current line, by their number
        self.step = {0: 0}  # of each save
        self.damaged: set[int] = set()
        self.count = 0
        self.start()

    def teardown(self):
        remove_tree(self.folder)

    # What is really there.

    def data(self, number: int) -> bytes:
        return archive()[:200] + b"%08d" % number + archive()[208:]

    def number(self, path: Path) -> int:
        return int(path.read_bytes()[200:208])

    def where(self, number: int) -> Path:
        """A versioned file that holds a save, in the folder or set aside."""
        files = [p for p in self.folder.rglob("*.pth") if p.name != names.LATEST and self.number(p) == number]
        return min(files, key=lambda p: len(p.parts))

    def part(self) -> commit.Part:
        step = self.at + 10
        about = summary(
            step // 10,
            name=names.epoch_end(step // 10) if step % 20 else f"EMERGENCY_checkpoint_{step}.pth",
            kind=Kind.EPOCH if step % 20 else Kind.EMERGENCY,
            run=self.run.run,
            branch=self.run.branch,
            lineage=self.run.lineage,
            step=step,
            origin=self.origin,
        )
        return part(about, self.data(self.count + 1))

    # What a training does.

    def start(self, **asked):
        """As a process that begins: locks, clears, plans, carries out."""
        durable.clear_temporaries(self.folder)
        plan, path, _told = start(self.folder, **asked)
        self.run: Run = plan.run
        found = plan.start.summary if plan.start else None
        self.origin: Origin | None = plan.origin or (found.origin if found else None)
        self.at = found.step if found else 0
        return self.number(path) if path else None

    def valid(self, since: int = 0) -> list[int]:
        return [n for n in self.line[since:] if n not in self.damaged]

    def forget_what_is_set_aside(self):
        newest = self.valid()[-1]
        self.line = self.line[: self.line.index(newest) + 1]

    @rule()
    def save(self):
        entry = commit.commit(self.folder, [self.part()]).head
        aliases.point(self.folder / names.LATEST, entry.path)
        self.count += 1
        self.at += 10
        self.line.append(self.count)
        self.step[self.count] = self.at

    @rule(cut=st.floats(0, 1))
    def killed_while_saving(self, cut):
        """A real process, killed with part of the file written; the run is then started anew."""
        whole = self.part()

        def dump(file):
            data = self.data(self.count + 1)
            file.write(data[: int(cut * len(data))])
            os.kill(os.getpid(), signal.SIGKILL)

        child = os.fork()
        if child == 0:
            commit.commit(self.folder, [commit.Part(summary=whole.summary, dump=dump, expected_bytes=1)])
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.WIFSIGNALED(status)
        self.goes_on()

    @rule()
    def goes_on(self):
        """The plain command: the heart of the matter."""
        if self.line and not self.valid():
            with pytest.raises(NoCheckpoint):
                self.start()
            self.afresh()
            return
        found = self.start()
        assert found == (self.valid()[-1] if self.line else None)
        if self.line:
            self.forget_what_is_set_aside()

    @precondition(lambda self: self.valid())
    @rule()
    def newest_is_damaged(self):
        newest = self.valid()[-1]
        for path in list(self.folder.glob("*.pth")):  # an alias is damaged along, as a link is
            if self.number(path) == newest:
                damage(path)
        self.damaged.add(newest)

    @rule()
    def afresh(self):
        assert self.start(afresh=True) is None
        self.line = []

    @precondition(lambda self: self.valid())
    @rule(data=st.data())
    def named(self, data):
        """A file on the line: its newest descendant that is good goes on."""
        chosen = data.draw(st.sampled_from(self.line))
        later = self.valid(self.line.index(chosen))
        if not later:
            with pytest.raises(DamagedCheckpoint):
                self.start(file=self.where(chosen))
            return
        assert self.start(file=self.where(chosen)) == later[-1]
        self.forget_what_is_set_aside()

    @precondition(lambda self: self.valid())
    @rule(data=st.data(), again=st.booleans())
    def branch(self, data, again):
        chosen = data.draw(st.sampled_from(self.valid()))
        for _ in range(1 + again):
            assert self.start(file=self.where(chosen), branch=True) == chosen
        self.line = self.line[: self.line.index(chosen) + 1]

    @invariant()
    def nothing_was_deleted(self):
        if self.count:
            there = {self.number(p) for p in self.folder.rglob("*.pth")}
            assert there >= set(range(1, self.count + 1))

    @invariant()
    def looking_agrees(self):
        """What ``plan`` says without being carried out."""
        with contextlib.suppress(CheckpointError):
            found = resume.plan(self.folder, resume.Request(), verified=True).start
            assert found is None or self.number(found.path) == self.valid()[-1]


Folder.TestCase.settings = settings(
    max_examples=25, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLaw3And9TheNewestValidOfTheLineWinsAndNothingIsDeleted = Folder.TestCase
