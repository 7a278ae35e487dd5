"""The Fréchet distance: the published formula, the same number from the cache, no trace in random streams."""

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ganguard import streams
from ganguard.errors import UsageError
from ganguard.metrics import Fid, real_sums
from ganguard.metrics.extractors import Extractor

SIZE = 8
FEATURES = 12


class Images:
    """Real images in memory, with what FID asks of a data set; counts how often each is read."""

    name = "drawn"

    def __init__(self, count=120, channels=3, seed=0, fingerprint="f00d"):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.randint(0, 256, (count, channels, SIZE, SIZE), generator=generator, dtype=torch.uint8)
        self.labels = np.sort(np.arange(count) % 4)
        self.fingerprint = fingerprint
        self.read = Counter()

    def __len__(self):
        return len(self.images)

    def __getitems__(self, indices):
        self.read.update(indices)
        return self.images[indices], torch.from_numpy(self.labels[indices])


def small_extractor(seed=0, *, name="small", weights="0123"):
    """A random projection of the pixels, nonlinear, as a stand-in for a network of millions of weights."""
    with streams.Lent(seed).active():
        layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, FEATURES), nn.Tanh())

    class Floats(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = layers

        def forward(self, images):
            return self.layers(images.float() / 64 - 2)

    return Extractor(Floats(), name=name, weights=weights, features=FEATURES, resize="none")


def generator_of(channels=3, *, gain=0.5):
    """Images whose brightness depends on the label, drawn from the generator that the metric gives."""

    def sample(labels, generator):
        noise = torch.randn(len(labels), channels, SIZE, SIZE, generator=generator)
        return gain * noise + labels[:, None, None, None] / 8

    return sample


def fid_of(dataset, tmp_path, extractor=None, *, samples=70, say=lambda _: None, **options):
    return Fid(dataset, extractor or small_extractor(), samples=samples, cache_dir=tmp_path, seed=5, say=say, **options)


def heusel(real, fake):
    """|m - m_w|² + Tr(C + C_w - 2 (C C_w)^(1/2)), Heusel et al. 2017, equation 6.

    The trace of the root of C C_w is that of the symmetric root of R C_w R, where R R = C: the two are similar.
    """

    def root(symmetric):
        values, vectors = np.linalg.eigh(symmetric)
        return vectors * np.sqrt(np.clip(values, 0, None)) @ vectors.T

    difference = fake.mean(0) - real.mean(0)
    c, c_w = np.cov(fake, rowvar=False), np.cov(real, rowvar=False)
    half = root(c)
    return difference @ difference + np.trace(c + c_w) - 2 * np.trace(root(half @ c_w @ half))


def by_hand(extractor, real, fake):
    as_bytes = ((fake.clamp(-1, 1) + 1) * 255 / 2).round().to(torch.uint8)
    return heusel(*(extractor(part).numpy() for part in (real, as_bytes)))


def drawn_at_once(dataset, samples, sample):
    """What the metric's batches draw, computed in one piece per batch of 50."""
    generator = torch.Generator().manual_seed(streams.derive(5, "fid"))
    labels = torch.from_numpy(dataset.labels)
    rows = [i * len(dataset) // samples for i in range(samples)]
    return torch.cat([sample(labels[rows[i : i + 50]], generator) for i in range(0, samples, 50)])


@pytest.mark.parametrize("channels", [1, 3])
def test_it_is_the_published_formula(tmp_path, channels):
    """Against numpy, from features that the test extracts itself."""
    dataset, extractor, sample = Images(channels=channels), small_extractor(), generator_of(channels)
    score = fid_of(dataset, tmp_path, extractor).score(sample)
    expected = by_hand(extractor, dataset.images, drawn_at_once(dataset, 70, sample))
    assert expected > 0.01
    assert score.value == pytest.approx(expected, rel=1e-9)


def test_cached_sums_give_the_same_number_and_read_no_image(tmp_path):
    first, second = Images(), Images()
    value = fid_of(first, tmp_path).score(generator_of())
    assert set(first.read.values()) == {1}
    assert len(first.read) == len(first)
    assert fid_of(second, tmp_path).score(generator_of()) == value
    assert not second.read


def test_every_score_is_of_the_same_latents(tmp_path):
    fid = fid_of(Images(), tmp_path)
    assert fid.score(generator_of()) == fid.score(generator_of())
    assert fid.score(generator_of()).value < fid.score(generator_of(gain=0.1)).value


@pytest.mark.parametrize(
    "other",
    [
        {"extractor": small_extractor(name="other")},
        {"extractor": small_extractor(weights="4567")},
        {"dataset": Images(fingerprint="beef")},
        {"reals_at_most": 60},
    ],
    ids=["name", "weights", "data", "count"],
)
def test_what_differs_has_sums_of_its_own(tmp_path, other):
    fid_of(Images(), tmp_path).score(generator_of())
    dataset = other.pop("dataset", None) or Images()
    fid_of(dataset, tmp_path, **other).score(generator_of())
    assert len(list(tmp_path.glob("drawn-fid-*.pt"))) == 2


def test_a_score_says_all_that_makes_it_incomparable(tmp_path):
    about = fid_of(Images(), tmp_path).score(generator_of()).about
    assert {k: v for k, v in about.items() if k != "data"} == {
        "extractor": "small",
        "weights": "0123",
        "resize": "none",
        "samples": 70,
        "reals": 120,
        "size": SIZE,
        "channels": 3,
    }
    assert fid_of(Images(), tmp_path / "elsewhere").score(generator_of()).about == about
    other = fid_of(Images(seed=1, fingerprint="beef"), tmp_path).score(generator_of()).about
    assert other == about | {"data": other["data"]}
    assert other["data"] != about["data"]


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return Path.mkdir, (Path(self.folder),)


def damage(path, how):
    content = torch.load(path, weights_only=True)
    if how == "cut off":
        path.write_bytes(path.read_bytes()[:-1000])
    elif how == "a number changed":
        content["sums"]["products"][3, 4] += 1e-9
        torch.save(content, path)
    elif how == "of something else":
        key = {"extractor": "other"}
        real_sums.write(path, key, real_sums.Sums(**content["sums"]), print)
    elif how == "code in it":
        torch.save({"sums": Trap(path.parent / "code ran")}, path)


@pytest.mark.parametrize("how", ["cut off", "a number changed", "of something else", "code in it"])
def test_a_file_that_is_not_what_it_should_be_is_computed_again(tmp_path, how):
    value = fid_of(Images(), tmp_path).score(generator_of())
    (path,) = tmp_path.glob("drawn-fid-*.pt")
    damage(path, how)
    again = Images()
    assert fid_of(again, tmp_path).score(generator_of()) == value
    assert len(again.read) == 120
    assert not (tmp_path / "code ran").exists()
    third = Images()
    assert fid_of(third, tmp_path).score(generator_of()) == value
    assert not third.read


def test_real_images_beyond_the_most_are_evenly_chosen(tmp_path):
    dataset = Images()
    fid_of(dataset, tmp_path, reals_at_most=30).score(generator_of())
    assert sorted(dataset.read) == list(range(0, 120, 4))


@pytest.mark.parametrize("samples", [40, 300])
def test_labels_are_asked_for_as_the_data_has_them(tmp_path, samples):
    dataset, asked = Images(), Counter()
    dataset.labels = np.repeat([0, 1, 2], [60, 30, 30])

    def sample(labels, generator):
        asked.update(labels.tolist())
        return generator_of()(labels, generator)

    fid_of(dataset, tmp_path, samples=samples).score(sample)
    assert asked == {0: samples // 2, 1: samples // 4, 2: samples // 4}


def test_rows_of_attributes_come_as_they_are(tmp_path):
    dataset = Images()
    dataset.labels = np.stack([dataset.labels % 2, dataset.labels // 2], 1).astype(np.uint8)

    def sample(labels, generator):
        assert labels.dtype == torch.uint8
        assert labels.shape[1] == 2
        return generator_of()(labels[:, 0], generator)

    assert fid_of(dataset, tmp_path).score(sample).value > 0


def test_the_process_s_random_streams_stay_as_they_were(tmp_path):
    """Also where the data set draws while an image is decoded, and from the first to the last line."""

    class Drawing(Images):
        def __getitems__(self, indices):
            torch.rand(1), np.random.rand(), random.random()
            return super().__getitems__(indices)

    before = streams.capture_host()
    fid = fid_of(Drawing(), tmp_path)
    assert str(streams.capture_host()) == str(before)
    fid.score(generator_of())
    after = streams.capture_host()
    assert after["python"] == before["python"]
    assert torch.equal(after["torch"], before["torch"])
    assert torch.equal(after["numpy"][1], before["numpy"][1])
    assert after["numpy"][2:] == before["numpy"][2:]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_generator_that_diverged_scores_nan(tmp_path, value):
    def sample(labels, generator):
        images = generator_of()(labels, generator)
        images[-1, 0, 0, 0] = value
        return images

    fid = fid_of(Images(), tmp_path)
    score = fid.score(sample)
    assert np.isnan(score.value)
    assert score.about == fid.score(generator_of()).about


def test_a_collapsed_generator_has_a_score(tmp_path):
    value = fid_of(Images(), tmp_path).score(lambda labels, _: torch.zeros(len(labels), 3, SIZE, SIZE)).value
    assert np.isfinite(value)
    assert value > 0


def test_a_score_that_is_broken_off_leaves_nothing(tmp_path):
    """Among the real images and among the generated ones; the next score is what it would have been."""
    expected = fid_of(Images(), tmp_path / "whole").score(generator_of())
    calls = []

    def between():
        calls.append(1)
        if len(calls) in (2, 6):
            raise KeyboardInterrupt

    fid = fid_of(Images(), tmp_path / "broken off")
    with pytest.raises(KeyboardInterrupt):
        fid.score(generator_of(), between=between)
    assert not (tmp_path / "broken off").exists()
    with pytest.raises(KeyboardInterrupt):
        fid.score(generator_of(), between=between)
    assert fid.score(generator_of(), between=between) == expected


def test_too_few_samples_are_said_once(tmp_path):
    told = []
    fid = fid_of(Images(), tmp_path, samples=FEATURES - 1, say=told.append)
    assert np.isfinite(fid.score(generator_of()).value)
    fid.score(generator_of())
    assert sum("fewer images than features" in line for line in told) == 1
    told.clear()
    fid_of(Images(), tmp_path, samples=FEATURES, say=told.append)
    assert not told


def test_sums_that_cannot_be_kept_are_said_and_cost_nothing(tmp_path):
    told = []
    (tmp_path / "file").touch()
    score = fid_of(Images(), tmp_path / "file" / "cache", say=told.append).score(generator_of())
    assert np.isfinite(score.value)
    assert any("can't be kept" in line for line in told)


@pytest.mark.parametrize(("count", "samples"), [(1, 10), (10, 1)])
def test_one_image_is_refused(tmp_path, count, samples):
    with pytest.raises(UsageError, match="at least 2"):
        fid_of(Images(count), tmp_path, samples=samples)


def test_images_of_another_shape_are_refused(tmp_path):
    with pytest.raises(UsageError, match="can't be scored"):
        fid_of(Images(), tmp_path).score(generator_of(channels=1))
    with pytest.raises(UsageError, match="one image"):
        fid_of(Images(), tmp_path).score(lambda labels, generator: generator_of()(labels[1:], generator))
