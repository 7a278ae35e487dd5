"""Law 4 for the progressive GAN: stopped anywhere and resumed, it ends bit for bit like an uninterrupted run."""

import json
import signal
import time

import pytest
import torch
from typed import differences

from ganguard.errors import Stopped
from ganguard.reports import console
from ganguard.store.resume import Request
from ganguard.training.progan import ProganTraining
from ganguard.training.progan_config import ProganConfig
from ganguard.training.progan_step import ProgressiveStep

# 40 images: 4 px for 1 epoch of 3 batches (16, 16, 8), 8 px for 2 of 4 batches (12, 12, 12, 4), 16 px for 2 of 5.
SETTINGS = {
    "img_size": 16,
    "batch_sizes": (8, 6, 4),
    "progressive_epochs": (1, 2, 2),
    "in_channels": 4,
    "z_dim": 4,
    "channels_img": 1,
    "limit_images": 40,
    "critic_iterations": 2,
    "auto_save_every_n_batches": 0,
    "threads": 1,
    "device": "cpu",
}
STEPS = 3 + 2 * 4 + 2 * 5
FREE = {
    "config.autosave_minutes",
    "config.batch_sizes",
    "config.progressive_epochs",
    "config.auto_save_every_n_batches",
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _machine():
    """What a run sets for its process."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(False)


def start(folder, cache, monkeypatch, *, stop_at=None, request=None, **settings):
    """One start of the trainer; a Ctrl+C comes within the step ``stop_at``, counted from 1. Returns what it said."""
    told, call = [], ProgressiveStep.__call__

    def stepping(self, images, stage, *, step, images_seen):
        if step + 1 == stop_at:
            signal.raise_signal(signal.SIGINT)
        return call(self, images, stage, step=step, images_seen=images_seen)

    folders = {name: str(folder / name) for name in ("weights_dir", "output_dir", "logs_dir")}
    config = ProganConfig(**{**SETTINGS, **folders, "cache_dir": str(cache), **settings})
    with monkeypatch.context() as patched:
        patched.setattr(ProgressiveStep, "__call__", stepping)
        patched.setattr(console, "say", lambda text="", **_: told.append(text))
        training = ProganTraining(config, request or Request(), told.append)
        if stop_at is None:
            training.run()
        else:
            with pytest.raises(Stopped):
                training.run()
    return told


def newest(folder, network="generator"):
    return folder / "weights_dir" / f"{network}_emoji_local.pth"


def journal(folder):
    (path,) = (folder / "logs_dir").glob("*/journal.jsonl")
    return [row for row in map(json.loads, path.read_text().splitlines()) if "loss_d" in row and "epoch_end" not in row]


def grids(folder):
    return {path.name: path.read_bytes() for path in folder.glob("output_dir/*/*.png")}


def assert_equal(folder, other):
    for network in ("generator", "critic"):
        different = differences(newest(folder, network), newest(other, network))
        assert [key for key in different if key.lstrip(".").split("[")[0] not in FREE] == []
    assert journal(folder) == journal(other)
    assert grids(folder) == grids(other)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, cache):
    folder = tmp_path_factory.mktemp("uninterrupted")
    with pytest.MonkeyPatch.context() as monkeypatch:
        start(folder, cache, monkeypatch)
    assert [row["step"] for row in journal(folder)] == list(range(1, STEPS + 1))
    assert len(grids(folder)) == 5 + 3  # of each epoch, and of real images of each size
    return folder


@pytest.mark.parametrize(
    "stops",
    [
        pytest.param([2], id="while stabilizing"),
        pytest.param([5], id="in mid-fade"),
        pytest.param([3], id="in the last batch before a growth"),
        pytest.param([4], id="in the first batch after a growth"),
        pytest.param([11, 12], id="on both sides of a growth"),
        pytest.param([6, 8, 13, 20], id="resumes of resumes"),
    ],
)
def test_stopped_and_resumed_it_ends_bit_for_bit_alike(uninterrupted, tmp_path, cache, monkeypatch, stops):
    for step in stops:
        start(tmp_path, cache, monkeypatch, stop_at=step)
    start(tmp_path, cache, monkeypatch)
    assert_equal(tmp_path, uninterrupted)


def test_saving_by_the_clock_changes_nothing(uninterrupted, tmp_path, cache, monkeypatch):
    told = start(tmp_path, cache, monkeypatch, autosave_minutes=1e-9)
    assert len([line for line in told if line.startswith("saved") and "_batch_" in line]) > STEPS / 2
    assert_equal(tmp_path, uninterrupted)


def test_a_clock_that_stands_still_changes_nothing(uninterrupted, tmp_path, cache, monkeypatch):
    """Windows' time.monotonic ticks 64 times a second, which is too seldom for a small epoch; here it never does."""
    for name in ("monotonic", "perf_counter"):
        now = getattr(time, name)()
        monkeypatch.setattr(time, name, lambda now=now: now)
    start(tmp_path, cache, monkeypatch)
    assert_equal(tmp_path, uninterrupted)
    history = torch.load(newest(tmp_path), weights_only=True)["history"]["epochs"]
    assert all(0 < row["images_per_second"] < float("inf") for row in history)


def order_of(folder, cache, monkeypatch, *, stop_at, **later):
    """The images in the order in which they were trained on, as their sums; at 4 px, as the last size."""
    seen, call = [], ProgressiveStep._train_critic

    def watching(self, reals, stage):
        seen.extend(((reals + 1) * 127.5).round().sum((1, 2, 3)).long().tolist())
        return call(self, reals, stage)

    settings = {"progressive_epochs": (2,), "img_size": 4, "sample_every": 0}
    with monkeypatch.context() as patched:
        patched.setattr(ProgressiveStep, "_train_critic", watching)
        if stop_at is not None:
            start(folder, cache, monkeypatch, stop_at=stop_at, **settings)
        start(folder, cache, monkeypatch, **settings, **later)
    return seen


def test_another_batch_size_from_within_an_epoch_on_sees_the_same_images_in_the_same_order(
    tmp_path, cache, monkeypatch
):
    straight = order_of(tmp_path / "straight", cache, monkeypatch, stop_at=None)
    changed = order_of(tmp_path / "changed", cache, monkeypatch, stop_at=2, batch_sizes=(3, 6, 4))
    assert len(set(straight)) > 20
    assert changed == straight
    with torch.no_grad():
        assert torch.load(newest(tmp_path / "changed"), weights_only=True)["progress"]["images"] == 80


def test_another_batch_size_leaves_level_and_alpha_a_function_of_the_images(tmp_path, cache, monkeypatch):
    """8 px begins at 40 images and fades until 80, whatever the batches."""
    seen, call = [], ProgressiveStep.__call__

    def watching(self, images, stage, *, step, images_seen):
        seen.append((images_seen, *stage))
        return call(self, images, stage, step=step, images_seen=images_seen)

    start(tmp_path, cache, monkeypatch, stop_at=5)
    monkeypatch.setattr(ProgressiveStep, "__call__", watching)
    start(tmp_path, cache, monkeypatch, batch_sizes=(8, 5, 10))
    assert seen[:6] == [(64, 1, 0.6), (74, 1, 0.85), (80, 1, 1), (90, 1, 1), (100, 1, 1), (110, 1, 1)]
    assert seen[6:] == [(120, 2, 0), (140, 2, 0.5), (160, 2, 1), (180, 2, 1)]


def test_a_run_without_memory_goes_on_alike_after_a_resume(tmp_path, cache, monkeypatch):
    """How many images fit is in the checkpoint: the run would otherwise begin again with more at once."""
    call = ProgressiveStep.critic_loss

    def limited(self, reals, *others):
        if len(reals) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return call(self, reals, *others)

    monkeypatch.setattr("ganguard.training.progan_trial.Trials.run", lambda self, say: None)
    monkeypatch.setattr(ProgressiveStep, "critic_loss", limited)
    told = start(tmp_path / "straight", cache, monkeypatch)
    assert "Out of memory: from now on 3 images at once" in "".join(told)
    start(tmp_path / "resumed", cache, monkeypatch, stop_at=6)
    told = start(tmp_path / "resumed", cache, monkeypatch)
    assert len([line for line in told if line.startswith("Out of memory")]) == 1  # at 16 px, not again at 8
    assert_equal(tmp_path / "resumed", tmp_path / "straight")


def test_in_images_a_growth_falls_into_a_pass_and_is_exact(tmp_path, cache, monkeypatch):
    """25 images at 4 px, then 10 to fade and 25 to stabilize: levels end within the passes through 40 images."""
    settings = {"stabilize_kimg": 0.025, "fade_kimg": 0.010, "img_size": 8, "batch_sizes": (4, 4)}
    start(tmp_path / "straight", cache, monkeypatch, **settings)
    for step in (3, 4, 5):
        start(tmp_path / "stopped", cache, monkeypatch, stop_at=step, **settings)
    start(tmp_path / "stopped", cache, monkeypatch, **settings)
    assert_equal(tmp_path / "stopped", tmp_path / "straight")
    end = torch.load(newest(tmp_path / "straight"), weights_only=True)
    assert end["progress"]["images"] == 64  # the first batch after 60
    assert [phase["begins"] for phase in end["growth"]["begun"]] == [0, 26]


def test_fewer_levels_than_have_begun_end_with_the_one_under_way(tmp_path, cache, monkeypatch):
    start(tmp_path, cache, monkeypatch, stop_at=5)
    start(tmp_path, cache, monkeypatch, progressive_epochs=(1,), batch_sizes=(8,))
    assert torch.load(newest(tmp_path), weights_only=True)["progress"]["images"] == 120


def test_an_edited_length_holds_from_then_on(tmp_path, cache, monkeypatch):
    """Cut from 25 images to 18 after 8: overstepped at 24, the level ended at 18, whenever it is looked at."""
    before = {"stabilize_kimg": 0.025, "fade_kimg": 0.010, "img_size": 8, "batch_sizes": (4, 4)}
    after = before | {"stabilize_kimg": 0.018}
    for folder, stops in ((tmp_path / "straight", ()), (tmp_path / "stopped", (3,))):
        start(folder, cache, monkeypatch, stop_at=1, **before)
        for step in stops:
            start(folder, cache, monkeypatch, stop_at=step, **after)
        start(folder, cache, monkeypatch, **after)
    assert_equal(tmp_path / "stopped", tmp_path / "straight")


def test_settings_of_a_passed_level_are_frozen_and_later_ones_may_change(uninterrupted, tmp_path, cache, monkeypatch):
    start(tmp_path / "a", cache, monkeypatch, stop_at=13)
    start(tmp_path / "a", cache, monkeypatch, batch_sizes=(2, 2, 4), progressive_epochs=(7, 1, 2))
    assert_equal(tmp_path / "a", uninterrupted)
    start(tmp_path / "b", cache, monkeypatch, stop_at=5)
    start(tmp_path / "b", cache, monkeypatch, progressive_epochs=(7, 2, 3))
    assert torch.load(newest(tmp_path / "b"), weights_only=True)["progress"]["images"] == 240


def test_the_newest_and_each_levels_end_are_kept(uninterrupted):
    """Epochs 1 and 3 end a level; 4 and 5 are the newest."""
    there = sorted(path.name for path in (uninterrupted / "weights_dir" / "history").glob("*.pth"))
    assert there == [
        f"{network}_emoji_epoch_00{epoch}.pth" for network in ("critic", "generator") for epoch in (1, 3, 4, 5)
    ]


@pytest.mark.parametrize("wrapped", [True, False])
def test_files_of_an_older_script_train_on_at_the_size_that_is_named(
    uninterrupted, tmp_path, cache, monkeypatch, wrapped
):
    """Written by plain torch.save: state_dict and optimizer, or bare weights. They tell no level; nothing fades in."""
    old = {}
    for network in ("generator", "critic"):
        held = torch.load(newest(uninterrupted, network), weights_only=True)
        old[network] = tmp_path / f"{network}.pth"
        kept = {"state_dict": held["state_dict"], "optimizer": held["optimizer"]}
        torch.save(kept if wrapped else kept["state_dict"], old[network])
    seen, call = [], ProgressiveStep.__call__

    def watching(self, images, stage, *, step, images_seen):
        if not seen:
            assert torch.equal(self.generator.base.weight, held_generator["state_dict"]["base.weight"])
            assert bool(self.generator_optimizer.state) is wrapped
        seen.append((images_seen, *stage))
        return call(self, images, stage, step=step, images_seen=images_seen)

    held_generator = torch.load(newest(uninterrupted), weights_only=True)
    monkeypatch.setattr(ProgressiveStep, "__call__", watching)
    request = Request(file=old["generator"], companion=old["critic"])
    told = start(tmp_path / "on", cache, monkeypatch, request=request, start_train_at_img_size=8)
    assert [(level, alpha) for _, level, alpha in seen[:8]] == [(1, 1.0)] * 8
    assert seen[8] == (80, 2, 0.0)
    assert any("no" in line.lower() and str(old["generator"].name) in line for line in told)
