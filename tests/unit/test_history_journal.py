"""The journal and the history: every step once, whatever came between."""

import json
import math
import os

import pytest
import torch
from systems import needs_posix

from ganguard import Guard
from ganguard.errors import UsageError
from ganguard.history import History
from ganguard.reports.journal import Journal, read
from ganguard.store import durable


@pytest.fixture
def warned():
    return []


@pytest.fixture
def journal(tmp_path, warned):
    return Journal(tmp_path / "logs" / "journal.jsonl", warned.append, "mine")


def steps(journal):
    return [row["step"] for row in read(journal.path)]


def test_cut_back_moves_later_lines_aside(journal):
    journal.write({"step": n, "epoch": 1} for n in range(1, 6))
    aside = journal.cut_back(3, 0)
    assert steps(journal) == [1, 2, 3]
    assert [json.loads(line)["step"] for line in aside.read_text().splitlines()] == [4, 5]
    assert journal.cut_back(3, 0) is None


def test_a_tail_that_is_to_be_repeated_is_cut_back_too(journal):
    """All batches of epoch 1 are done and its tail is not: what the tail logged goes, the batches' lines stay."""
    rows = [{"step": 1, "epoch": 1}, {"step": 1, "epoch": 1, "tail": True}, {"epoch_end": 1, "epoch": 1, "step": 1}]
    journal.write(rows)
    journal.cut_back(1, 1)
    assert len(read(journal.path)) == 3
    journal.cut_back(1, 0)
    assert read(journal.path) == rows[:1]


def test_a_torn_last_line_is_cut_off(journal):
    journal.write([{"step": 1, "epoch": 1}])
    with journal.path.open("ab") as file:
        file.write(b'{"step":2,"epo')
    journal.cut_back(9, 9)
    assert steps(journal) == [1]
    journal.write([{"step": 2, "epoch": 1}])
    assert steps(journal) == [1, 2]


def test_lines_wait_while_the_disk_takes_none(journal, warned, monkeypatch):
    """Told once; afterwards all are there, in order, none twice."""
    own = Journal._append

    def full(self, text):
        with self.path.open("ab") as file:
            file.write(text[:5])
            file.flush()
            file.truncate(file.tell() - 5)
        raise OSError(28, "No space left on device")

    journal.write([{"step": 1, "epoch": 1}])
    monkeypatch.setattr(Journal, "_append", full)
    journal.write([{"step": 2, "epoch": 1}])
    journal.write([{"step": 3, "epoch": 1}])
    monkeypatch.setattr(Journal, "_append", own)
    journal.write([{"step": 4, "epoch": 1}])
    assert steps(journal) == [1, 2, 3, 4]
    assert len(warned) == 1
    assert "disk is full" in warned[0]


@needs_posix("a limit on the size of files")
def test_half_a_line_on_a_disk_that_fills_up_is_taken_back(journal, warned):
    """The limit of the file's size cuts the write in the middle, as a full disk does."""
    journal.write([{"step": 1, "epoch": 1}])

    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.path.stat().st_size + 7, limits[1]))
    try:
        journal.write([{"step": 2, "epoch": 1}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(warned) == 1
    assert journal.path.read_text() == '{"step":1,"epoch":1}\n'
    journal.write([{"step": 3, "epoch": 1}])
    assert steps(journal) == [1, 2, 3]


def test_a_running_sum_is_logged_as_it_was(journal):
    """A tensor that goes on in place is not logged as it is when it is flushed."""
    history = History(journal)
    total = torch.zeros(())
    for step in (1, 2, 3):
        total += 1
        history.log({"step": step, "epoch": 1}, {"total": total})
    assert history.means() == {"total": 2.0}
    assert [row["total"] for row in read(journal.path)] == [1.0, 2.0, 3.0]


def test_what_is_not_finite_is_strict_json(journal):
    history = History(journal)
    history.log({"step": 1, "epoch": 1}, {"loss": float("nan")})
    history.end_epoch({"epoch": 1, "step": 1})
    for line in journal.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(name))


def test_only_single_numbers_are_logged(journal):
    with pytest.raises(UsageError, match="one number"):
        History(journal).log({"step": 1}, {"loss": torch.zeros(3)})


def test_a_score_that_is_no_number_is_never_the_best():
    history = History()
    assert not history.score("fid", math.nan, {"epoch": 1})
    assert history.score("fid", 5.0, {"epoch": 2})
    assert not history.score("fid", 6.0, {"epoch": 3})
    assert history.score("kid", 7.0, {"epoch": 4})
    assert history.best["name"] == "kid"


def test_state_and_load_are_inverse(journal):
    one, other = History(journal), History()
    one.log({"step": 1, "epoch": 1}, {"loss": 2.0})
    one.score("fid", 3.0, {"epoch": 1, "step": 1})
    other.load(one.state(), one.best)
    for history in (one, other):
        history.end_epoch({"epoch": 1, "step": 1})
    assert one.epochs == other.epochs == [{"epoch": 1, "step": 1, "loss": 2.0, "fid": 3.0}]


def broken(journal, number, how):
    """Put other bytes in a line's place, as a power cut or a bad sector does."""
    lines = journal.path.read_bytes().splitlines(keepends=True)
    lines[number] = how(lines[number])
    journal.path.write_bytes(b"".join(lines))


@pytest.mark.parametrize(
    "how",
    [
        lambda line: bytes(len(line)),
        lambda line: b"\xff" * (len(line) - 1) + b"\n",
        lambda line: line.replace(b'"step":3', b'"step":"x"'),
        lambda line: line.replace(b'"step":3', b'"step":9999'),
        lambda line: b"[" * 100_000 + b"\n",
        lambda line: b'{"step":' + b"9" * 5000 + b"}\n",
    ],
    ids=["zeros", "garbage", "no number", "a later number", "deep", "huge"],
)
def test_a_damaged_line_takes_no_other_with_it(journal, warned, how):
    """Seen: all valid lines after it were moved away, without a word."""
    journal.write({"step": n, "epoch": 1} for n in range(1, 8))
    broken(journal, 2, how)
    aside = journal.cut_back(6, 0)
    assert steps(journal) == [1, 2, 4, 5, 6]
    assert [json.loads(line)["step"] for line in journal.path.read_bytes().splitlines()] == [1, 2, 4, 5, 6]
    assert json.loads(aside.read_bytes().splitlines()[-1])["step"] == 7
    journal.write([{"step": 7, "epoch": 1}])
    assert steps(journal) == [1, 2, 4, 5, 6, 7]
    assert journal.cut_back(7, 0) is None


def test_law_10_a_journal_is_rewritten_under_a_temporary_name_of_its_own_run(journal, monkeypatch):
    """Another run may start in the same folder just then, and clears what it takes for its own."""
    journal.write({"step": n, "epoch": 1} for n in range(1, 5))
    broken(journal, 1, lambda line: bytes(len(line)))
    real = durable.sync_file

    def sync(descriptor):
        assert durable.temporaries(journal.path.parent, "mine")
        assert durable.clear_temporaries(journal.path.parent) == 0
        real(descriptor)

    monkeypatch.setattr(durable, "sync_file", sync)
    journal.cut_back(4, 0)
    assert steps(journal) == [1, 3, 4]


def test_a_journal_that_cannot_be_flushed_is_told_once(journal, warned, monkeypatch):
    """Although each line is written well in between; told anew where it fails again later."""
    real, sick = durable.sync_file, [True, True, True, False, True]

    def sync(descriptor):
        if sick.pop(0):
            raise OSError(5, "Input/output error")
        real(descriptor)

    monkeypatch.setattr(durable, "sync_file", sync)
    for step, told in enumerate([1, 1, 1, 1, 2], 1):
        journal.write([{"step": step, "epoch": 1}])
        journal.sync()
        assert len(warned) == told


def test_damage_is_told_and_kept(journal, warned):
    journal.write({"step": n, "epoch": 1} for n in range(1, 5))
    broken(journal, 1, lambda line: bytes(len(line)))
    assert journal.cut_back(4, 0) is None
    assert len(warned) == 1
    assert "holds 1 damaged line, by" in warned[0]
    assert "journal_damaged.jsonl" in warned[0]
    assert journal.path.with_name("journal_damaged.jsonl").exists()
    journal.cut_back(4, 0)
    assert len(warned) == 1


def test_a_checkpoint_is_on_the_medium_after_the_lines_that_lead_to_it(tmp_path, monkeypatch):
    """A power cut may otherwise leave a hole: the checkpoint is there, and what was logged before it is not."""
    synced, real = [], os.fsync

    def fsync(descriptor):
        info = os.fstat(descriptor)
        journal = tmp_path / "journal.jsonl"
        if journal.exists() and os.path.samestat(info, journal.stat()):
            synced.append(("journal", info.st_size, journal.read_text().count("loss")))
        else:
            synced.append(("other", info.st_size, 0))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    said = []

    def say(text):
        if text.startswith("saved "):
            told.append([kind for kind, *_ in synced])
        said.append(text)

    told = []
    with Guard(tmp_path, {"net": torch.nn.Linear(1, 1)}, save_every_batches=3, say=say) as guard:
        for _ in guard.steps(6):
            guard.log(loss=1.0)
    assert len(told) == 2
    assert [lines for kind, _, lines in synced if kind == "journal"] == [3, 6]
    first = told[0]
    assert "other" in first[first.index("journal") :]  # the checkpoint's own comes after it


@pytest.mark.parametrize("name", ["step", "epoch", "batch", "tail", "epoch_end", "savings", "about"])
def test_the_journals_own_names_are_refused(tmp_path, name):
    """A value called epoch would take the place of the line's own epoch, and the line would be lost at a resume."""
    with Guard(tmp_path, {"net": torch.nn.Linear(1, 1)}, say=lambda text: None) as guard:
        for _ in guard.steps(1):
            with pytest.raises(UsageError, match=f"cannot be called '{name}'"):
                guard.log(**{name: 1.0})
    with pytest.raises(UsageError, match="cannot be called"):
        History().score(name, 1.0, {"epoch": 1, "step": 1})
