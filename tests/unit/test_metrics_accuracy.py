"""The classifier that judges generated images: exact by its seed, kept, and right about what it is shown."""

import numpy as np
import pytest
import torch

from ganguard import streams
from ganguard.errors import UsageError
from ganguard.metrics import ClassAccuracy

SIZE = 12


def striped(labels, generator, *, channels=1, noise=30):
    """Class 0 has horizontal stripes, class 1 vertical ones, class 2 none."""
    line = torch.arange(SIZE) % 4 // 2 * 120
    patterns = torch.stack([line[:, None].expand(SIZE, SIZE), line.expand(SIZE, SIZE), torch.full((SIZE, SIZE), 60)])
    images = patterns[labels.long()][:, None] + noise * torch.randn(
        len(labels), channels, SIZE, SIZE, generator=generator
    )
    return (images + 60).round().clamp(0, 255).byte()


def real(count=300, channels=1):
    labels = torch.arange(count) % 3
    return striped(labels, torch.Generator().manual_seed(1), channels=channels), labels


def judge(tmp_path, *, epochs=2, channels=1, say=lambda _: None, **options):
    return ClassAccuracy(*real(channels=channels), cache_dir=tmp_path, epochs=epochs, say=say, **options)


def as_asked(labels, generator):
    return striped(labels, generator).float() / 127.5 - 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return judge(tmp_path_factory.mktemp("cache"), epochs=8)


def test_it_recognises_what_is_asked_for_and_misses_what_is_not(trained):
    assert trained.held_out > 0.9
    right = trained.measure(as_asked, samples=301, seed=0)
    assert right.overall > 0.9
    assert right.held_out == trained.held_out
    wrong = trained.measure(lambda labels, g: as_asked((labels + 1) % 3, g), samples=301, seed=0)
    assert wrong.overall < 0.1


def test_shares_are_per_class(trained):
    """A generator that only ever makes class 1: 1 for it, 0 for the others."""
    shares = trained.measure(lambda labels, g: as_asked(torch.ones_like(labels), g), samples=300, seed=0)
    assert shares.per_class[1] > 0.9
    assert max(shares.per_class[0], shares.per_class[2]) < 0.1
    assert shares.overall == pytest.approx(sum(shares.per_class) / 3)
    assert shares.worst == min(shares.per_class)


def weights(found):
    return torch.cat([tensor.flatten().double() for tensor in found._network.state_dict().values()])


def test_training_is_a_function_of_its_seed(tmp_path):
    first, again = judge(tmp_path / "a"), judge(tmp_path / "b")
    assert torch.equal(weights(first), weights(again))
    assert not torch.equal(weights(first), weights(judge(tmp_path / "a", seed=1)))


def test_it_is_trained_once(tmp_path):
    told = []
    first, kept = judge(tmp_path, say=told.append), judge(tmp_path, say=told.append)
    assert sum("Training" in line for line in told) == 1
    assert torch.equal(weights(first), weights(kept))
    assert kept.held_out == first.held_out
    judge(tmp_path, epochs=1, say=told.append)
    assert sum("Training" in line for line in told) == 2


def test_a_damaged_classifier_is_trained_again(tmp_path):
    first, told = judge(tmp_path), []
    (path,) = tmp_path.glob("classifier-*.pt")
    content = torch.load(path, weights_only=True)
    content["state"]["0.weight"][0, 0, 0, 0] += 1e-3
    torch.save(content, path)
    assert torch.equal(weights(judge(tmp_path, say=told.append)), weights(first))
    assert any("Training" in line for line in told)


def test_the_process_s_random_streams_stay_as_they_were(tmp_path):
    before = streams.own()
    judge(tmp_path, epochs=1).measure(as_asked, samples=30, seed=0)
    after = streams.own()
    assert after[0] == before[0]
    assert np.array_equal(after[1]["state"]["key"], before[1]["state"]["key"])
    assert after[1]["state"]["pos"] == before[1]["state"]["pos"]
    assert torch.equal(after[2], before[2])


def test_images_in_colour_and_numpy_arrays_will_do(tmp_path):
    images, labels = real(60, channels=3)
    found = ClassAccuracy(images.numpy(), labels.numpy(), cache_dir=tmp_path, epochs=1, say=lambda _: None)
    assert found.classes == 3


def test_images_that_are_not_finite_are_not_recognised(tmp_path):
    found = judge(tmp_path, epochs=1)
    assert found.measure(lambda labels, g: as_asked(labels, g) * float("nan"), samples=30, seed=0).overall == 0


def test_augmentation_shifts_and_flips_whole_images():
    """Every result is one of the 50 that shifting and flipping can give."""
    from torch.nn.functional import pad

    from ganguard.metrics.accuracy import _augmented

    image = torch.randint(0, 256, (1, 2, SIZE, SIZE), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    padded = pad(image.float(), (2, 2, 2, 2), mode="replicate")
    windows = [padded[0, :, r : r + SIZE, c : c + SIZE] for r in range(5) for c in range(5)]
    possible = torch.stack([*windows, *(window.flip(2) for window in windows)])
    with streams.Lent(0).active():
        results = _augmented(image.expand(400, -1, -1, -1))
    which = [(possible == result).flatten(1).all(1).nonzero().flatten().tolist() for result in results]
    assert all(len(found) == 1 for found in which)
    assert len({found[0] for found in which}) == 50


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (torch.zeros(20, 1, 12, 12), torch.zeros(20)),
        (torch.zeros(20, 2, 12, 12, dtype=torch.uint8), torch.zeros(20)),
        (torch.zeros(20, 1, 12, 12, dtype=torch.uint8), torch.zeros(19)),
        (torch.zeros(20, 1, 12, 12, dtype=torch.uint8), torch.full((20,), -1)),
        (torch.zeros(5, 1, 12, 12, dtype=torch.uint8), torch.zeros(5)),
    ],
    ids=["floats", "channels", "count", "negative", "too few"],
)
def test_what_does_not_fit_is_refused(tmp_path, images, labels):
    with pytest.raises(UsageError):
        ClassAccuracy(images, labels, cache_dir=tmp_path)


def test_samples_reach_every_class(tmp_path):
    with pytest.raises(UsageError, match="each of 3 classes"):
        judge(tmp_path, epochs=1).measure(as_asked, samples=2, seed=0)
