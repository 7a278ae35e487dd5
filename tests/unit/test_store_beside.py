"""Reading beside a running training: fixed names move on, old pairs go and new ones come, in the middle of a look."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import finished, python, save, save_on_shelf, save_pair
from systems import needs_posix, remove

from ganguard.cli import checkpoints
from ganguard.errors import SaveFailed
from ganguard.store import aliases, backup, durable, envelope, names, removal, resume, search
from ganguard.store.catalog import Catalog, read
from ganguard.store.lock import BACKUP, TRAINING, Lock
from ganguard.store.pair import HISTORY, Pair
from ganguard.store.retention import Policy
from ganguard.store.shelf import Shelf

SHELF = Pair(name="DRUSEN")


@pytest.fixture
def before_each_opening(monkeypatch):
    """Has something done just before every opening of a file, as a process beside this one may do it."""

    def install(act: Callable[[Path], None]) -> None:
        busy = threading.local()

        def acting_before(opened):
            def opening(path, *words, **more):
                if not getattr(busy, "acting", False):
                    busy.acting = True
                    try:
                        act(Path(path))
                    finally:
                        busy.acting = False
                return opened(path, *words, **more)

            return opening

        monkeypatch.setattr(Path, "open", acting_before(Path.open))
        monkeypatch.setattr(os, "open", acting_before(os.open))

    return install


def manage(words: list[str]) -> int:
    """The manager in this process; what it does to Ctrl+C is undone."""
    before = signal.getsignal(signal.SIGINT)
    try:
        return checkpoints.main(words)
    finally:
        signal.signal(signal.SIGINT, before)


def moves_on(alias: Path, files: list[Path]) -> Callable[[Path], None]:
    """Before each opening of ``alias`` it becomes another name of the next of ``files``."""
    following = cycle(files)

    def act(path: Path) -> None:
        if path.name == alias.name:
            assert aliases.point(alias, next(following)) is None

    return act


@pytest.fixture
def moving(tmp_path, before_each_opening):
    """The fixed name of a run of single files; every opening of it meets another checkpoint."""
    folder = tmp_path / "checkpoints"
    files = [save(folder, epoch, alias=True).path for epoch in (1, 2, 3)]
    before_each_opening(moves_on(folder / names.LATEST, files))
    return folder / names.LATEST


def test_an_alias_that_moves_on_is_not_taken_for_damaged(moving):
    for _ in range(4):
        assert envelope.verify(moving)
    assert manage(["--verify", "--checkpoint-dir", str(moving.parent)]) == 0


def test_an_entry_is_of_one_file_although_its_name_moves_on(moving):
    for _ in range(4):
        entry = read(moving)
        original = read(moving.with_name(entry.summary.name))
        assert (entry.inode == original.inode) == durable.read_only_protects(moving.parent)
        assert (entry.size, entry.digest) == (original.size, original.digest)


def test_an_alias_that_moves_on_is_backed_up(moving, tmp_path):
    for _ in range(4):
        (copy,) = backup.back_up(moving, tmp_path / names.BACKUPS)
        assert envelope.verify(copy)


REPLACING = """
import itertools, sys, time
from pathlib import Path
from ganguard.store import aliases
folder, until = Path(sys.argv[1]), time.monotonic() + 2
print("begins", flush=True)
for epoch in itertools.cycle((1, 2)):
    aliases.point(folder / "latest_checkpoint.pth", folder / f"checkpoint_epoch_00{epoch}.pth")
    if time.monotonic() > until:
        break
"""


def test_an_alias_that_another_process_replaces_all_the_time_is_verified_and_backed_up(tmp_path):
    """The same with nothing staged."""
    folder = tmp_path / "checkpoints"
    for epoch in (1, 2):
        save(folder, epoch, alias=True)
    other = python(REPLACING, folder)
    assert other.stdout.readline() == "begins\n"
    while other.poll() is None:
        for _ in range(50):
            envelope.verify(folder / names.LATEST)
        backup.back_up(folder / names.LATEST, tmp_path / names.BACKUPS)
    finished(other)


def test_a_file_that_another_process_holds_for_a_moment_is_whole(tmp_path, monkeypatch):
    """Windows refuses to open what is being renamed, or looked at by a virus scanner: that is no missing permission."""
    entry = save(tmp_path, 1)
    own, refused = os.open, []

    def refusing(path, *words, **more):
        if Path(path) == entry.path and len(refused) < 3:
            refused.append(path)
            raise PermissionError(13, "Permission denied", str(path))
        return own(path, *words, **more)

    monkeypatch.setattr(durable, "WINDOWS", True)
    monkeypatch.setattr(os, "open", refusing)
    assert envelope.verify(entry.path)["epoch"] == 1
    assert len(refused) == 3


def test_a_file_that_goes_while_a_folder_is_listed_is_not_there(tmp_path, before_each_opening):
    """Not one that cannot be read: a start would refuse to go on beside that."""
    folder = tmp_path / "checkpoints"
    gone, stays = (save(folder, epoch).path for epoch in (1, 2))
    before_each_opening(lambda path: remove(gone) if path == gone and gone.exists() else None)
    assert [entry.path for entry in Catalog.of(folder).entries] == [stays]


@pytest.fixture
def pairs(tmp_path):
    """A shelf of three pairs."""
    shelf = Shelf(tmp_path / "weights", SHELF)
    for epoch in (1, 2, 3):
        save_on_shelf(shelf, epoch)
    return shelf


def both_move_on(shelf: Shelf) -> Callable[[Path], None]:
    """Before each opening of either fixed name both become those of the next pair."""
    heads = [e for e in Catalog.of(shelf).versioned if e.is_head]
    following = cycle([[e.path.with_name(e.summary.companions[0].name), e.path] for e in heads])

    def act(path: Path) -> None:
        if path.name in shelf.aliases:
            assert aliases.point_all(shelf, next(following)) == []

    return act


@needs_posix("the name of an open file can be given to another")
@pytest.mark.parametrize("alias", SHELF.aliases)
def test_a_pair_whose_fixed_names_move_on_is_backed_up_as_one(pairs, tmp_path, before_each_opening, alias):
    before_each_opening(both_move_on(pairs))
    for number in range(3):
        copies = backup.back_up(pairs.folder / alias, tmp_path / f"disk{number}")
        there = Catalog.all_in(tmp_path / f"disk{number}")
        assert [head.path for head in there.heads] == [copies[-1]]
        assert search.verify_all(there, there.heads[0])


@pytest.mark.parametrize("alias", SHELF.aliases)
def test_a_pair_whose_fixed_names_move_on_is_verified_and_shown_as_one(pairs, before_each_opening, alias, capsys):
    before_each_opening(both_move_on(pairs))
    where = ["--checkpoint-dir", str(pairs.folder)]
    for _ in range(3):
        assert manage(["--verify", alias, *where]) == 0
        capsys.readouterr()
        assert manage(["--show", alias, "--json", *where]) == 0
        shown = json.loads(capsys.readouterr().out)
        critic = read(Path(shown["second"]))
        assert shown["kind"] == "epoch"
        assert critic.digest == shown["companions"][0]["digest"]


def test_verifying_all_goes_on_where_a_cleanup_removes_what_was_listed(pairs, before_each_opening, capsys):
    second = pairs.folder / HISTORY / "critic_DRUSEN_epoch_001.pth"
    listed = iter(range(12))  # the listing opens every file once

    def act(path: Path) -> None:
        over = path.suffix == names.SUFFIX and next(listed, None) is None
        if over and path.name == "critic_DRUSEN_epoch_003.pth" and second.exists():
            removal.delete(second, pairs.folder)

    before_each_opening(act)
    assert manage(["--verify", "--checkpoint-dir", str(pairs.folder)]) == 0, capsys.readouterr().out


@pytest.fixture
def between_the_names(monkeypatch):
    """Has something done while the second file of a new pair has its name and the first has none yet."""

    def install(act: Callable[[], None]) -> None:
        renamed, done = Path.replace, []

        def replacing(path, target):
            if target.name == "generator_DRUSEN_epoch_004.pth" and not done:
                done.append(target)
                act()
            return renamed(path, target)

        monkeypatch.setattr(Path, "replace", replacing)

    return install


def test_law_1_half_of_a_pair_that_is_being_written_is_neither_judged_nor_deleted(pairs, between_the_names, capsys):
    """``--verify`` and ``--delete`` in the instant between the two names, however long a disk makes it."""
    where = ["--checkpoint-dir", str(pairs.folder)]
    codes = []

    def act():
        assert (pairs.folder / HISTORY / "critic_DRUSEN_epoch_004.pth").exists()
        for words in (
            ["--verify"],
            ["--delete", "critic_DRUSEN_epoch_004.pth"],
            ["--backup", "critic_DRUSEN_epoch_004.pth"],
        ):
            codes.append(manage([*words, *where]))
        manage(["--list", *where])

    between_the_names(act)
    with Lock(pairs.folder, pairs.lock_name(TRAINING)):
        save_on_shelf(pairs, 4)
    assert codes == [0, 2, 2]
    shown = capsys.readouterr()
    assert "being written" in shown.out
    assert shown.err.count("being written") == 2
    assert search.verify_all(Catalog.of(pairs), Catalog.of(pairs).heads[-1])


def test_law_1_nor_where_the_first_file_gets_its_name_during_the_look(pairs, between_the_names):
    """The list is old by the time that it is judged."""
    seen = []
    between_the_names(lambda: seen.append(Catalog.of(pairs)))
    save_on_shelf(pairs, 4)
    critic = read(pairs.folder / HISTORY / "critic_DRUSEN_epoch_004.pth")
    assert critic in seen[0].orphans
    assert seen[0].is_in_between(critic)


@pytest.fixture
def before_each_removal(monkeypatch):
    """Has something done just before a file is removed."""

    def install(act: Callable[[Path], None]) -> None:
        removed = Path.unlink

        def unlinking(path, **more):
            act(path)
            return removed(path, **more)

        monkeypatch.setattr(Path, "unlink", unlinking)

    return install


@pytest.fixture
def between_the_copies_names(monkeypatch):
    """Has something done while the second file of a pair's copy has its name and the first has none yet."""

    def install(act: Callable[[Path], None]) -> None:
        renamed = Path.replace

        def replacing(path, target):
            if target.name.startswith("generator_DRUSEN_epoch_003_backup_"):
                act(target.with_name(target.name.replace("generator", "critic")))
            return renamed(path, target)

        monkeypatch.setattr(Path, "replace", replacing)

    return install


def test_half_of_a_pair_that_is_being_copied_is_neither_judged_nor_deleted(
    pairs, between_the_copies_names, capsys, monkeypatch
):
    """In the folder of backups: both copies are whole before either has its name. A deletion waits for the copy."""
    monkeypatch.setattr(removal, "_WAIT_S", 0.1)
    target = removal.backups(pairs.folder)
    codes = []

    def act(critic: Path) -> None:
        assert critic.exists()
        (head,) = durable.temporaries(target, names.BACKUP_TAG)
        assert envelope.verify(head)["kind"] == "epoch"
        for words in (["--verify"], ["--delete", critic.name], ["--backup", critic.name]):
            codes.append(manage([*words, "--checkpoint-dir", str(target)]))
        manage(["--list", "--checkpoint-dir", str(target)])

    backup.back_up(pairs.folder / HISTORY / "generator_DRUSEN_epoch_002.pth", target)
    between_the_copies_names(act)
    copies = backup.back_up(pairs.folder / HISTORY / "generator_DRUSEN_epoch_003.pth", target)
    shown = capsys.readouterr()
    assert codes == [0, 4, 2], shown
    assert "being written or removed" in shown.out
    assert shown.err.count("being written or removed") == 1
    assert search.verify_all(Catalog.beside(copies[-1]), read(copies[-1]))


def test_half_of_a_copy_that_was_cut_off_goes_with_the_next(pairs, between_the_copies_names, tmp_path):
    """A power cut between the two names."""
    target, after = tmp_path / "copies", tmp_path / "after"
    between_the_copies_names(lambda _: shutil.copytree(target, after, dirs_exist_ok=True))
    backup.back_up(pairs.folder / HISTORY / "generator_DRUSEN_epoch_003.pth", target)
    assert [path.name.split("_")[0] for path in after.glob("[!.]*.pth")] == ["critic"]
    copies = backup.back_up(pairs.folder / HISTORY / "generator_DRUSEN_epoch_002.pth", after)
    assert sorted(after.glob("*.pth")) == sorted(copies)


def test_a_copy_whose_names_cannot_be_flushed_leaves_no_half(pairs, tmp_path, monkeypatch):
    """Nor is one seen while they go: the first file is hidden before the second is removed."""
    target = tmp_path / "copies"
    real = durable.sync_folder

    def failing(folder):
        if list(target.glob("generator*.pth")):
            raise OSError(errno.EIO, "Input/output error")
        real(folder)

    monkeypatch.setattr(durable, "sync_folder", failing)
    with pytest.raises(SaveFailed, match="input/output error"):
        backup.back_up(pairs.folder / HISTORY / "generator_DRUSEN_epoch_003.pth", target)
    assert [path.name for path in target.iterdir()] == [BACKUP]


def test_half_of_a_pair_that_is_being_removed_is_not_judged(pairs, before_each_removal, capsys):
    """By a cleanup, and by a deletion among the backups."""
    target = removal.backups(pairs.folder)
    copies = [backup.back_up(e.path, target) for e in Catalog.of(pairs).heads]
    codes = []

    def act(path: Path) -> None:
        if path.name.startswith("critic_DRUSEN"):
            folder = target if path.parent == target else pairs.folder
            codes.append(manage(["--verify", "--checkpoint-dir", str(folder)]))
            manage(["--list", "--checkpoint-dir", str(folder)])

    before_each_removal(act)
    assert len(removal.prune(pairs, Policy(keep_latest=1, keep_every=0)).paths) == 4
    removal.delete(copies[0][-1], pairs.folder)
    assert codes == [0, 0, 0], capsys.readouterr().out
    assert "being written or removed" in capsys.readouterr().out


def test_half_of_a_pair_that_an_interrupted_removal_left_can_be_deleted(pairs, before_each_removal, tmp_path):
    """Whoever deletes holds the lock, so nobody else is removing."""

    def act(path: Path) -> None:
        if path.name.startswith("critic_DRUSEN") and tmp_path / "left" not in path.parents:
            shutil.copytree(path.parent, tmp_path / "left" / path.parent.relative_to(tmp_path))

    target = removal.backups(pairs.folder)
    copy = backup.back_up(pairs.folder / HISTORY / "generator_DRUSEN_epoch_002.pth", target)[-1]
    before_each_removal(act)
    removal.delete(pairs.folder / HISTORY / "generator_DRUSEN_epoch_001.pth", pairs.folder)
    removal.delete(copy, pairs.folder)
    left = tmp_path / "left" / pairs.folder.name
    (copied,) = removal.backups(left).glob("critic*.pth")
    for critic in (left / HISTORY / "critic_DRUSEN_epoch_001.pth", copied):
        assert removal.delete(critic, left).paths == [critic]


def test_what_a_killed_training_left_half_of_is_told_and_can_be_deleted(pairs, between_the_names, tmp_path, capsys):
    """Its lock went with it, so nobody is writing."""
    where = ["--checkpoint-dir", str(tmp_path / "copy")]
    between_the_names(lambda: shutil.copytree(pairs.folder, tmp_path / "copy"))
    save_on_shelf(pairs, 4)
    assert manage(["--verify", *where]) == 3
    assert "critic_DRUSEN_epoch_004.pth: incomplete: its first file is not there" in capsys.readouterr().out
    assert manage(["--delete", "critic_DRUSEN_epoch_004.pth", *where]) == 0


def test_a_start_from_the_fixed_name_of_another_run_reads_what_it_verified(tmp_path, before_each_opening):
    """Its training goes on beside us, and the name moves on."""
    folder = tmp_path / "theirs"
    files = [save(folder, epoch, alias=True).path for epoch in (1, 2)]
    before_each_opening(moves_on(folder / names.LATEST, files))
    plan = resume.plan(tmp_path / "ours", resume.Request(file=folder / names.LATEST))
    assert plan.start.path in files
    assert read(plan.start.path).digest == plan.start.digest == plan.origin.digest


@needs_posix("an open file can be removed")
def test_a_backup_of_a_pair_that_goes_meanwhile_takes_the_next(tmp_path, before_each_opening):
    """What was found is let go before it is opened: look again."""
    folder = tmp_path / "weights"
    old, new = (save_pair(folder, epoch) for epoch in (1, 2))
    alias = folder / "generator_local.pth"
    aliases.point(alias, old.path)
    critic = folder / "critic_epoch_001.pth"
    opened = []

    def act(path: Path) -> None:
        if path == critic:
            opened.append(path)
            if len(opened) == 2:
                aliases.point(alias, new.path)
                remove(critic)
                remove(old.path)

    before_each_opening(act)
    copies = backup.back_up(alias, tmp_path / names.BACKUPS)
    assert [copy.read_bytes() for copy in copies] == [archive_of(new, "critic"), archive_of(new, "generator")]


def archive_of(head, word: str) -> bytes:
    return head.path.with_name(f"{word}_epoch_002.pth").read_bytes()
