"""Names of pairs, hostile ones among them; which files a shelf takes for its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import archive, part, save, save_on_shelf, start, summary
from systems import remove

from ganguard.errors import UsageError
from ganguard.store import commit, names, runfile
from ganguard.store.catalog import Catalog
from ganguard.store.pair import Pair, clean, name_of
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Kind, from_json


@given(st.text(max_size=300))
def test_any_name_becomes_one_that_files_can_have_everywhere(text):
    cleaned = clean(text)
    assert clean(cleaned) == cleaned
    assert 0 < len(cleaned.encode()) <= 100
    assert not set(cleaned) & set('/\\:*?"<>|\0\n\r\t[]{}%')
    assert cleaned.strip(" .") == cleaned
    for file in Shelf(Path("w"), Pair(name=cleaned)).file_names(Kind.AUTOSAVE, epoch=3, batch=7, step=9):
        assert names.is_plain(file)
        assert len(file.encode()) < 200


@pytest.mark.parametrize(
    ("folder", "expected"),
    [("a/DRUSEN", "DRUSEN"), ("a/DRUSEN/", "DRUSEN"), ("/", "data"), ("x/ação 2", "ação 2"), ("x/y/..", "x")],
)
def test_a_data_folders_name_stays_where_it_can(folder, expected):
    assert name_of(folder) == expected


def test_two_names_that_cannot_be_stay_two():
    made = {name_of(f"x/{name}") for name in ("a?b", "a*b", "a" * 120 + "1", "a" * 120 + "2")}
    assert len(made) == 4
    for name in made:
        Pair(name=name)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "x\n", "a:b", "x.", "e\u0301", "n" * 200])
def test_a_name_that_cannot_be_is_refused(name):
    with pytest.raises(UsageError, match="cannot be a part of file names"):
        Pair(name=name)


def test_a_forged_pair_in_a_summary_is_not_believed(tmp_path):
    about = summary(1, pair=Pair(name="x")).to_json()
    about["pair"]["name"] = "../../x"
    assert from_json(about) is None
    runfile.write(Shelf(tmp_path, Pair(name="x")), runfile.new_run())
    file = tmp_path / "run_x.json"
    forged = json.loads(file.read_text())
    forged["pair"]["head_alias"] = "../../x.pth"
    file.write_text(json.dumps(forged))
    assert [shelf.pair for shelf in runfile.shelves(tmp_path)] == [None]


def test_names_that_begin_alike_are_told_apart(tmp_path):
    """DRUSEN, DRUSEN_local and DRUSEN_epoch_001 lie side by side, damaged files too."""
    shelves = [Shelf(tmp_path, Pair(name=n)) for n in ("DRUSEN", "DRUSEN_local", "DRUSEN_epoch_001")]
    for shelf in shelves:
        run = start(shelf)[0].run
        for epoch in (1, 2):
            head = save_on_shelf(shelf, epoch, run=run.run)
            content = head.path.read_bytes()
        remove(head.path)
        head.path.write_bytes(content[:500])
        for alias in shelf.aliases:
            remove(tmp_path / alias)
    for shelf in shelves:
        plan, _, told = start(shelf)
        assert plan.start.summary.epoch == 1
        assert [line for line in told if f"generator_{shelf.pair.name}_epoch_002.pth is incomplete" in line]
        aside = {p.name for p in (tmp_path / "set_aside").glob(f"*_damaged_{shelf.pair.name}/*.pth")}
        assert aside == {f"{word}_{shelf.pair.name}_epoch_002.pth" for word in ("generator", "critic")}
    assert [s.pair.name for s in runfile.shelves(tmp_path)] == ["DRUSEN", "DRUSEN_epoch_001", "DRUSEN_local"]


def test_single_files_and_pairs_in_one_folder_do_not_mix(tmp_path):
    shelf = Shelf(tmp_path, Pair(name="x"))
    single = start(tmp_path)[0].run
    save(tmp_path, 1, run=single.run, alias=True)
    save_on_shelf(shelf, 5, run=start(shelf)[0].run.run)
    assert start(tmp_path)[0].start.summary.epoch == 1
    assert start(shelf)[0].start.summary.epoch == 5
    assert [s.pair and s.pair.name for s in runfile.shelves(tmp_path)] == ["x", None]
    assert not (tmp_path / names.SET_ASIDE).exists()


def test_a_damaged_emergency_that_nobody_can_claim_is_set_aside_and_one_of_another_run_is_not(tmp_path):
    shelf, other = (Shelf(tmp_path, Pair(name=n)) for n in ("x", "y"))
    for one in (shelf, other):
        save_on_shelf(one, 1, run=start(one)[0].run.run)
    second, first = (f"EMERGENCY_{word}_20260101_000000.pth" for word in ("critic", "generator"))
    fields = {"run": runfile.read(other).run, "step": 15, "pair": other.pair}
    parts = [
        part(summary(1, **{**fields, "kind": Kind.COMPANION, "name": second}), archive(1)),
        part(summary(1, **{**fields, "kind": Kind.EMERGENCY, "name": first}), archive(2)),
    ]
    commit.commit(other, parts)
    start(shelf)
    assert (tmp_path / first).exists()
    assert start(other)[0].start.path.name == first
    (tmp_path / "EMERGENCY_generator_20260101_000001.pth").write_bytes(b"half")
    _, _, told = start(shelf)
    assert [line for line in told if "000001.pth is incomplete" in line]
    assert (tmp_path / first).exists()


def test_emergency_names_tell_whose_they_are_where_several_runs_may_save_in_one_second(tmp_path):
    def heads():
        return [s.file_names(Kind.EMERGENCY, epoch=1, batch=0, step=1)[-1].split("_", 4)[4:] for s in shelves]

    shelves = [Shelf(tmp_path, Pair(name=n)) for n in ("x", "y")]
    start(shelves[0])
    assert heads() == [[], []]
    start(shelves[1])
    assert heads() == [["x.pth"], ["y.pth"]]


def test_a_shelf_takes_no_file_of_another_folder(tmp_path):
    shelf = Shelf(tmp_path, Pair(name="x"))
    save_on_shelf(shelf, 1)
    assert Catalog.of(Shelf(tmp_path / "history", Pair(name="x"))).heads
    assert not Catalog.of(Shelf(tmp_path, Pair(name="y"))).entries
    assert not Catalog.of(tmp_path).entries
