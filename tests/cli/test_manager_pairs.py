"""checkpoint_manager.py on a weights folder of two runs: a pair is one thing, whichever of its files is named."""

import json
import os
import shutil

import pytest
import torch
from systems import remove
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from typed import MANAGER, run

from ganguard import Guard
from ganguard.store.pair import Pair


def train(folder, name, epochs):
    G, D = nn.Linear(2, 3), nn.Linear(3, 1)
    parts = {"generator": G, "critic": D, "opt_g": torch.optim.Adam(G.parameters())}
    parts["opt_d"] = torch.optim.Adam(D.parameters())
    options = {"save_every_epochs": 1, "keep": 9, "say": lambda line: None}
    with Guard(folder / "weights", parts, layout=Pair(name=name), **options) as guard:
        for _ in guard.epochs(epochs):
            for (x,) in guard.batches(DataLoader(TensorDataset(torch.ones(8, 2)), 4)):
                loss = D(G(x)).mean()
                loss.backward()
                guard.log(loss_g=loss)
            guard.score(fid=float(guard.epoch), about={"extractor": "mine"})
            guard.save(milestone=guard.epoch == 2)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    train(folder, "DRUSEN", 5)
    train(folder, "CNV", 2)
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(original / "weights", tmp_path / "weights", copy_function=shutil.copy2)
    return tmp_path


def manage(folder, *words, code=0, where="weights"):
    done = run(MANAGER, *words, "--checkpoint-dir", where, cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def listed(folder, where="weights"):
    rows = json.loads(manage(folder, "--list", "--json", where=where))["checkpoints"]
    return {os.path.basename(row["file"]): row for row in rows}  # noqa: PTH119 - as typed


def history(folder, name="DRUSEN"):
    return sorted(p.name for p in (folder / "weights/history").glob(f"*_{name}_*.pth"))


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    remove(path)
    path.write_bytes(content)


def test_list_tells_each_pair_once_with_the_size_of_both(folder):
    rows = listed(folder)
    assert len(rows) == 7 + 2  # and an alias each
    newest = rows["generator_DRUSEN_epoch_005.pth"]
    both = [(folder / "weights/history" / f"{w}_DRUSEN_epoch_005.pth").stat().st_size for w in ("generator", "critic")]
    assert newest["bytes"] == sum(both)
    assert newest["companions"] == ["weights/history/critic_DRUSEN_epoch_005.pth"]
    assert newest["what"] == ["DRUSEN", "latest", "epoch"]
    assert rows["generator_DRUSEN_epoch_001.pth"]["what"] == ["DRUSEN", "best", "epoch"]
    assert rows["generator_DRUSEN_epoch_002.pth"]["what"] == ["DRUSEN", "milestone"]
    assert rows["generator_CNV_epoch_002.pth"]["what"] == ["CNV", "latest", "milestone"]
    assert rows["generator_CNV_local.pth"]["what"] == ["CNV", "alias"]
    assert newest["best"]["about"] == {"extractor": "mine"}


def test_a_lone_second_file_and_a_lone_first_one_are_incomplete(folder):
    remove(folder / "weights/history/generator_DRUSEN_epoch_003.pth")
    remove(folder / "weights/history/critic_DRUSEN_epoch_004.pth")
    rows = listed(folder)
    assert rows["critic_DRUSEN_epoch_003.pth"]["state"] == "incomplete"
    assert rows["generator_DRUSEN_epoch_004.pth"]["state"] == "incomplete"
    text = manage(folder, "--verify", code=3)
    assert "critic_DRUSEN_epoch_003.pth: incomplete: its first file is not there" in text
    assert "generator_DRUSEN_epoch_004.pth: incomplete: its second file critic_DRUSEN_epoch_004.pth" in text
    assert text.count(": good") == 5
    assert "no checkpoint to back up" in manage(folder, "--backup", "critic_DRUSEN_epoch_003.pth", code=2)
    manage(folder, "--delete", "critic_DRUSEN_epoch_003.pth")


@pytest.mark.parametrize("word", ["generator", "critic"])
def test_either_name_stands_for_both(folder, word):
    name = f"{word}_DRUSEN_epoch_004.pth"
    shown = json.loads(manage(folder, "--show", name, "--json"))
    assert shown["file"].endswith("generator_DRUSEN_epoch_004.pth")
    assert shown["second"].endswith("critic_DRUSEN_epoch_004.pth")
    assert "generator_DRUSEN_epoch_004.pth and critic_DRUSEN_epoch_004.pth: good" in manage(folder, "--verify", name)
    manage(folder, "--backup", name)
    copies = sorted(p.name.split("_backup_") for p in (folder / "checkpoint_backups").glob("*.pth"))
    assert [stem for stem, _ in copies] == ["critic_DRUSEN_epoch_004", "generator_DRUSEN_epoch_004"]
    assert len({stamp for _, stamp in copies}) == 1
    damage(folder / "weights/history/critic_DRUSEN_epoch_004.pth")
    assert "is damaged" in manage(folder, "--verify", name, code=3)
    assert "damaged" in manage(folder, "--backup", name, code=3)
    manage(folder, "--delete", name)
    assert not [n for n in history(folder) if "epoch_004" in n]


@pytest.mark.parametrize("word", ["generator", "critic"])
def test_a_pair_named_by_its_fixed_name_is_backed_up_under_its_own_names(folder, word):
    manage(folder, "--backup", f"{word}_DRUSEN_local.pth")
    copies = sorted(p.name.split("_backup_")[0] for p in (folder / "checkpoint_backups").glob("*.pth"))
    assert copies == ["critic_DRUSEN_epoch_005", "generator_DRUSEN_epoch_005"]


def test_cleanup_keeps_of_each_run_what_pairs_keep(folder):
    text = manage(folder, "--cleanup", "--dry-run")
    assert text.count("Would remove weights") == 2
    manage(folder, "--cleanup")
    assert history(folder) == sorted(
        f"{w}_DRUSEN_epoch_00{e}.pth" for w in ("generator", "critic") for e in (1, 2, 4, 5)
    )
    assert len(history(folder, "CNV")) == 4


def test_cleanup_tells_no_second_file_as_gone_that_a_copy_of_its_first_needs(folder):
    shutil.copy(folder / "weights/history/generator_DRUSEN_epoch_003.pth", folder / "weights/history/my.pth")
    critic = folder / "weights/history/critic_DRUSEN_epoch_003.pth"
    freed = json.loads(manage(folder, "--list", "--json"))["cleanup_would_free"]
    dry = json.loads(manage(folder, "--cleanup", "--dry-run", "--json"))
    assert dry["bytes"] == freed
    done = json.loads(manage(folder, "--cleanup", "--json"))
    assert [os.path.basename(name) for name in done["removed"]] == ["generator_DRUSEN_epoch_003.pth"]  # noqa: PTH119 - as typed
    assert (dry["removed"], dry["bytes"]) == (done["removed"], done["bytes"])
    assert critic.exists()
    manage(folder, "--verify", "my.pth")


def test_cleanup_tells_what_went_before_it_was_refused(folder):
    """Of several runs in a folder a later one has no good survivor."""
    train(folder, "ATLAS", 5)
    for name in history(folder):
        damage(folder / "weights/history" / name)
    text = manage(folder, "--cleanup", code=3)
    assert "Removed weights/history/generator_ATLAS_epoch_003.pth" in text.replace(os.sep, "/")
    assert "so nothing is removed" in text
    assert len(history(folder)) == 10
    assert len(history(folder, "ATLAS")) == 8


def test_the_newest_that_is_deleted_does_not_come_back_by_its_fixed_names(folder):
    manage(folder, "--delete", "critic_CNV_epoch_002.pth")
    rows = listed(folder)
    assert rows["generator_CNV_local.pth"]["epoch"] == 1
    assert "second name" in manage(folder, "--delete", "critic_CNV_local.pth", code=2)
    manage(folder, "--delete", "generator_CNV_epoch_001.pth", code=2)
    assert history(folder, "CNV") == ["critic_CNV_epoch_001.pth", "generator_CNV_epoch_001.pth"]


def test_a_pair_copied_by_hand_is_one_thing_too(folder):
    (folder / "elsewhere").mkdir()
    for name in history(folder, "CNV"):
        shutil.copy(folder / "weights/history" / name, folder / "elsewhere")
    assert len(listed(folder, "elsewhere")) == 2
    assert manage(folder, "--verify", where="elsewhere").count(": good") == 2
    manage(folder, "--backup", "critic_CNV_epoch_001.pth", where="elsewhere")
    manage(folder, "--delete", "critic_CNV_epoch_001.pth", where="elsewhere")
    assert sorted(os.listdir(folder / "elsewhere"))[1:] == ["critic_CNV_epoch_002.pth", "generator_CNV_epoch_002.pth"]  # noqa: PTH208 - names


def test_two_backups_of_one_pair_are_four_files_on_disk(folder):
    before = json.loads(manage(folder, "--list", "--json"))
    for _ in range(2):
        manage(folder, "--backup", "generator_CNV_local.pth")
    copies = list((folder / "weights_backups").glob("*.pth")) or list((folder / "checkpoint_backups").glob("*.pth"))
    assert len(copies) == 4
    after = json.loads(manage(folder, "--list", "--json"))
    assert after["bytes"] == before["bytes"] + sum(copy.stat().st_size for copy in copies)
