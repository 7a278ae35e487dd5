"""What does not fit into a summary is read from the body, and never forgotten."""

from __future__ import annotations

import errno
import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from forging import forge, put
from stores import damage, finished, python, save
from systems import remove

from ganguard import Guard, load_generator
from ganguard.cli import cgan, checkpoints
from ganguard.store import catalog, envelope, resume, retention, spared
from ganguard.store.catalog import Catalog
from ganguard.store.resume import Request
from ganguard.store.summary import Kind, Summary
from ganguard.training.cgan_step import CganStep

NAMES = [f"attribute_{number:04d}_{'x' * 70}" for number in range(700)]  # 60 kB, as thousands of class names take
SMALL = ["--width", "4", "--latent-size", "4", "--batch-size", "4", "--threads", "1", "--fid-every", "0"]


def _labels(image: int) -> list[str]:
    return ["1" if (place + image) % 2 else "-1" for place in range(len(NAMES))]


@pytest.fixture
def many_names(tmp_path, monkeypatch):
    """A run of gan.py, trained for an epoch, whose settings do not fit into a summary."""
    monkeypatch.chdir(tmp_path)
    Path("images").mkdir()
    for number in range(8):
        Image.new("L", (32, 32), number).save(f"images/{number}.png")
    rows = [",".join(["image", *NAMES]), *(",".join([f"{n}.png", *_labels(n)]) for n in range(8))]
    Path("table.csv").write_text("\n".join(rows))
    words = ["--data", "images", "--attributes", "table.csv", "--channels", "1", "--sample-every", "0", "--epochs", "1"]
    assert cgan.main([*words, *SMALL]) == 0
    remove(Path("checkpoints/latest_checkpoint.pth"))  # the newest there is under its own name only
    return Path("checkpoints/checkpoint_epoch_001.pth")


def test_a_resumed_run_does_not_ask_for_settings_that_do_not_fit_into_the_summary(many_names, capsys):
    entry = catalog.read(many_names)
    assert entry.summary.config is None
    assert entry.summary.spared == ("config",)
    capsys.readouterr()
    assert cgan.main([]) == 0  # with the defaults it would train on other images
    assert "The only epoch is done" in capsys.readouterr().out
    assert checkpoints.main(["--show", str(many_names), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["label_names"] == NAMES
    assert list(load_generator(many_names).label_names) == NAMES
    assert cgan.main(["--latent-size", "5"]) == 3
    assert "latent_size: 5 here, 4 in the checkpoint" in capsys.readouterr().err
    saved_before_that_was_written_down(many_names)
    assert cgan.main([]) == 0
    assert "The only epoch is done" in capsys.readouterr().out


def saved_before_that_was_written_down(path: Path) -> None:
    forge(path, lambda body, summary: summary.pop("spared"))
    assert catalog.read(path).summary.spared == ("config",)


def test_a_damaged_newest_checkpoint_is_stepped_over_where_the_settings_are_in_the_body(many_names, capsys):
    words = ["--epochs", "2"]
    assert cgan.main(words) == 0
    damage(Path("checkpoints/checkpoint_epoch_002.pth"))
    remove(Path("checkpoints/latest_checkpoint.pth"))
    capsys.readouterr()
    assert cgan.main(words) == 0
    said = capsys.readouterr().out
    assert "checkpoint_epoch_002.pth is damaged" in said
    assert "Resumed from" in said


def test_means_best_and_score_that_do_not_fit_are_read_too(tmp_path):
    """A loop that logs a thousand values, and scores with an account of how that takes more than a comment holds."""
    net = nn.Linear(1, 1)
    about = {f"setting {number:04d} of the extractor": "x" * 40 for number in range(700)}
    with Guard(tmp_path, {"net": net}, config={"a": "x" * 50_000}, say=lambda text: None) as guard:
        for epoch in guard.epochs(3):
            guard.tick()
            guard.log(**{f"a_value_with_a_long_name_{number:04d}": float(number) for number in range(1500)})
            guard.score(fid=float(abs(epoch - 2)), about=about)
    there = Catalog.of(tmp_path)
    heads = sorted(there.heads, key=lambda entry: entry.summary.epoch)
    assert set(heads[0].summary.spared) == {"config", "means", "versions", "best", "score"}
    whole = spared.whole(heads[0])
    assert whole.config["a"] == "x" * 50_000
    assert whole.means["a_value_with_a_long_name_1499"] == 1499.0
    assert whole.score["value"] == 1.0
    assert whole.best["about"] == about
    assert whole.versions["torch"] == torch.__version__
    assert [entry.summary.epoch for entry in retention.best(heads)] == [2]
    assert spared.value_of(heads[2], "best")["value"] == 0.0
    assert resume.settings(tmp_path, Request())[1]["a"] == "x" * 50_000


def test_listing_takes_no_torch_although_settings_are_spared(tmp_path):
    save(tmp_path, 1, config={"a": "x" * 60_000})
    code = (
        "import sys; from ganguard.cli import checkpoints; code = checkpoints.main(['--checkpoint-dir', sys.argv[1], "
        "'--list']); assert code == 0 and 'torch' not in sys.modules"
    )
    finished(python(code, tmp_path))


def test_a_body_that_lies_about_what_was_spared_is_refused(many_names, capsys):
    forge(many_names, lambda body, summary: put(body, ("config",), ["x"]))
    assert cgan.main([]) == 3
    assert "makes no sense" in capsys.readouterr().err
    assert checkpoints.main(["--show", str(many_names)]) == 0
    assert checkpoints.main(["--list"]) == 0


def test_a_summary_says_what_it_spares():
    about = Summary(kind=Kind.EPOCH, name="a.pth", config={"a": "x" * 60_000}, means={"loss": 1.0})
    values = about.to_json()
    assert values["spared"] == ("config",)
    assert values["means"] == {"loss": 1.0}
    assert envelope.fits(values)


def test_a_full_disk_of_the_steps_own_is_not_called_a_loss_of_nothing(many_names, monkeypatch, capsys):
    """Law 8: a run that ends with its newest state not on disk says so by its exit code."""
    step, done = CganStep.__call__, []

    def on_a_full_disk(self, *words, **more):
        done.append(1)
        if len(done) == 2:
            raise OSError(errno.ENOSPC, "No space left on device", "/dev/shm/torch_1")
        return step(self, *words, **more)

    monkeypatch.setattr(CganStep, "__call__", on_a_full_disk)
    assert cgan.main(["--epochs", "2"]) == 6
    said = "".join(capsys.readouterr())
    assert "/dev/shm/torch_1: the disk is full" in said
    assert "what came after the last save is lost" in said
    assert "Nothing was lost" not in said
