"""Law 4, for gan.py as it is typed: stopped and resumed, it ends bit for bit like an uninterrupted run."""

import json

import pytest
from systems import STOP, TERMINATE
from typed import GAN, TINY, differences, run, run_and_signal


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = run(GAN, *TINY, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def steps_of(folder):
    """Step rows and epoch rows of the only journal."""
    (journal,) = folder.glob("logs/*/journal.jsonl")
    rows = [json.loads(line) for line in journal.read_text().splitlines()]
    rows = [row for row in rows if "savings" not in row]
    ends = [{k: v for k, v in row.items() if k != "images_per_second"} for row in rows if "epoch_end" in row]
    return [row for row in rows if "epoch_end" not in row and "tail" not in row], ends


def pictures(folder):
    return {path.name: path.read_bytes() for path in folder.glob("samples/*/*.png")}


def assert_equal(folder, other):
    assert differences(folder / "checkpoints/latest_checkpoint.pth", other / "checkpoints/latest_checkpoint.pth") == []
    assert pictures(folder) == pictures(other)
    assert len(pictures(folder)) == 3 + 1  # of each epoch, and of real images
    assert steps_of(folder) == steps_of(other)
    assert [row["step"] for row in steps_of(folder)[0]] == list(range(1, 37))


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_within_an_epoch_and_sigterm_to_the_group(uninterrupted, tmp_path, workers):
    """Stopped twice, in two ways, with save intervals changed between."""
    words = [*TINY, "--workers", workers]
    code, text = run_and_signal(GAN, *words, "--autosave-batches", 5, cwd=tmp_path, at="batch_00005", delay=0.05)
    assert code == 128 + STOP, text
    assert "To go on: " in text
    code, text = run_and_signal(
        GAN, *words, "--autosave-batches", 4, cwd=tmp_path, at="epoch_002_batch_0000", number=TERMINATE, group=True
    )
    assert code == 128 + TERMINATE, text
    assert "Traceback" not in text
    done = run(GAN, *words, "--checkpoint-interval", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed from step" in done.stdout
    assert_equal(tmp_path, uninterrupted)


def test_at_an_epochs_end(uninterrupted, tmp_path):
    """A stop that comes in the epoch's tail is honoured at its end, and needs no emergency save."""
    for epoch in (1, 2):
        code, text = run_and_signal(GAN, *TINY, cwd=tmp_path, at=f"epoch {epoch}: loss")
        assert code == 128 + STOP, text
        assert f"checkpoint_epoch_00{epoch}.pth" in text
    assert run(GAN, *TINY, cwd=tmp_path).returncode == 0
    assert_equal(tmp_path, uninterrupted)


def test_the_settings_of_the_run_need_not_be_typed_again(uninterrupted, tmp_path):
    code, text = run_and_signal(GAN, *TINY, "--autosave-batches", 5, cwd=tmp_path, at="batch_00005")
    assert code == 128 + STOP, text
    assert run(GAN, cwd=tmp_path).returncode == 0
    assert_equal(tmp_path, uninterrupted)
