"""Mirroring: half of the images, the same ones after a resume, with any number of workers; never when looking."""

import os
import signal

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from ganguard import Guard
from ganguard.data import LabelledImages, open_images
from ganguard.errors import Stopped


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def opened(cache_dir, **options):
    options = {"limit": 200, "flip": True, "say": lambda _: None, **options}
    return open_images("emoji", image_size=16, channels=3, cache_dir=cache_dir, **options)


@pytest.mark.parametrize("cache_limit", [10**9, 0], ids=["cached", "on the fly"])
def test_about_half_are_mirrored_and_the_rest_as_stored(cache_dir, tmp_path, cache_limit):
    found = opened(cache_dir if cache_limit else tmp_path, cache_limit=cache_limit)
    stored = opened(cache_dir, flip=False).__getitems__(range(200))[0]
    torch.manual_seed(0)
    images, labels = found.__getitems__(range(200))
    same = (images == stored).flatten(1).all(1)
    mirrored = (images == stored.flip(3)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 70 < int(mirrored.sum()) < 130
    assert np.array_equal(labels.numpy(), found.labels)


def test_it_is_the_same_set_and_single_items_are_mirrored_too(cache_dir):
    found, plain = opened(cache_dir), opened(cache_dir, flip=False)
    assert found.fingerprint == plain.fingerprint
    torch.manual_seed(0)
    assert len({found[3][0].numpy().tobytes() for _ in range(20)}) == 2


def test_looking_at_images_draws_nothing(cache_dir):
    found = opened(cache_dir)
    before = torch.get_rng_state()
    images, _ = found.as_stored().__getitems__(range(200))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(images, opened(cache_dir, flip=False).__getitems__(range(200))[0])
    found.__getitems__([0])
    assert not torch.equal(torch.get_rng_state(), before)


def seen_by(folder, dataset, *, workers, stop_at=None):
    """The batches that a guarded loop of two epochs is given until its end, or a signal in step ``stop_at``."""
    loader = DataLoader(
        dataset,
        batch_size=16,
        shuffle=True,
        num_workers=workers,
        collate_fn=LabelledImages.collate,
        multiprocessing_context="fork" if workers and os.name == "posix" else None,
    )
    batches = []
    try:
        with Guard(folder, {"net": nn.Linear(1, 1)}, say=lambda _: None) as guard:
            for _ in guard.epochs(2):
                for images, _ in guard.batches(loader):
                    batches.append(images.clone())
                    if guard.step + 1 == stop_at:
                        signal.raise_signal(signal.SIGINT)
    except Stopped:
        pass
    return batches


def test_a_resume_in_mid_epoch_and_workers_change_no_bit(cache_dir, tmp_path):
    found = opened(cache_dir)
    whole = seen_by(tmp_path / "whole", found, workers=0)
    assert len(whole) == 26
    first = seen_by(tmp_path / "stopped", found, workers=0, stop_at=5)
    second = seen_by(tmp_path / "stopped", found, workers=2, stop_at=18)
    third = seen_by(tmp_path / "stopped", found, workers=0)
    assert [len(part) for part in (first, second, third)] == [5, 13, 8]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip([*first, *second, *third], whole, strict=True))


def test_other_epochs_and_seeds_mirror_others(cache_dir):
    """Else half of the images would never be seen mirrored."""
    found = opened(cache_dir)

    def mirrored(seed):
        torch.manual_seed(seed)
        return (found.__getitems__(range(200))[0] != found.as_stored().__getitems__(range(200))[0]).flatten(1).any(1)

    assert not torch.equal(mirrored(1), mirrored(2))
