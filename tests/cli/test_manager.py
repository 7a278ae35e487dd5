"""checkpoint_manager.py as a person types it, on checkpoints that gan.py wrote."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from systems import remove_tree
from typed import GAN, MANAGER, REPOSITORY, TINY, run

from ganguard.store import envelope


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original")
    done = run(GAN, *TINY, "--epochs", 4, "--sample-every", 0, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture
def folder(original, tmp_path):
    """A copy that a test may change."""
    shutil.copytree(original / "checkpoints", tmp_path / "checkpoints")
    return tmp_path


def manage(folder, *words, code=0):
    done = run(MANAGER, *words, cwd=folder)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout + done.stderr


def files(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("*.pth"))


def flip(path, place=5000):
    content = bytearray(path.read_bytes())
    content[place] ^= 4
    path.chmod(0o644)
    path.write_bytes(content)


def test_list_tells_what_each_is(folder):
    manage(folder, "--backup", "checkpoint_epoch_002.pth")
    text = manage(folder, "--list")
    for word in ("latest, epoch", "alias", "backup", "losses", "whole", "on disk", "--cleanup would free"):
        assert word in text
    listed = json.loads(manage(folder, "--list", "--json"))
    by_name = {Path(row["file"]).name: row for row in listed["checkpoints"]}
    assert by_name["checkpoint_epoch_004.pth"]["step"] == 48
    assert by_name["checkpoint_epoch_004.pth"]["what"] == ["latest", "epoch"]
    assert set(by_name["checkpoint_epoch_004.pth"]["means"]) >= {"loss_d", "loss_g"}


def test_totals_count_bytes_once(folder):
    """A hard link to a checkpoint adds nothing."""
    before = json.loads(manage(folder, "--list", "--json"))["bytes"]
    os.link(folder / "checkpoints/checkpoint_epoch_001.pth", folder / "checkpoints/checkpoint_second_name.pth")
    assert json.loads(manage(folder, "--list", "--json"))["bytes"] == before


def test_listing_an_empty_and_a_missing_folder(tmp_path):
    assert "There is no folder checkpoints." in manage(tmp_path, "--list", code=2)
    assert json.loads(manage(tmp_path, "--list", "--json", code=2))["exists"] is False
    (tmp_path / "checkpoints").mkdir()
    assert "There are no checkpoints in checkpoints." in manage(tmp_path, "--list")
    assert json.loads(manage(tmp_path, "--list", "--json"))["checkpoints"] == []


def test_a_missing_folder_is_told_although_its_backups_are_there(folder):
    manage(folder, "--backup", "latest_checkpoint.pth")
    remove_tree(folder / "checkpoints")
    text = manage(folder, "--list", code=2)
    assert "There is no folder checkpoints." in text
    assert "backup" in text


def test_verify_finds_one_flipped_bit(folder):
    assert manage(folder, "--verify").count(": good") == 4
    flip(folder / "checkpoints/checkpoint_epoch_003.pth")
    text = manage(folder, "--verify", code=3)
    assert text.count(": good") == 3
    assert "checkpoint_epoch_003.pth: is damaged" in text
    assert json.loads(manage(folder, "--verify", "checkpoint_epoch_004.pth", "--json"))["verified"][0]["good"]


def test_backup_is_verified_and_never_over_another(folder):
    for _ in range(2):
        assert "Backed up and verified" in manage(folder, "--backup", "latest_checkpoint.pth")
    copies = list((folder / "checkpoint_backups").glob("*.pth"))
    assert len(copies) == 2
    assert {copy.read_bytes() for copy in copies} == {(folder / "checkpoints/checkpoint_epoch_004.pth").read_bytes()}
    flip(folder / "checkpoints/checkpoint_epoch_001.pth")
    assert "damaged" in manage(folder, "--backup", "checkpoint_epoch_001.pth", code=3)
    assert len(list((folder / "checkpoint_backups").glob("*.pth"))) == 2


def test_training_goes_on_from_a_backup(folder):
    manage(folder, "--backup", "checkpoint_epoch_002.pth")
    (copy,) = (folder / "checkpoint_backups").glob("*.pth")
    remove_tree(folder / "checkpoints")
    done = run(GAN, "--checkpoint-path", copy, "--epochs", 3, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed from step 24" in done.stdout
    again = run(GAN, "--checkpoint-path", copy, "--epochs", 3, cwd=folder)
    assert "All 3 epochs are done" in again.stdout


def test_cleanup_keeps_what_it_says(folder):
    assert "checkpoint_epoch_001.pth" in manage(folder, "--cleanup", "--keep-latest", 2, "--dry-run")
    assert len(files(folder)) == 5
    listed = manage(folder, "--cleanup", "--keep-latest", 2, "--keep-every", 0)
    assert "Removed" in listed
    assert files(folder) == ["checkpoint_epoch_003.pth", "checkpoint_epoch_004.pth", "latest_checkpoint.pth"]
    assert "Nothing to remove" in manage(folder, "--cleanup", "--keep-latest", 2)
    listed = manage(folder, "--cleanup", "--keep-latest", 1, "--keep-every", 0)
    assert "\nRemoved 1 file; " in listed


def test_cleanup_removes_nothing_where_no_survivor_is_good(folder):
    for epoch in (3, 4):
        flip(folder / f"checkpoints/checkpoint_epoch_00{epoch}.pth")
    assert "nothing is removed" in manage(folder, "--cleanup", "--keep-latest", 2, code=3)
    assert len(files(folder)) == 5


def test_cleanup_of_what_was_set_aside(folder):
    assert run(GAN, *TINY, "--epochs", 1, "--no-checkpoint", cwd=folder).returncode == 0
    assert "set aside" in manage(folder, "--list")
    taken = sum(path.stat().st_size for path in (folder / "checkpoints/set_aside").rglob("*") if path.is_file())
    would = json.loads(manage(folder, "--cleanup", "--set-aside", "--dry-run", "--json"))
    assert would["bytes"] == taken
    assert "Removed" in manage(folder, "--cleanup", "--set-aside")
    assert not (folder / "checkpoints/set_aside").exists()
    assert files(folder) == ["checkpoint_epoch_001.pth", "latest_checkpoint.pth"]


def test_delete_refuses_the_last_good_one(folder):
    for epoch in (1, 2, 3):
        manage(folder, "--delete", f"checkpoint_epoch_00{epoch}.pth")
    assert "last good checkpoint" in manage(folder, "--delete", "checkpoint_epoch_004.pth", code=2)
    assert "second name" in manage(folder, "--delete", "latest_checkpoint.pth", code=2)
    assert files(folder) == ["checkpoint_epoch_004.pth", "latest_checkpoint.pth"]
    manage(folder, "--delete", "checkpoint_epoch_004.pth", "--force")
    assert files(folder) == []


def test_deleting_the_last_of_a_folder_tells_which_backup_is_left(folder):
    manage(folder, "--backup", "checkpoint_epoch_004.pth")
    (copy,) = (folder / "checkpoint_backups").glob("*.pth")
    assert "last good checkpoint" not in manage(folder, "--delete", "checkpoint_epoch_001.pth")
    for epoch in (2, 3):
        manage(folder, "--delete", f"checkpoint_epoch_00{epoch}.pth")
    text = manage(folder, "--delete", "checkpoint_epoch_004.pth")
    assert "was the last good checkpoint of its run in checkpoints" in text
    assert f"--checkpoint-path {copy}" in text
    assert files(folder) == []


def test_the_best_pair_is_told_by_what_its_json_says(folder):
    """Its files are bare weights; the JSON beside them vouches for them."""
    import torch

    models = folder / "models"
    models.mkdir()
    names = ("best_generator.pth", "best_discriminator.pth")
    for name in names:
        torch.save({"weight": torch.ones(3)}, models / name)
    digests = {name: envelope.file_digest(models / name) for name in names}
    score = {"name": "fid", "value": 12.5, "about": {"extractor": "mine"}}
    about = {"network": "cgan", "spec": {"image_size": 32}, "discriminator": {}, "score": score, "epoch": 7}
    manifest = json.dumps({**about, "step": 84, "digests": digests, "versions": {}, "format": 1})
    (models / "best_generator.json").write_text(manifest)
    for name, network in zip(names, ("generator", "discriminator"), strict=True):
        text = manage(folder, "--show", models / name)
        assert f"bare weights of the best {network}" in text
        assert '"value": 12.5' in text
        assert "older" not in text
        assert json.loads(manage(folder, "--show", models / name, "--json"))["epoch"] == 7
        assert ": good" in manage(folder, "--verify", models / name, "--checkpoint-dir", "models")
    flip(models / names[0], place=300)
    assert "damaged" in manage(folder, "--verify", models / names[0], "--checkpoint-dir", "models", code=3)
    assert "not the file that best_generator.json describes" in manage(folder, "--show", models / names[0])


def test_a_deleted_newest_does_not_come_back(folder):
    manage(folder, "--delete", "checkpoint_epoch_004.pth")
    done = run(GAN, "--epochs", 3, cwd=folder)
    assert "epoch 3 finished" in done.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--delete", "../outside.pth"], "outside"),
        (["--delete", "checkpoints/run.json"], "no checkpoint"),
        (["--delete", "misspelt.pth"], "no file"),
        (["--backup", "misspelt.pth"], "no file"),
        (["--verify", "misspelt.pth"], "no file"),
        (["--show", "misspelt.pth"], "no file"),
        (["--list", "--dry-run"], "belongs to --cleanup"),
        (["--list", "--force"], "belongs to --delete"),
        (["--cleanup", "--keep-latest", "0"], "at least 1"),
        (["--verify", "--checkpoint-dir", "nowhere"], "no folder"),
    ],
)
def test_refusals_give_the_reason(folder, words, message):
    shutil.copy(folder / "checkpoints/checkpoint_epoch_001.pth", folder.parent / "outside.pth")
    assert message in manage(folder, *words, code=2)
    assert len(files(folder)) == 5


class Harmful:
    """Runs a command when it is unpickled by the usual pickle."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.system, (f'echo ran > "{self.marker}"',)


def test_a_file_made_to_run_code_is_refused_without_running_it(folder):
    """Law 6: listed, verified, named: never run."""
    import torch

    marker = folder / "it_ran"
    for number, protocol in enumerate((torch.save, pickle.dump)):
        path = folder / f"checkpoints/checkpoint_epoch_01{number}.pth"
        if protocol is torch.save:
            torch.save({"generator": Harmful(marker)}, path)
        else:
            with path.open("wb") as file:
                pickle.dump({"generator": Harmful(marker)}, file)
        manage(folder, "--list")
        manage(folder, "--show", path)
        manage(folder, "--verify", path, code=3)
        done = run(GAN, "--checkpoint-path", path, cwd=folder)
        assert done.returncode == 3, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        assert (
            f"{os.name}.system" in done.stderr
            or "not a file" in done.stderr
            or "damaged" in done.stderr
            or "incomplete" in done.stderr
            or "could run code from it" in done.stderr
        )
    assert not marker.exists()


def test_safe_beside_a_running_training(tmp_path):
    """Cleaning up, backing up and verifying in a loop while a training saves: nobody fails, it ends well."""
    words = [*TINY, "--epochs", "12", "--autosave-batches", "3", "--sample-every", "0"]
    training = subprocess.Popen([*GAN, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    assert any("saved" in line for line in training.stdout)
    while training.poll() is None:
        manage(tmp_path, "--cleanup", "--keep-latest", 1, "--keep-every", 0)
        manage(tmp_path, "--backup", "latest_checkpoint.pth")
        manage(tmp_path, "--list")
    training.communicate()
    assert training.returncode == 0
    assert manage(tmp_path, "--verify").count("damaged") == 0


def test_no_torch_is_imported_by_any_action(folder):
    for words in (["--list"], ["--verify"], ["--cleanup"], ["--backup", "latest_checkpoint.pth"]):
        code = (
            f"import sys; from ganguard.cli.checkpoints import main; main({words!r}); sys.exit('torch' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def test_ganguard_checkpoints_is_the_same_command(folder):
    same = [sys.executable, "-m", "ganguard", "checkpoints"]
    assert run(same, "--verify", cwd=folder).stdout == run(MANAGER, "--verify", cwd=folder).stdout
    assert (REPOSITORY / "checkpoint_manager.py").exists()
