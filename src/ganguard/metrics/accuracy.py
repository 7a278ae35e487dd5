"""How often a classifier of the real images recognises the class that a generator was asked for.

A small convolutional network is trained on nine tenths of the real images; how well it does on the last tenth says
what its verdict is worth. It is a judge for comparing generators on one data set, not a figure to publish.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xxhash
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ganguard import streams
from ganguard.errors import UsageError
from ganguard.metrics.samples import Sample, draw
from ganguard.reports import console
from ganguard.reports.console import counted
from ganguard.store import body, durable

EPOCHS = 12
_WIDTH = 32
_HELD_OUT = 10  # one image in so many
_BATCH = 64
_JUDGED_AT_ONCE = 250
_LEARNING_RATE = 3e-3
_WEIGHT_DECAY = 1e-3
_SHIFT = 2  # px, at most, in each direction
_FORMAT = 1

Say = Callable[[str], None]


@dataclass(frozen=True)
class Recognised:
    """Shares of generated images, 0 to 1, that were taken for the class asked for.

    ``held_out`` is the share of real images that the classifier never saw and recognises. An image that isn't
    finite counts as not recognised.
    """

    overall: float
    per_class: tuple[float, ...]
    held_out: float

    @property
    def worst(self) -> float:
        """Of the class that is recognised least."""
        return min(self.per_class)


class ClassAccuracy:
    """A classifier, trained at once or read from ``cache_dir``.

    Training is a function of the images, the labels, ``seed`` and ``epochs`` (and of the thread count), and draws
    from a stream of its own. Images are shifted by up to 2 px and flipped by chance.

    Args:
        images: (N, C, S, S) uint8, C = 1 or 3.
        labels: (N,) whole numbers from 0.
        cache_dir: where the trained classifier is kept; made where it isn't there.
        seed: of the first weights, the order, the augmentation and which images are held out.
        epochs: passes over the images that are not held out.
        device: where it is trained and judges.
        say: told what happens, a line at a time.

    Attributes:
        classes: the highest label and 1.
        held_out: accuracy on the images held out, 0 to 1.

    Raises:
        UsageError: images and labels don't fit each other, or are too few to hold some out.
    """

    def __init__(
        self,
        images: Tensor | NDArray[Any],
        labels: Tensor | NDArray[Any],
        *,
        cache_dir: Path,
        seed: int = 0,
        epochs: int = EPOCHS,
        device: torch.device | str = "cpu",
        say: Say = console.say,
    ) -> None:
        pixels, wanted = torch.as_tensor(images), torch.as_tensor(labels).long()
        _check(pixels, wanted)
        self.classes = int(wanted.max()) + 1
        self._device = torch.device(device)
        key = _key(pixels, wanted, seed, epochs)
        path = cache_dir / f"classifier-{key}.pt"
        with streams.Lent(streams.derive(seed, "classifier")).active():
            self._network = _network(pixels.shape[1], self.classes).to(self._device)
            order = torch.randperm(len(pixels))
            held, kept = order[: len(order) // _HELD_OUT], order[len(order) // _HELD_OUT :]
            if not _read(path, key, self._network):
                say(f"Training a classifier on {len(kept):,} real images, once.")
                self._train(pixels[kept], wanted[kept], epochs)
                _write(path, key, self._network, say)
        self._network.eval().requires_grad_(False)
        self.held_out = float((self._judge(pixels[held]) == wanted[held]).double().mean())
        say(f"The classifier recognises {self.held_out:.3f} of {len(held):,} real images that it never saw.")

    def measure(self, sample: Sample, *, samples: int, seed: int) -> Recognised:
        """Judge ``samples`` images; each class is asked for equally often, in turn.

        Latents come from a stream of their own under ``seed``: the same at every measurement.

        Raises:
            UsageError: fewer samples than classes, or what ``sample`` gives are not images.
        """
        if samples < self.classes:
            raise UsageError(f"{counted(samples, 'sample')} cannot reach each of {self.classes} classes. Ask for more.")
        generator = torch.Generator().manual_seed(streams.derive(seed, "class accuracy"))
        right = torch.zeros(self.classes, dtype=torch.float64)
        with streams.kept():
            for start in range(0, samples, _JUDGED_AT_ONCE):
                asked = torch.arange(start, min(start + _JUDGED_AT_ONCE, samples)) % self.classes
                images = draw(sample, asked, generator)
                if images is not None:
                    right += torch.bincount(asked[self._judge(images) == asked], minlength=self.classes)
        count = torch.bincount(torch.arange(samples) % self.classes, minlength=self.classes)
        return Recognised(float(right.sum()) / samples, tuple((right / count).tolist()), self.held_out)

    def _train(self, images: Tensor, labels: Tensor, epochs: int) -> None:
        optimizer = torch.optim.AdamW(self._network.parameters(), lr=_LEARNING_RATE, weight_decay=_WEIGHT_DECAY)
        steps = -(-len(images) // _BATCH)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=epochs * steps)
        for _ in range(epochs):
            for rows in torch.split(torch.randperm(len(images)), _BATCH):
                logits = self._network(_floats(_augmented(images[rows])).to(self._device))
                loss = functional.cross_entropy(logits, labels[rows].to(self._device))
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                schedule.step()

    @torch.no_grad()
    def _judge(self, images: Tensor) -> Tensor:
        """The class of each image, on the CPU."""
        parts = [
            self._network(_floats(part.to(self._device))).argmax(1).cpu()
            for part in torch.split(images, _JUDGED_AT_ONCE)
        ]
        return torch.cat(parts)


def _network(channels: int, classes: int) -> nn.Module:
    layers: list[nn.Module] = []
    for wide in (_WIDTH, 2 * _WIDTH, 4 * _WIDTH):
        layers += [
            nn.Conv2d(channels, wide, 3, padding=1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
        channels = wide
    return nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * channels, classes)
    )


def _augmented(images: Tensor) -> Tensor:
    """Each image shifted and perhaps flipped; the edge's pixels fill what comes free."""
    side = images.shape[-1]
    padded = functional.pad(images.float(), (_SHIFT,) * 4, mode="replicate")
    down, right = torch.randint(0, 2 * _SHIFT + 1, (2, len(images), 1))
    rows, columns = (torch.arange(side) + shift for shift in (down, right))
    flipped = torch.rand(len(images), 1) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    which = torch.arange(len(images))[:, None, None]
    return padded[which, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _floats(images: Tensor) -> Tensor:
    return images.float() / 127.5 - 1


def _check(images: Tensor, labels: Tensor) -> None:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3) or images.shape[-1] < 8:
        raise UsageError(
            f"A classifier takes images uint8 of shape (N, C, S, S), C = 1 or 3, S at least 8, not {images.dtype} of "
            f"{tuple(images.shape)}."
        )
    if labels.shape != (len(images),) or len(images) < _HELD_OUT or int(labels.min()) < 0:
        raise UsageError(
            f"A classifier takes one class, 0 or more, for each of at least {_HELD_OUT} images, not labels of "
            f"{tuple(labels.shape)} for {len(images)} images."
        )


def _key(images: Tensor, labels: Tensor, seed: int, epochs: int) -> str:
    settings = (_FORMAT, seed, epochs, _WIDTH, _BATCH, _LEARNING_RATE, _WEIGHT_DECAY, _SHIFT, tuple(images.shape))
    digest = xxhash.xxh3_128(repr(settings).encode())
    for tensor in (images, labels):
        digest.update(tensor.contiguous().cpu().numpy().data)
    return digest.hexdigest()[:16]


def _read(path: Path, key: str, network: nn.Module) -> bool:
    """Load a kept classifier; False where there is none, or not a whole one for ``key``."""
    try:
        content = body.load_file(path)
        if content["digest"] != _digest(key, content["state"]):
            return False
        network.load_state_dict(content["state"])
    except Exception:  # whatever is wrong with it, it can be made again
        return False
    return True


def _write(path: Path, key: str, network: nn.Module, say: Say) -> None:
    state = {name: tensor.cpu() for name, tensor in network.state_dict().items()}
    try:
        durable.make_folder(path.parent)
        with durable.written_atomically(path, "metrics") as file:
            torch.save({"state": state, "digest": _digest(key, state)}, file)
    except (OSError, RuntimeError) as error:  # RuntimeError: torch's own for a disk that filled up
        reason = durable.why(error) if isinstance(error, OSError) else str(error).splitlines()[0]
        say(f"The classifier can't be kept in {path}: {reason}. The next start trains it again.")


def _digest(key: str, state: dict[str, Tensor]) -> str:
    digest = xxhash.xxh3_128(key.encode())
    for name in sorted(state):
        digest.update(name.encode())
        digest.update(state[name].contiguous().numpy().data)
    return digest.hexdigest()
