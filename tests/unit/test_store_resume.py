"""Laws 3 and 9: the newest valid checkpoint wins; a new start never destroys, and the same command always goes on."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import damage, finished, let_everybody_in, needs_root, python, rewrite, save, save_pair, start, tree
from systems import remove, remove_tree

from ganguard.errors import DamagedCheckpoint, NoCheckpoint, UnreadableCheckpoint, UsageError
from ganguard.store import backup, envelope, names, resume, runfile
from ganguard.store.catalog import Catalog
from ganguard.store.resume import Request
from ganguard.store.summary import Kind, Origin


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


def begin_run(folder: Path, epochs: int = 3, **fields):
    """A run as a training makes it: started, then saved at each epoch's end."""
    run = start(folder)[0].run
    return run, [save(folder, e, run=run.run, alias=True, **fields) for e in range(1, epochs + 1)]


def goes_on_at(folder: Path, **asked) -> str:
    plan, path, _ = start(folder, **asked)
    assert path is not None
    assert envelope.verify(path)
    assert plan.start is not None
    return plan.start.path.name


# Law 3.


def test_law_3_the_newest_is_by_position_never_by_clock_or_name(folder):
    run, entries = begin_run(folder)
    os.utime(entries[0].path, (2e9, 2e9))
    entries[0].path.rename(folder / "checkpoint_epoch_999.pth")
    entries[2].path.rename(folder / "a.pth")
    assert resume.plan(folder, Request()).start.summary.epoch == 3
    mid = save(folder, 3, run=run.run, step=35, batch=5, kind=Kind.AUTOSAVE, name=names.within_epoch(4, 5))
    assert resume.plan(folder, Request()).start.path == mid.path


def test_law_3_a_save_before_the_tail_is_older_than_the_one_after_it(folder):
    run = start(folder)[0].run
    after = save(folder, 2, run=run.run, step=20)
    save(folder, 1, run=run.run, step=20, batch=10, kind=Kind.EMERGENCY, name="EMERGENCY_checkpoint_z.pth")
    assert goes_on_at(folder) == after.path.name


def test_law_3_a_damaged_one_is_named_set_aside_and_stepped_over(folder):
    _, entries = begin_run(folder)
    remove(folder / names.LATEST)  # where it is a copy, it would stand in
    damage(entries[2].path)
    rewrite(entries[1].path, entries[1].path.read_bytes()[:500])
    _, path, told = start(folder)
    assert path == entries[0].path
    assert any("checkpoint_epoch_003.pth is damaged" in line for line in told)
    assert any("checkpoint_epoch_002.pth is incomplete" in line for line in told)
    aside = {p.name for p in (folder / names.SET_ASIDE).rglob("*.pth")}
    assert {"checkpoint_epoch_002.pth", "checkpoint_epoch_003.pth"} <= aside


def test_law_3_where_no_good_one_is_found_nothing_is_set_aside_and_nothing_starts_from_zero(folder):
    _, entries = begin_run(folder, 2)
    for entry in entries:
        damage(entry.path)
    remove(folder / names.LATEST)
    before = tree(folder)
    for _ in range(2):
        with pytest.raises(NoCheckpoint, match="--no-checkpoint") as refused:
            start(folder)
        assert "--checkpoint-path" not in str(refused.value)  # none of them would do
    assert tree(folder) == before


@pytest.mark.parametrize("name", ["checkpoint_epoch_010.pth", "renamed.pth", "latest_checkpoint.pth"])
@pytest.mark.parametrize("content", ["empty", "text", "torn"])
def test_law_3_any_file_in_the_way_is_an_error_never_a_silent_start_from_zero(folder, name, content):
    entry = save(folder, 1)
    data = {"empty": b"", "text": b"hello", "torn": entry.path.read_bytes()[:700]}[content]
    remove(entry.path)
    (folder / name).write_bytes(data)
    for _ in range(2):
        with pytest.raises(NoCheckpoint, match=name):
            start(folder)


def test_law_3_files_of_an_older_script_are_an_error_with_the_commands(folder):
    folder.mkdir()
    theirs = folder / "checkpoint_epoch_010.pth"
    torch.save({"epoch": 10, "netG_state_dict": {}}, theirs)
    for _ in range(2):
        with pytest.raises(NoCheckpoint, match=re.escape(f"--checkpoint-path {theirs}")) as refused:
            start(folder)
        assert "--no-checkpoint" in str(refused.value)
        assert not (folder / runfile.NAME).exists()


def test_law_3_files_of_another_run_are_named_and_ignored(folder):
    _, entries = begin_run(folder)
    other = save(folder, 50, run="somebody-else")
    _, path, told = start(folder)
    assert path == entries[2].path
    assert any(f"--checkpoint-path {other.path}" in line for line in told)
    assert other.path.exists()


def test_law_3_a_damaged_file_of_another_run_stays_where_it_is(folder):
    begin_run(folder)
    other = save(folder, 50, run="somebody-else")
    whole = other.path.read_bytes()
    rewrite(other.path, whole[:100] + whole[200:])
    assert goes_on_at(folder) == "checkpoint_epoch_003.pth"
    assert other.path.exists()


def test_law_3_without_run_json_the_only_run_is_meant_and_two_are_an_error(folder):
    _, entries = begin_run(folder)
    (folder / runfile.NAME).unlink()
    assert goes_on_at(folder) == entries[2].path.name
    (folder / runfile.NAME).unlink()
    save(folder, 9, run="b")
    with pytest.raises(NoCheckpoint, match="2 runs") as refused:
        start(folder)
    assert "checkpoint_epoch_003.pth" in str(refused.value)
    assert "checkpoint_epoch_009.pth" in str(refused.value)
    assert goes_on_at(folder, file=entries[2].path) == entries[2].path.name  # the command that chooses


@pytest.mark.parametrize("text", ["", "{", "[]", "7", '{"run": 7}', '{"run":"x","lineage":[[1e999,0]]}', "\xff"])
def test_law_3_a_damaged_run_json_falls_back_on_the_files(folder, text):
    _, entries = begin_run(folder)
    (folder / runfile.NAME).write_bytes(text.encode("latin-1"))
    assert goes_on_at(folder) == entries[2].path.name


def test_law_3_a_run_json_cannot_move_files_out_of_the_folder(folder, tmp_path):
    begin_run(folder, 1)
    (tmp_path / "precious.pth").write_bytes(b"precious")
    run = runfile.read(folder)
    for names_, into in ((("../precious.pth",), "set_aside/x"), (("checkpoint_epoch_001.pth",), "../../out")):
        runfile.write(folder, replace(run, pending_files=names_, pending_folder=into))
        start(folder)
        assert (tmp_path / "precious.pth").read_bytes() == b"precious"
        assert (folder / "checkpoint_epoch_001.pth").exists()


@needs_root
def test_law_3_what_cannot_be_read_stops_the_start_with_an_error(folder):
    code = """
import sys; from pathlib import Path
from stores import become_nobody; from ganguard.store import resume; from ganguard.errors import UnreadableCheckpoint
import ganguard.store.named
become_nobody()
try: resume.plan(Path(sys.argv[1]), resume.Request())
except UnreadableCheckpoint as error: print("told:", error)
"""
    _, entries = begin_run(folder)
    let_everybody_in(folder)
    entries[2].path.chmod(0)
    assert "checkpoint_epoch_003.pth cannot be read; check its permissions" in finished(python(code, folder))
    entries[2].path.chmod(0o444)
    folder.chmod(0)
    assert "checkpoints cannot be listed: Permission denied" in finished(python(code, folder))


def test_law_3_a_newer_format_stops_the_start_with_an_error(folder, monkeypatch):
    run, _ = begin_run(folder)
    monkeypatch.setattr(envelope, "FORMAT", 2)
    save(folder, 4, run=run.run)
    monkeypatch.undo()
    with pytest.raises(UnreadableCheckpoint, match="newer ganguard"):
        start(folder)


def test_law_7_an_emergency_that_is_not_finite_is_not_resumed_unasked(folder):
    run, entries = begin_run(folder)
    name = "EMERGENCY_checkpoint_20260101_000000.pth"
    bad = save(folder, 3, run=run.run, step=33, kind=Kind.EMERGENCY, name=name, finite=False)
    _, path, told = start(folder)
    assert path == entries[2].path
    assert any(name in line and "not finite" in line for line in told)
    assert bad.path.exists()
    _, path, told = start(folder, file=bad.path)
    assert path == bad.path
    assert any("not finite" in line for line in told)


def test_law_3_a_pair_is_never_mixed(folder):
    run = start(folder)[0].run
    save_pair(folder, 1, run=run.run)
    newest = save_pair(folder, 2, run=run.run)
    damage(folder / "critic_epoch_002.pth")
    _, path, _ = start(folder)
    assert path.name == "generator_epoch_001.pth"
    aside = {p.name for p in (folder / names.SET_ASIDE).rglob("*.pth")}
    assert aside == {"critic_epoch_002.pth", newest.path.name}


def test_law_3_a_head_without_its_companion_and_a_companion_without_its_head_are_stepped_over(folder):
    run = start(folder)[0].run
    save_pair(folder, 1, run=run.run)
    save_pair(folder, 2, run=run.run)
    save_pair(folder, 3, run=run.run)
    remove(folder / "critic_epoch_002.pth")
    remove(folder / "generator_epoch_003.pth")
    _, path, told = start(folder)
    assert path.name == "generator_epoch_001.pth"
    assert any("lacks its second file critic_epoch_002.pth" in line for line in told)
    assert any("critic_epoch_003.pth is a second file whose first" in line for line in told)
    assert {p.name for p in folder.glob("*.pth")} == {"generator_epoch_001.pth", "critic_epoch_001.pth", names.LATEST}


def test_required_and_nothing_there_is_an_error(folder):
    with pytest.raises(NoCheckpoint, match="one is demanded: without that a new run starts"):
        start(folder, required=True)


# Law 9.


@pytest.mark.parametrize(
    "asked", [{"afresh": True, "required": True}, {"afresh": True, "file": Path("x")}, {"branch": True}]
)
def test_contradicting_requests_are_a_usage_error(asked):
    with pytest.raises(UsageError):
        Request(**asked)


def test_law_9_afresh_sets_the_old_run_aside_and_destroys_nothing(folder):
    _, _ = begin_run(folder)
    save(folder, 9, run="another")
    contents = set(tree(folder).values())
    plan, path, _ = start(folder, afresh=True)
    assert path is None
    assert not list(folder.glob("*.pth"))
    assert set(tree(folder).values()) == contents
    again, _, _ = start(folder)
    assert again.start is None  # nothing was saved by it, so a run of its own begins from zero, which is said
    assert again.run.run != plan.run.run
    assert "a new run begins" in again.notes[0]


def test_law_9_branch_sets_what_is_newer_aside_and_typed_again_works(folder):
    run, entries = begin_run(folder, 4)
    for _ in range(2):
        plan, path, _ = start(folder, file=entries[1].path, branch=True)
        assert path == entries[1].path
        assert {e.digest for e in Catalog.of(folder).heads} == {entries[0].digest, entries[1].digest}
        assert plan.run.run == run.run
    assert goes_on_at(folder) == entries[1].path.name
    new = save(
        folder,
        3,
        run=run.run,
        branch=plan.run.branch,
        lineage=plan.run.lineage,
        origin=plan.origin,
        images=5,
        alias=True,
    )
    assert goes_on_at(folder) == new.path.name
    assert goes_on_at(folder, file=entries[1].path) == new.path.name
    assert goes_on_at(folder, file=entries[1].path, branch=True) == entries[1].path.name
    kept = set(tree(folder).values())
    assert {new.path.name} <= {Path(p).name for p in tree(folder)}
    assert len(kept) == 5


def test_law_9_a_named_file_goes_on_from_its_newest_descendant_and_says_so(folder):
    _, entries = begin_run(folder)
    plan, path, told = start(folder, file=entries[0].path)
    assert path == entries[2].path
    assert "--branch" in told[0]
    assert not plan.aside


def test_law_9_naming_the_alias_goes_on_from_the_newest_each_time(folder):
    run, _ = begin_run(folder)
    for epoch in (4, 5):
        plan, _, _ = start(folder, file=folder / names.LATEST)
        assert plan.start.summary.epoch == epoch - 1
        save(folder, epoch, run=run.run, origin=plan.origin, alias=True)


def test_law_9_a_backup_goes_on_too_even_where_the_folder_is_gone(folder, tmp_path):
    _, entries = begin_run(folder)
    copy = backup.back_up(entries[1].path, tmp_path / names.BACKUPS)[-1]
    assert goes_on_at(folder, file=copy) == entries[2].path.name
    remove_tree(folder)
    assert goes_on_at(folder, file=copy) == copy.name
    assert goes_on_at(folder) == copy.name  # stopped before the first save: it begins there again
    plan = start(folder, file=copy)[0]
    new = save(folder, 3, run=plan.run.run, branch=plan.run.branch, lineage=plan.run.lineage, origin=plan.origin)
    remove(copy)
    assert goes_on_at(folder, file=copy) == new.path.name


@pytest.mark.parametrize("layout", ["other run", "older script"])
def test_law_9_a_foreign_file_in_the_folder_begins_a_run_and_typed_again_goes_on(folder, layout):
    begin_run(folder)
    theirs = folder / "theirs.pth"
    if layout == "older script":
        torch.save({"epoch": 10, "netG_state_dict": {}}, theirs)
    else:
        save(folder, 7, run="other", name="theirs.pth")
    before = set(tree(folder).values())
    runs = set()
    for asked in ({"file": theirs}, {"file": theirs}, {}, {"file": theirs}):  # stopped each time before a save
        plan, path, _ = start(folder, **asked)
        assert path.parent.parent == folder / names.SET_ASIDE
        assert path.name == "theirs.pth"
        runs.add(plan.run.run)
    assert len(runs) == 1
    assert not list(folder.glob("*.pth"))
    assert set(tree(folder).values()) == before
    new = save(folder, 11, run=plan.run.run, origin=plan.origin)
    assert goes_on_at(folder, file=theirs) == new.path.name
    assert goes_on_at(folder) == new.path.name


def test_law_9_a_file_of_an_abandoned_branch_can_be_gone_back_to(folder):
    run, entries = begin_run(folder, 4)
    start(folder, file=entries[1].path, branch=True)
    left = next((folder / names.SET_ASIDE).rglob("checkpoint_epoch_004.pth"))
    plan, path, _ = start(folder, file=left)
    assert path == left
    assert goes_on_at(folder) == left.name  # not silently from epoch 2
    assert goes_on_at(folder, file=left) == left.name
    plan = start(folder, file=left)[0]
    new = save(folder, 5, run=run.run, branch=plan.run.branch, lineage=plan.run.lineage, origin=plan.origin)
    assert goes_on_at(folder, file=left) == new.path.name
    assert goes_on_at(folder) == new.path.name


def test_law_9_a_misspelt_file_is_an_error_with_a_guess(folder):
    begin_run(folder)
    with pytest.raises(NoCheckpoint, match=r"Did you mean .*checkpoint_epoch_003\.pth"):
        start(folder, file=folder / "checkpoint_epch_003.pth")
    with pytest.raises(UsageError, match="is a folder"):
        start(folder, file=folder)
    with pytest.raises(NoCheckpoint):
        start(folder, file=folder / "no" / "such.pth")


def test_a_named_file_that_is_damaged_is_refused_and_nothing_changes(folder):
    _, entries = begin_run(folder)
    damage(entries[2].path)
    before = tree(folder)
    remove(folder / names.LATEST)
    with pytest.raises(DamagedCheckpoint, match="leave out --checkpoint-path"):
        start(folder, file=entries[2].path)
    assert {k: v for k, v in before.items() if k != names.LATEST} == tree(folder)


def test_law_9_branching_from_a_pair_sets_whole_pairs_aside(folder):
    run = start(folder)[0].run
    first = save_pair(folder, 1, run=run.run)
    save_pair(folder, 2, run=run.run)
    _, _, _ = start(folder, file=first.path, branch=True)
    assert {p.name for p in folder.glob("*.pth")} == {
        "generator_epoch_001.pth",
        "critic_epoch_001.pth",
        names.LATEST,
    }
    assert {p.name for p in (folder / names.SET_ASIDE).rglob("*.pth")} == {
        "generator_epoch_002.pth",
        "critic_epoch_002.pth",
    }


def test_looking_at_a_plan_changes_nothing(folder):
    _, entries = begin_run(folder)
    damage(entries[2].path)
    before = tree(folder), (folder / runfile.NAME).read_bytes()
    for request in (Request(), Request(afresh=True), Request(file=entries[0].path, branch=True)):
        resume.plan(folder, request)
    assert (tree(folder), (folder / runfile.NAME).read_bytes()) == before


def test_the_beginning_of_a_run_is_the_file_that_was_named_last():
    run = runfile.new_run().naming(Path("a"), "1").naming(Path("b"), "2").naming(Path("x/../a"), "3")
    assert run.beginning == (Path("a").absolute(), "3")
    assert runfile.new_run().beginning is None
    assert Origin(path="a", digest="3").digest == "3"
