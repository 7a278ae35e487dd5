"""Laws 1 and 9 under kill -9: after it there is the whole new checkpoint or the old ones, and every move is finished.

A real process is killed by ``strace`` as it enters the N-th system call of a kind, for each kind and every N; and
at random instants.
"""

from __future__ import annotations

import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import archive, damage, python, save, save_pair, start, tree
from systems import remove, remove_tree

from ganguard.store import durable, envelope, names, resume, runfile
from ganguard.store.catalog import Catalog
from ganguard.store.lock import Lock

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
NAMES = "rename,renameat,renameat2"
CALLS = ("write", "fsync", NAMES, "chmod,fchmod,fchmodat", "link,linkat", "unlink,unlinkat")

SAVE = """
import sys
from pathlib import Path
from ganguard.store import aliases, commit, names, removal
from ganguard.store.retention import Policy
from ganguard.store.summary import Kind
from stores import part, summary
folder, data = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
parts = [part(summary(3, name="checkpoint_epoch_003.pth"), data)]
if sys.argv[3] == "pair":
    critic = summary(3, kind=Kind.COMPANION, name="critic_epoch_003.pth")
    parts = [part(critic, data[::-1][100:] + data), part(summary(3, name="generator_epoch_003.pth"), data)]
entry = commit.commit(folder, parts).head
Path(sys.argv[2] + ".saved").touch()
aliases.point(folder / names.LATEST, entry.path)
removal.prune(folder, Policy(keep_latest=2, keep_every=0))
"""
START = """
import sys
from pathlib import Path
from ganguard.store import resume
folder = Path(sys.argv[1])
asked = {"file": Path(sys.argv[3])} if len(sys.argv) > 3 else {}
asked |= {sys.argv[2]: True} if sys.argv[2] != "auto" else {}
resume.carry_out(resume.plan(folder, resume.Request(**asked)))
"""


def killed_at_each(code: str, arguments: tuple[object, ...], calls: tuple[str, ...], prepare) -> Iterator[str]:
    """Run ``code`` again and again, killed one system call later each time; yields after every kill."""
    for call in calls:
        for nth in range(1, 60):
            prepare()
            inject = f"inject={call}:signal=KILL:when={nth}"
            before = ("strace", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", inject)
            process = python(code, *arguments, before=before)
            _, errors = process.communicate(timeout=60)
            if process.returncode == 0:
                break
            assert process.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), errors
            yield f"{call} {nth}"
        else:
            pytest.fail("it never got to its end")


@needs_strace
@pytest.mark.parametrize(("kind", "calls"), [("single", ("write", "fsync", NAMES)), ("pair", CALLS)])
def test_law_1_killed_at_any_system_call_of_a_save(tmp_path, kind, calls):
    folder, data = tmp_path / "checkpoints", tmp_path / "archive"
    data.write_bytes(archive(3))
    marker = Path(f"{data}.saved")
    saving = save_pair if kind == "pair" else save

    def prepare():
        remove_tree(folder)
        marker.unlink(missing_ok=True)
        for epoch in (1, 2):
            saving(folder, epoch)

    prepare()
    old = tree(folder)
    points = 0
    for point in killed_at_each(SAVE, (folder, data, kind), calls, prepare):
        points += 1
        with Lock(folder):
            durable.clear_temporaries(folder)
            plan, path, _ = start(folder)
        epoch = plan.start.summary.epoch
        assert epoch == 3 or (epoch == 2 and not marker.exists()), point
        there = Catalog.of(folder)
        assert envelope.verify(path)["epoch"] == epoch
        companions = there.companions(plan.start)
        assert [envelope.verify(c.path)["epoch"] for c in companions] == [epoch] * (kind == "pair"), point
        now = tree(folder)
        assert not [name for name in now if durable.TEMPORARY_PREFIX in name]
        pruned = {name for name in old if "epoch_001" in name} if epoch == 3 else set()
        assert all(now[name] == content for name, content in old.items() if name not in pruned), point
        assert not there.orphans, point
        aside = list((folder / names.SET_ASIDE).rglob("*.pth"))
        # Never half a file; of a pair, a second file whose first is not written yet, or was removed already.
        assert {envelope.verify(p)["epoch"] for p in aside} <= {1, 3}, point
        assert kind == "pair" or not aside, point
    assert points >= 9


def test_law_1_killed_at_random_instants_while_saving(tmp_path):
    code = """
import sys
from pathlib import Path
from ganguard.store import aliases, commit, names
from stores import part, summary
folder, data = Path(sys.argv[1]), Path(sys.argv[2]).read_bytes()
for epoch in range(int(sys.argv[3]), 10_000):
    entry = commit.commit(folder, [part(summary(epoch), data[:200] + b"%08d" % epoch + data[208:])]).head
    print(epoch, flush=True)
    aliases.point(folder / names.LATEST, entry.path)
"""
    folder, data = tmp_path / "checkpoints", tmp_path / "archive"
    middle = archive(tensors=60)
    data.write_bytes(middle)
    draw = random.Random(4)
    newest = 0
    for _ in range(12):
        process = python(code, folder, data, newest + 1)
        reported = process.stdout.readline()
        time.sleep(draw.uniform(0, 0.04))
        process.kill()
        reported += process.communicate()[0]
        told = int(reported.split()[-1])
        durable.clear_temporaries(folder)
        plan, path, _ = start(folder)
        newest = plan.start.summary.epoch
        assert newest in (told, told + 1)
        assert envelope.verify(path)
        assert Catalog.of(folder).entries[-1].summary.epoch == newest  # the alias, repaired
        assert not list(folder.glob(f"{durable.TEMPORARY_PREFIX}*"))
        assert not (folder / names.SET_ASIDE).exists()


def outcome(folder: Path) -> tuple[set[bytes], list[bytes], int, tuple[str, ...]]:
    """What counts after a start: what lies in the folder, what lies aside, the branch, what is announced."""
    aside = sorted(p.read_bytes() for p in (folder / names.SET_ASIDE).rglob("*.pth"))
    run = runfile.read(folder)
    return {p.read_bytes() for p in folder.glob("*.pth")}, aside, len(run.lineage), run.pending_files


@needs_strace
@pytest.mark.parametrize("asked", ["branch", "afresh", "foreign", "damaged"])
def test_law_9_killed_at_any_system_call_of_a_start_the_same_command_finishes_it(tmp_path, asked):
    folder = tmp_path / "checkpoints"
    template = tmp_path / "template"
    run = start(template)[0].run
    for epoch in range(1, 5):
        save(template, epoch, run=run.run, alias=True)
    foreign = folder / "theirs.pth"
    if asked == "foreign":
        save(template, 8, run="other", name="theirs.pth")
    if asked == "damaged":
        damage(template / "checkpoint_epoch_004.pth")
        shutil.copy(template / "checkpoint_epoch_004.pth", template / "keep")
        remove(template / names.LATEST)
    second = folder / "checkpoint_epoch_002.pth"
    request, arguments = {
        "branch": ({"branch": True, "file": second}, ("branch", second)),
        "afresh": ({"afresh": True}, ("afresh",)),
        "foreign": ({"file": foreign}, ("auto", foreign)),
        "damaged": ({}, ("auto",)),
    }[asked]

    def prepare():
        remove_tree(folder)
        shutil.copytree(template, folder, copy_function=shutil.copy2)

    prepare()
    everything = sorted(set(tree(folder).values()))
    plan, _, _ = start(folder, **request)
    expected = outcome(folder)
    calls = (NAMES, "fsync", "write") if asked == "foreign" else (NAMES, "write")
    points = 0
    for point in killed_at_each(START, (folder, *arguments), calls, prepare):
        points += 1
        again, path, _ = start(folder, **request)
        assert (again.start is None) == (plan.start is None), point
        if path is not None:
            assert envelope.verify(path)["digest"] == plan.start.digest, point
        now = outcome(folder)
        assert now[0] == expected[0], point
        assert set(now[1]) == set(expected[1]), point
        assert now[3] == (), point
        assert sorted(set(tree(folder).values())) == everything, point
        settled = resume.plan(folder, resume.Request())  # and from here on without the flags
        assert (settled.start.digest if settled.start else None) == (plan.start.digest if plan.start else None), point
    assert points >= (2 if asked == "damaged" else 6)


@needs_strace
def test_law_9_killed_in_a_start_afresh_the_plain_command_never_mixes_two_runs(tmp_path):
    folder = tmp_path / "checkpoints"

    def prepare():
        remove_tree(folder)
        run = start(folder)[0].run
        for epoch in (1, 2, 3):
            save(folder, epoch, run=run.run)

    for point in killed_at_each(START, (folder, "afresh"), (NAMES,), prepare):
        plan, path, _ = start(folder)
        if plan.start is None:
            assert not list(folder.glob("*.pth")), point
            assert len(list((folder / names.SET_ASIDE).rglob("checkpoint_epoch_*.pth"))) == 3
        else:
            assert path.name == "checkpoint_epoch_003.pth", point
            assert len(list(folder.glob("checkpoint_epoch_*.pth"))) == 3
