"""Images with labels, decoded once.

- ``sources``   a folder of class folders, a zip of them, the sets that come with the package: one listing
- ``decode``    the bytes of an image file to a uint8 array of one size
- ``cache``     that array for a whole set, on disk, written atomically
- ``pixels``    where a set's images come from while training: the cache, or the files themselves
- ``images``    ``open_images`` and the data set that it returns
- ``progress``  a bar on a terminal, lines elsewhere

Importing these loads no torch.
"""

from __future__ import annotations

from ganguard.data.images import LabelledImages, open_images

__all__ = ["LabelledImages", "open_images"]
