"""Images with labels, decoded once.

- ``finding``   which source a name or a path stands for; ``torchvision_sets`` those that torchvision knows
- ``sources``   the bytes of images in a folder; ``zips`` in a zip; ``arrays`` and ``idx`` sets that aren't image files
- ``exclusions`` which folders are no data: a system's, a training's
- ``listing``   which images there are, in class folders or without; ``attributes`` labels from a table
- ``decode``    the bytes of an image file to a uint8 array of one size
- ``reduction`` that array to smaller ones
- ``cache``     those arrays for a whole set, on disk; ``building`` makes them, atomically
- ``pixels``    where a set's images come from while training: the cache, or the files themselves
- ``datasets``  what a loader is given
- ``images``    ``open_images``, with labels; ``pyramid`` ``open_pyramid``, without; ``opening`` what both share
- ``progress``  a bar on a terminal, lines elsewhere

Importing these loads no torch.
"""

from __future__ import annotations

from ganguard.data.attributes import AttributeTable
from ganguard.data.datasets import LabelledImages, UnlabelledImages
from ganguard.data.finding import default_channels
from ganguard.data.images import open_images
from ganguard.data.pyramid import Pyramid, open_pyramid, pyramid_bytes

__all__ = [
    "AttributeTable",
    "LabelledImages",
    "Pyramid",
    "UnlabelledImages",
    "default_channels",
    "open_images",
    "open_pyramid",
    "pyramid_bytes",
]
