"""Law 1 for pairs: after kill -9 anywhere in a save there is the whole new pair or the old one, never a mixed one."""

from __future__ import annotations

import random
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
sys.path.append(str(Path(__file__).parents[1] / "exact"))
sys.path.append(str(Path(__file__).parent))
from loops import journal, same
from stores import archive, part, save_on_shelf, start, summary, tree
from systems import remove_tree
from test_store_kill import NAMES, killed_at_each, needs_strace

from ganguard.store import commit, durable, envelope, names
from ganguard.store.catalog import Catalog
from ganguard.store.lock import TRAINING, Lock
from ganguard.store.pair import Pair
from ganguard.store.shelf import Shelf
from ganguard.store.summary import Kind

SAVE = """
import sys
from pathlib import Path
from ganguard.store import aliases, commit, removal, retention
from ganguard.store.pair import Pair
from ganguard.store.shelf import Shelf
from stores import archive, pair_parts
shelf = Shelf(Path(sys.argv[1]), Pair(name="DRUSEN"))
data = tuple(Path(sys.argv[2] + second).read_bytes() for second in (".second", ""))
saved = commit.commit(shelf, pair_parts(shelf, 3, data, run=sys.argv[3]))
Path(sys.argv[2] + ".saved").touch()
aliases.point_all(shelf, saved.paths)
removal.prune(shelf, retention.usual(shelf))
"""


@needs_strace
def test_law_1_killed_at_any_system_call_of_a_save_beside_another_run(tmp_path):
    template, folder, data = tmp_path / "template", tmp_path / "weights", tmp_path / "archive"
    data.write_bytes(archive(3))
    Path(f"{data}.second").write_bytes(archive(4))
    marker = Path(f"{data}.saved")
    runs = {}
    for name in ("DRUSEN", "CNV"):
        shelf = Shelf(template, Pair(name=name))
        runs[name] = start(shelf)[0].run.run
        for epoch in (1, 2):
            save_on_shelf(shelf, epoch, run=runs[name])
    shelf = Shelf(folder, Pair(name="DRUSEN"))

    def prepare():
        remove_tree(folder)
        marker.unlink(missing_ok=True)
        shutil.copytree(template, folder, copy_function=shutil.copy2)

    prepare()
    old = tree(folder)
    points = 0
    for point in killed_at_each(SAVE, (folder, data, runs["DRUSEN"]), ("fsync", NAMES, "unlink,unlinkat"), prepare):
        points += 1
        with Lock(folder, shelf.lock_name(TRAINING)):
            for place in shelf.places:
                durable.clear_temporaries(place, shelf.tag)
            plan, path, _ = start(shelf)
        epoch = plan.start.summary.epoch
        assert epoch == 3 or (epoch == 2 and not marker.exists()), point
        assert envelope.verify(path)["epoch"] == epoch
        (companion,) = plan.companions
        assert envelope.verify(companion.path)["digest"] == plan.start.summary.companions[0].digest, point
        assert [envelope.verify(folder / alias)["epoch"] for alias in shelf.aliases] == [epoch] * 2, point
        there = Catalog.of(shelf)
        assert not there.orphans, point
        assert not [head for head in there.entries if there.lacking(head)], point
        now = tree(folder)
        assert not [name for name in now if durable.TEMPORARY_PREFIX in name]
        mine = {n for n in old if "DRUSEN" in n and (n.endswith("_local.pth") or (epoch == 3 and "epoch_001" in n))}
        assert all(now[name] == content for name, content in old.items() if name not in mine), point
        aside = [envelope.verify(p)["epoch"] for p in (folder / names.SET_ASIDE).rglob("*.pth")]
        assert set(aside) <= {1, 3}, point  # a second file whose first is not written yet, or was removed already
    assert points >= 15


@needs_strace
def test_law_1_killed_between_the_two_files_of_the_first_save_it_begins_anew_and_keeps_what_there_is(tmp_path):
    folder, data = tmp_path / "weights", tmp_path / "archive"
    data.write_bytes(archive(3))
    Path(f"{data}.second").write_bytes(archive(4))
    shelf = Shelf(folder, Pair(name="DRUSEN"))
    run = ""

    def prepare():
        nonlocal run
        remove_tree(folder)
        run = start(shelf)[0].run.run
        (folder / "run").write_text(run)

    code = SAVE.replace("sys.argv[3]", "(Path(sys.argv[1]) / 'run').read_text()")
    lone = 0
    for point in killed_at_each(code, (folder, data), (NAMES,), prepare):
        orphans = len(Catalog.of(shelf).orphans)
        lone += orphans
        plan, _, told = start(shelf)
        assert (plan.start is None) == (not list(folder.rglob("generator_DRUSEN_epoch_003.pth"))), point
        if orphans:
            assert any("is a second file whose first is not there" in line for line in told), point
            assert len(list((folder / names.SET_ASIDE).rglob("critic_*.pth"))) == 1
    assert lone == 1


def test_a_save_that_fails_between_the_two_files_leaves_nothing_of_the_new_one(tmp_path):
    shelf = Shelf(tmp_path, Pair(name="x"))
    save_on_shelf(shelf, 1)
    before = tree(tmp_path)

    def fail(file):
        file.write(archive()[:100])
        raise ValueError("no")

    parts = [
        part(summary(2, kind=Kind.COMPANION, name="critic_x_epoch_002.pth", pair=shelf.pair)),
        commit.Part(summary=summary(2, name="generator_x_epoch_002.pth", pair=shelf.pair), dump=fail, expected_bytes=9),
    ]
    with pytest.raises(ValueError, match="no"):
        commit.commit(shelf, parts)
    assert tree(tmp_path) == before


SCRIPT = """
import random, sys
import numpy as np
import torch
from torch.utils.data import DataLoader, TensorDataset
from ganguard import Guard
from ganguard.store.pair import Pair

def main():
    torch.manual_seed(0); random.seed(0); np.random.seed(0)
    G, D = torch.nn.Linear(2, 3), torch.nn.Linear(3, 1)
    parts = {"generator": G, "critic": D}
    parts |= {"opt_g": torch.optim.Adam(G.parameters(), 0.01), "opt_d": torch.optim.Adam(D.parameters(), 0.01)}
    loader = DataLoader(TensorDataset(torch.arange(120.0).reshape(60, 2)), batch_size=3, shuffle=True)
    with Guard("weights", parts, layout=Pair(name="DRUSEN"), save_every_batches=2) as guard:
        for epoch in guard.epochs(4):
            for (x,) in guard.batches(loader):
                loss = D(G(x + 0.1 * torch.randn(2))).square().mean()
                parts["opt_g"].zero_grad(); parts["opt_d"].zero_grad()
                loss.backward(); parts["opt_g"].step(); parts["opt_d"].step()
                guard.log(loss=loss)

if __name__ == "__main__":
    main()
"""
_SAVED = re.compile(r"^saved weights[\\/]history[\\/]generator_DRUSEN_epoch_(\d+)(?:_batch_(\d+))?\.pth", re.MULTILINE)


def outcome(cwd):
    folder = cwd / "weights" / "history"
    held = {w: torch.load(folder / f"{w}_DRUSEN_epoch_004.pth", weights_only=True) for w in ("critic", "generator")}
    for content in held.values():
        del content["ganguard"]
    return {**held, "journal": [row for row in journal(cwd / "weights", "journal_drusen.jsonl")]}


def test_killed_anywhere_a_pair_goes_on_and_ends_bit_equal(zygote, tmp_path):
    """Real trainings, killed at random instants up to three times each."""
    for number in range(7):
        chance = random.Random(number)
        cwd = tmp_path / str(number)
        cwd.mkdir()
        script = cwd / "loop.py"
        script.write_text(SCRIPT)
        reported = 0
        for _ in range(chance.randint(1, 3) if number else 0):
            process = zygote.start(script, cwd=cwd)
            try:
                process.wait(chance.uniform(0.05, 0.8))
            except AssertionError:
                process.signal(9)
                process.wait()
            text = process.output()
            found = re.search(r"resumed from step (\d+)", text)
            if "Checkpoints of" in text:
                assert (int(found.group(1)) if found else 0) >= reported, text
            steps = [(int(e) - 1) * 20 + int(b) if b else int(e) * 20 for e, b in _SAVED.findall(text)]
            reported = max([reported, *steps])
        process = zygote.start(script, cwd=cwd)
        assert process.wait() == 0, process.output()
        assert not same(outcome(cwd), outcome(tmp_path / "0")), number
