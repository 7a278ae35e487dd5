"""Law 6: every byte is checked before it is believed. Criterion 4: damage is always noticed and stepped over."""

from __future__ import annotations

import random
import sys
import zipfile
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import archive, flip, rewrite, save, summary

from ganguard.errors import DamagedCheckpoint, UnreadableCheckpoint
from ganguard.store import catalog, envelope, resume
from ganguard.store.envelope import State


@pytest.fixture
def newest(tmp_path):
    """The newest of two checkpoints; plan() must fall back on the older whenever the newest is damaged."""
    save(tmp_path, 1)
    return save(tmp_path, 2).path


def is_noticed(path: Path) -> bool:
    """``verify`` refuses it, looking at it does not fail, and a start goes on from the one before."""
    state = catalog.read(path).state
    with pytest.raises(DamagedCheckpoint):
        envelope.verify(path)
    found = resume.plan(path.parent, resume.Request()).start
    return state in State and found is not None and found.path.name == "checkpoint_epoch_001.pth"


def test_what_was_committed_is_a_plain_torch_file_and_verifies(newest):
    loaded = torch.load(newest, weights_only=True)
    assert loaded["layer0"]["weight"].shape == (16, 16)
    assert envelope.verify(newest)["epoch"] == 2
    assert zipfile.ZipFile(newest).testzip() is None


def test_law_6_a_bit_flipped_anywhere_is_noticed(newest):
    whole = newest.read_bytes()
    draw = random.Random(0)
    for _ in range(200):
        flip(newest, draw.randrange(len(whole)), draw.randrange(8))
        assert is_noticed(newest)
        rewrite(newest, whole)
    assert envelope.verify(newest)


def structural_bits(path: Path) -> list[int]:
    """Offsets of everything that is not tensor data: headers, directory, end record, comment, the pickle."""
    size = path.stat().st_size
    with zipfile.ZipFile(path) as opened:
        first = opened.start_dir
        offsets = set(range(first, size))
        for item in opened.infolist():
            offsets |= set(range(item.header_offset, item.header_offset + 30 + len(item.filename)))
            if item.filename.endswith("data.pkl"):
                begin = path.read_bytes().index(b"\x80\x02}q", item.header_offset)
                offsets |= set(range(begin, begin + item.file_size))
    return sorted(offsets)


def test_law_6_a_bit_flipped_in_any_structural_field_is_noticed(tmp_path):
    """Every bit of them by ``verify``; ``plan`` (slower) where the state is read from, the last kilobyte's bytes."""
    save(tmp_path, 1)
    path = save(tmp_path, 2).path
    whole = path.read_bytes()
    offsets = structural_bits(path)
    assert len(offsets) > 2000
    path.chmod(0o644)
    with path.open("r+b", buffering=0) as file:
        for offset in offsets:
            for bit in range(8):
                file.seek(offset)
                file.write(bytes([whole[offset] ^ 1 << bit]))
                with pytest.raises(DamagedCheckpoint):
                    envelope.verify(path)
                assert catalog.read(path).state in (State.WHOLE, State.INCOMPLETE)
            if len(whole) - offset < 700:
                assert is_noticed(path)
            file.seek(offset)
            file.write(whole[offset : offset + 1])
    assert envelope.verify(path)


def test_law_6_a_file_cut_off_anywhere_is_noticed(newest):
    whole = newest.read_bytes()
    draw = random.Random(1)
    for length in {0, 1, 21, 22, 23, len(whole) - 1, len(whole) - 2, *draw.sample(range(len(whole)), 80)}:
        rewrite(newest, whole[:length])
        assert is_noticed(newest), length


def test_law_6_a_page_of_zeros_is_noticed(newest):
    whole = newest.read_bytes()
    for begin in range(0, len(whole), 4096):
        rewrite(newest, whole[:begin] + bytes(min(4096, len(whole) - begin)) + whole[begin + 4096 :])
        assert is_noticed(newest)


@pytest.mark.parametrize("more", [b"\0", b"x" * 100, bytes(100_000), archive(3)], ids=len)
def test_law_6_bytes_appended_or_put_before_are_noticed(newest, more):
    whole = newest.read_bytes()
    rewrite(newest, whole + more)
    assert is_noticed(newest)
    rewrite(newest, more + whole)
    assert is_noticed(newest)


def without_comment(whole: bytes, *, mended: bool) -> bytes:
    end = whole.rindex(b"PK\x05\x06")
    bare = whole[: end + 22]
    return bare[:-2] + b"\0\0" if mended else bare


def test_law_6_a_file_that_lost_its_digest_is_not_thereby_trusted(newest):
    whole = newest.read_bytes()
    rewrite(newest, without_comment(whole, mended=False))
    assert is_noticed(newest)
    rewrite(newest, without_comment(whole, mended=True))
    assert torch.load(newest, weights_only=True)  # torch sees nothing wrong with it
    assert is_noticed(newest)
    plan = resume.plan(newest.parent, resume.Request())
    assert any(f"--checkpoint-path {newest}" in line for line in resume.carry_out(plan)[1])
    assert newest.name not in plan.aside  # nothing proves it damaged


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path):
    folder = tmp_path / "x.pth"
    folder.mkdir()
    assert catalog.read(folder).state is State.UNREADABLE
    with pytest.raises(UnreadableCheckpoint):
        envelope.verify(folder)


def test_a_newer_format_is_not_called_damaged(tmp_path, monkeypatch):
    monkeypatch.setattr(envelope, "FORMAT", 2)
    path = save(tmp_path, 1).path
    monkeypatch.undo()
    assert catalog.read(path).state is State.NEWER
    with pytest.raises(UnreadableCheckpoint, match="newer ganguard"):
        envelope.verify(path)


def test_a_summary_too_long_for_a_comment_loses_what_it_can_do_without(tmp_path):
    about = {"config": {f"option{i}": "x" * 50 for i in range(1000)}, "means": {f"loss{i}": 1.0 for i in range(9000)}}
    entry = save(tmp_path, 1, **about)
    assert envelope.verify(entry.path)["epoch"] == 1
    assert entry.summary.config is None
    assert entry.summary.means == {}
    assert torch.load(entry.path, weights_only=True)


def test_what_json_has_no_word_for_does_not_fail_a_save(tmp_path):
    entry = save(tmp_path, 1, config={"folder": Path("/x"), "both": {1, 2}, (1, 2): "odd key"})
    assert entry.summary.config["folder"] == str(Path("/x"))


def test_a_position_that_the_summary_gives_comes_back(tmp_path):
    about = summary(3, batch=7, samples=448, branch=2, lineage=((10, 1), (20, 2)), best={"name": "fid", "value": 3.5})
    entry = save(tmp_path, 3, **{k: getattr(about, k) for k in ("batch", "samples", "branch", "lineage", "best")})
    assert entry.summary == catalog.read(entry.path).summary
    assert entry.summary.lineage == ((10, 1), (20, 2))
    assert entry.summary.best == {"name": "fid", "value": 3.5}
