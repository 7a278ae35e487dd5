"""Laws 1 and 8: a checkpoint exists only when it is whole and durable; a failing save leaves everything as it was."""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import (
    archive,
    finished,
    let_everybody_in,
    needs_root,
    part,
    python,
    save,
    save_pair,
    small_disk,
    start,
    summary,
    tree,
)
from systems import WINDOWS, remove

from ganguard.errors import SaveFailed
from ganguard.store import backup, commit, durable, envelope, resume
from ganguard.store.catalog import Catalog
from ganguard.store.envelope import State
from ganguard.store.summary import Kind


def leftovers(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if p.name.startswith(durable.TEMPORARY_PREFIX)]


def test_law_1_a_committed_file_is_read_only_and_its_name_is_never_given_twice(tmp_path):
    first = save(tmp_path, 1)
    before = first.path.read_bytes()
    second = save(tmp_path, 1, step=11)
    assert first.path.stat().st_mode & 0o777 == 0o444
    assert second.path.name == second.summary.name == "checkpoint_epoch_001_2.pth"
    assert first.path.read_bytes() == before


def test_law_1_what_fails_while_it_is_written_leaves_nothing(tmp_path):
    def dump(file):
        file.write(archive()[:5000])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        commit.commit(tmp_path, [commit.Part(summary=summary(), dump=dump, expected_bytes=10)])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="umask")
def test_the_umask_is_kept_read_only_means_without_write_bits(tmp_path):
    """Nobody gets a right that the person's umask keeps from them."""
    before = os.umask(0o077)
    try:
        entry = save(tmp_path / "ck", 1, alias=True)
        (copy,) = backup.back_up(entry.path, tmp_path / "backups")
    finally:
        os.umask(before)
    files = [entry.path, entry.path.with_name("latest_checkpoint.pth"), copy]
    assert [oct(file.stat().st_mode & 0o777) for file in files] == ["0o400"] * 3


def test_law_1_whoever_finds_a_second_file_finds_its_first_on_the_disk(tmp_path, monkeypatch):
    """Both are written and flushed before either has its name, so that a power cut between the names loses neither."""
    seen, renamed = [], Path.replace

    def replace(path, target):
        heads = [p for p in tmp_path.glob(".tmp-*") if p.name.endswith("generator_epoch_001.pth")]
        seen.append((target.name.split("_")[0], [envelope.verify(head)["epoch"] for head in heads]))
        return renamed(path, target)

    monkeypatch.setattr(Path, "replace", replace)
    save_pair(tmp_path, 1)
    assert seen == [("critic", [1]), ("generator", [1])]


def test_law_1_a_rename_that_is_done_although_an_error_comes_back_stands(tmp_path, monkeypatch):
    """As over a network, where the answer was lost and the question repeated."""
    renamed = Path.replace

    def replace(path, target):
        renamed(path, target)
        raise FileNotFoundError(2, "No such file or directory", str(path))

    monkeypatch.setattr(Path, "replace", replace)
    head = commit.commit(tmp_path, [part(summary(1))]).head
    assert envelope.verify(head.path)["epoch"] == 1


def test_law_1_what_breaks_in_after_the_head_has_its_name_takes_no_companion_from_it(tmp_path, monkeypatch):
    renamed = Path.replace

    def replace(path, target):
        renamed(path, target)
        if target.name.startswith("generator"):
            raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        save_pair(tmp_path, 1)
    assert [head.path.name for head in Catalog.of(tmp_path).heads] == ["generator_epoch_001.pth"]


@pytest.mark.skipif(sys.platform == "win32", reason="counts fsync of folders")
def test_law_1_new_folders_are_durable_up_to_the_root_of_what_was_made(tmp_path, monkeypatch):
    """Also where somebody else made the upper ones a moment ago."""
    (tmp_path / "theirs").mkdir()
    folder = tmp_path / "theirs" / "a" / "b"
    flushed, real = set(), os.fsync

    def fsync(descriptor):
        flushed.add(os.fstat(descriptor).st_ino)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    start(folder)
    assert {path.stat().st_ino for path in (tmp_path, tmp_path / "theirs", folder.parent, folder)} <= flushed


@pytest.mark.parametrize(
    "data", [b"", b"no archive", archive()[:-30], archive()[:-1]], ids=["none", "text", "cut", "1"]
)
def test_law_1_what_is_no_whole_archive_never_gets_the_name(tmp_path, data):
    with pytest.raises((SaveFailed, OSError, ValueError)):
        commit.commit(tmp_path, [part(summary(), data)])
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_two_files_exists_with_its_head(tmp_path):
    head = save_pair(tmp_path, 1)
    there = Catalog.of(tmp_path)
    assert [e.path.name for e in there.heads] == ["generator_epoch_001.pth"]
    assert [e.path.name for e in there.companions(head)] == ["critic_epoch_001.pth"]
    (tmp_path / "critic_epoch_001.pth").rename(tmp_path / "copy of the critic.pth")
    assert Catalog.of(tmp_path).heads  # found by digest, whatever it is called


def test_a_head_that_cannot_be_written_takes_its_companion_with_it(tmp_path):
    """Else each further try would leave one more, until the disk is full."""
    old = save_pair(tmp_path, 1)
    before = tree(tmp_path)
    critic = part(summary(2, kind=Kind.COMPANION, name="critic_epoch_002.pth"))
    head = commit.Part(summary=summary(2), dump=lambda file: file.write(1 / 0), expected_bytes=10)
    with pytest.raises(ZeroDivisionError):
        commit.commit(tmp_path, [critic, head])
    assert tree(tmp_path) == before
    assert Catalog.of(tmp_path).heads[0].path == old.path


@needs_root
def test_law_8_a_full_disk_is_told_before_anything_is_written(tmp_path):
    with small_disk(tmp_path / "disk", "1500k") as folder:
        save(folder, 1)
        before = tree(folder)
        with pytest.raises(SaveFailed, match=r"2\.\d MB are needed and 1\.\d MB are free") as failed:
            commit.commit(folder, [commit.Part(summary=summary(2), dump=lambda _: None, expected_bytes=1_500_000)])
        assert failed.value.needed > 1_500_000
        assert tree(folder) == before


@needs_root
@pytest.mark.parametrize("spare_pages", range(9))
def test_law_8_a_disk_that_fills_up_anywhere_in_a_save_leaves_the_old_and_no_rest(tmp_path, monkeypatch, spare_pages):
    """Down to the last bytes: an unbuffered write that finds room for half of them raises nothing."""
    monkeypatch.setattr(commit, "_MARGIN", 0)
    about = {"means": {f"loss{i}": 1.0 for i in range(800)}}  # a comment of several pages
    with small_disk(tmp_path / "disk", "256k") as folder:
        save(folder, 1)
        before = tree(folder)
        room = len(archive(2)) + spare_pages * 4096
        filler = folder / "filler"
        filler.write_bytes(bytes(max(0, durable.free_bytes(folder) - room)))
        failed = None
        for size in (0, 1):  # told, or not, of the bytes to come
            try:
                commit.commit(
                    folder,
                    [commit.Part(summary=summary(2, **about), dump=lambda f: f.write(archive(2)), expected_bytes=size)],
                )
                break
            except SaveFailed as error:
                failed = error
        assert leftovers(folder) == []
        heads = Catalog.of(folder).heads
        assert [envelope.verify(h.path)["epoch"] for h in heads] == ([1] if failed else [1, 2])
        assert bool(failed) == (spare_pages < 3)  # below that, the last bytes have no room
        if failed:
            assert str(failed) == "the disk is full"
            assert tree(folder) == before
            filler.unlink()
            assert save(folder, 2).state is State.WHOLE  # room again, and it works again


@needs_root
def test_law_8_torch_save_onto_a_full_disk_gives_the_reason(tmp_path):
    with small_disk(tmp_path / "disk", "256k") as folder:
        payload = {"w": torch.zeros(400, 400)}
        greedy = commit.Part(summary=summary(1), dump=lambda file: torch.save(payload, file), expected_bytes=0)
        (folder / "filler").write_bytes(bytes(durable.free_bytes(folder) - 100_000))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(commit, "_MARGIN", 0)
            with pytest.raises(SaveFailed, match="the disk is full"):
                commit.commit(folder, [greedy])
        assert sorted(p.name for p in folder.iterdir()) == ["filler"]


@needs_root
def test_law_8_a_pair_that_does_not_fit_leaves_no_half(tmp_path, monkeypatch):
    monkeypatch.setattr(commit, "_MARGIN", 0)
    with small_disk(tmp_path / "disk", "256k") as folder:
        (folder / "filler").write_bytes(bytes(durable.free_bytes(folder) - len(archive()) * 3 // 2))
        critic = summary(1, kind=Kind.COMPANION, name="critic.pth")
        parts = [commit.Part(summary=s, dump=part(s).dump, expected_bytes=0) for s in (critic, summary(1))]
        with pytest.raises(SaveFailed, match="the disk is full"):
            commit.commit(folder, parts)
        assert sorted(p.name for p in folder.iterdir()) == ["filler"]


@needs_root
def test_law_8_a_read_only_file_system_is_told(tmp_path):
    with small_disk(tmp_path / "disk", "1m") as folder:
        save_before = part(summary(1))
        os.system(f"mount -o remount,ro {folder}")
        with pytest.raises(SaveFailed, match="read-only"):
            commit.commit(folder, [commit.Part(summary=summary(1), dump=save_before.dump, expected_bytes=-2_000_000)])


@needs_root
def test_law_8_a_folder_that_may_not_be_written_is_told(tmp_path):
    code = """
import sys; from pathlib import Path; from stores import become_nobody, part, summary
from ganguard.store import commit
from ganguard.errors import SaveFailed
become_nobody()
try: commit.commit(Path(sys.argv[1]), [part(summary(1), b"x" * 100)])
except SaveFailed as error: print("told:", error)
"""
    let_everybody_in(tmp_path)
    assert "told: Permission denied" in finished(python(code, tmp_path))


def test_law_8_a_folder_that_vanished_is_made_anew(tmp_path):
    folder = tmp_path / "a" / "b"
    remove(save(folder, 1).path)
    folder.rmdir()
    assert save(folder, 2).state is State.WHOLE


def test_law_8_a_file_where_the_folder_should_be_is_told(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(SaveFailed, match="already exists" if WINDOWS else "File exists"):
        save(tmp_path / "checkpoints", 1)


def test_leftovers_of_an_interrupted_write_go_and_nothing_else(tmp_path):
    entry = save(tmp_path, 1)
    for name in (".tmp-12-34-checkpoint_epoch_002.pth", ".tmp-12-35-run.json"):
        (tmp_path / name).write_bytes(b"half")
    assert [e.path for e in Catalog.of(tmp_path).entries] == [entry.path]
    assert durable.clear_temporaries(tmp_path) == 2
    assert [p.name for p in tmp_path.iterdir()] == [entry.path.name]
    assert resume.plan(tmp_path, resume.Request()).start.path == entry.path


def test_a_folder_is_flushed_on_every_system(tmp_path):
    """And one that cannot be is an error, so that it is told."""
    durable.sync_folder(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        durable.sync_folder(tmp_path / "nowhere")


def test_a_picture_takes_its_name_although_another_program_holds_that_for_a_moment(tmp_path):
    """A viewer, or a virus scanner: Windows refuses the rename until it is closed."""
    (tmp_path / "grid.png").write_bytes(b"old")
    held = (tmp_path / "grid.png").open("rb")
    threading.Timer(0.3, held.close).start()
    with durable.appearing(tmp_path / "grid.png") as temporary:
        temporary.write_bytes(b"new")
    assert (tmp_path / "grid.png").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["grid.png"]
    held.close()
