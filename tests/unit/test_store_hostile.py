"""Law 6: reading a checkpoint never runs code from it, and nothing that a file says of itself is obeyed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import archive, rewrite, save, start, tree
from systems import remove

from ganguard.errors import CheckpointError, GanguardError, RefusedCheckpoint
from ganguard.store import aliases, backup, catalog, envelope, names, removal, resume, runfile
from ganguard.store.body import load_file
from ganguard.store.catalog import Catalog
from ganguard.store.envelope import State
from ganguard.store.retention import Policy, expendable
from ganguard.store.summary import Kind, Summary, from_json


class Bomb:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'echo ran > "{self.marker}"',)


def sealed(path: Path, data: bytes, summary: dict) -> Path:
    """A file with a perfectly valid envelope around whatever these bytes are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb", buffering=0) as file:
        hashed = envelope.HashingFile(file)
        hashed.write(data)
        envelope.seal(file, hashed, summary)
    return path


@pytest.mark.parametrize("with_envelope", [False, True])
def test_law_6_a_file_made_to_run_code_is_listed_verified_copied_and_refused_without_running_it(
    tmp_path, with_envelope
):
    """Criterion 8."""
    marker = tmp_path / "code ran".replace(" ", "_")
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    path = folder / "checkpoint_epoch_001.pth"
    torch.save({"generator": Bomb(marker)}, path)
    if with_envelope:
        about = Summary(kind=Kind.EPOCH, name=path.name, run="r", epoch=1, step=10)
        data = path.read_bytes()
        sealed(path, data, about.to_json())
    for look in (
        lambda: Catalog.of(folder).heads,
        lambda: envelope.verify(path),
        lambda: backup.back_up(path, tmp_path / names.BACKUPS),
        lambda: resume.plan(folder, resume.Request()),
        lambda: resume.plan(folder, resume.Request(file=path)),
        lambda: start(folder, file=path),
        lambda: aliases.clear_the_names(folder),
        lambda: removal.prune(folder, Policy()),
        lambda: start(folder, afresh=True),
    ):
        with contextlib.suppress(GanguardError):
            look()
    moved = next(folder.rglob("checkpoint_epoch_001.pth"))
    with pytest.raises(RefusedCheckpoint, match="could run code"):
        load_file(moved)
    assert not marker.exists()
    torch.load(moved, weights_only=False)  # the bomb is live
    assert marker.exists()


def test_law_6_a_name_that_leads_out_of_the_folder_is_not_followed(tmp_path):
    folder = tmp_path / "deep" / "checkpoints"
    for name in ("../../out.pth", "/tmp/ganguard-out.pth", "..\\out.pth", ".hidden.pth", "no suffix", ""):
        about = Summary(kind=Kind.EPOCH, name=name, run="r", epoch=1, step=10)
        sealed(folder / names.LATEST, archive(), about.to_json())
        aliases.clear_the_names(folder)
        assert {Path(p).parent for p in tree(tmp_path)} == {Path("deep/checkpoints")}
        assert (folder / "checkpoint_step_00000010.pth").exists()
        for path in folder.glob("*.pth"):
            remove(path)


def test_a_checksummed_summary_that_is_not_understood_is_not_called_damaged(tmp_path):
    """Some later version's, perhaps: it stops the start instead of being moved out of the way."""
    about = {**Summary(kind=Kind.EPOCH, name="a.pth").to_json(), "kind": "of tomorrow"}
    path = sealed(tmp_path / "checkpoint_epoch_001.pth", archive(), about)
    assert catalog.read(path).state is State.NEWER
    with pytest.raises(CheckpointError, match="newer ganguard"):
        start(tmp_path)


@pytest.mark.parametrize("run", ["x/../../victim/logs/a", "..\\x", "..", "C:x", "a\0"])
def test_law_6_a_run_id_that_leads_out_of_the_runs_folders_is_not_taken(tmp_path, run):
    """Journals, samples and best models lie in folders that are named after it."""
    save(tmp_path, 1, run="r")
    (tmp_path / runfile.NAME).write_text(json.dumps({"run": run, "lineage": [], "pending_files": []}))
    assert start(tmp_path)[0].run.run == "r"
    assert from_json({**honest, "run": run}) is None
    assert from_json({**honest, "run": "20251106_bees-é_0123abcd"}) is not None


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
honest = Summary(kind=Kind.EPOCH, name="checkpoint_epoch_001.pth", run="r", epoch=1, step=10).to_json()


@settings(max_examples=80, deadline=None)
@given(st.dictionaries(st.sampled_from([*honest, "digest", "bytes", "format"]), plain, min_size=1, max_size=4))
def test_law_6_a_forged_summary_never_breaks_the_list_or_the_plan(forged):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save(folder, 2, run="r")
        path = sealed(folder / "forged.pth", b"x" * 100, {**honest, **forged})
        there = Catalog.of(folder)
        assert len(there.entries) == 2
        expendable(there.heads, Policy())
        for request in (resume.Request(), resume.Request(file=path)):
            with contextlib.suppress(GanguardError):
                resume.plan(folder, request)


@settings(max_examples=80, deadline=None)
@given(plain)
def test_law_6_whatever_json_says_it_is_a_summary_or_none(values):
    assert not isinstance(values, dict) or from_json(values) is None or "kind" in values


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_law_6_any_bytes_can_be_looked_at(data, tail):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "checkpoint_epoch_001.pth"
        entry = save(Path(place), 1)
        rewrite(entry.path, (entry.path.read_bytes() if tail else b"") + data)
        state = catalog.read(path).state
        assert state in State
        assert data == b"" or state is not State.WHOLE


@settings(max_examples=50, deadline=None)
@given(plain)
def test_law_6_any_run_json_is_obeyed_in_full_or_not_at_all(values):
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save(folder, 1, run="r")
        (folder / runfile.NAME).write_text(
            json.dumps({"run": "r", "lineage": [], "pending_files": values, "pending_folder": "set_aside/x"})
        )
        assert start(folder)[0].start.summary.epoch == 1
