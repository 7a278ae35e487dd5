"""Images with labels, decoded once.

- ``finding``   which source a name or a path stands for; ``torchvision_sets`` those that torchvision knows
- ``sources``   the bytes of images in a folder or a zip; ``arrays`` and ``idx`` those of sets that aren't image files
- ``listing``   which images there are, in class folders or without; ``attributes`` labels from a table
- ``decode``    the bytes of an image file to a uint8 array of one size
- ``cache``     that array for a whole set, on disk, written atomically
- ``pixels``    where a set's images come from while training: the cache, or the files themselves
- ``images``    ``open_images`` and the data set that it returns
- ``progress``  a bar on a terminal, lines elsewhere

Importing these loads no torch.
"""

from __future__ import annotations

from ganguard.data.attributes import AttributeTable
from ganguard.data.finding import default_channels
from ganguard.data.images import LabelledImages, open_images

__all__ = ["AttributeTable", "LabelledImages", "default_channels", "open_images"]
