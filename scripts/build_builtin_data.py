"""Build the image sets that come with the package: ``fashion-mnist-mini.zip`` and ``emoji.zip``.

    python scripts/build_builtin_data.py --fashion /usr/share/datasets/fashion-mnist
    python scripts/build_builtin_data.py --emoji FLUENT --emoji-data EMOJI_DATA

Sources:

- ``--fashion``: a folder with Fashion-MNIST's gzipped IDX files, as Debian's package ``dataset-fashion-mnist``
  installs them. The first ``--per-class`` images of each class of the training set are taken.
- ``--emoji``: the npm package ``@lobehub/fluent-emoji-3d`` 1.1.0, unpacked (it holds ``assets/*.webp``).
- ``--emoji-data``: the npm package ``emoji-datasource-google`` 16.0.0, unpacked (it holds ``emoji.json``, from which
  the categories come). Flags, symbols and skin tones are left out.

Each zip holds one folder a class. The same inputs and the same Pillow give the same bytes: entries are sorted,
stored without a second compression, and carry a fixed date. Licences are in ``builtin/NOTICE.md``.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

BUILTIN = Path(__file__).resolve().parents[1] / "src" / "ganguard" / "data" / "builtin"
FASHION_CLASSES = (
    "tshirt-top",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
)
EMOJI_CLASSES = {
    "Activities": "activities",
    "Animals & Nature": "animals",
    "Food & Drink": "food",
    "Objects": "objects",
    "People & Body": "people",
    "Smileys & Emotion": "smileys",
    "Travel & Places": "travel",
}
EMOJI_SIZE = 128
IDX_IMAGE_HEADER, IDX_LABEL_HEADER = 16, 8


def read_idx(path: Path, header: int) -> np.ndarray:
    """The payload of a gzipped IDX file of bytes, flat."""
    return np.frombuffer(gzip.decompress(path.read_bytes()), np.uint8, offset=header)


def fashion_images(folder: Path, per_class: int) -> dict[str, bytes]:
    """``class/position.png`` to PNG bytes, the first ``per_class`` of each class."""
    labels = read_idx(folder / "train-labels-idx1-ubyte.gz", IDX_LABEL_HEADER)
    images = read_idx(folder / "train-images-idx3-ubyte.gz", IDX_IMAGE_HEADER).reshape(len(labels), 28, 28)
    return {
        f"{name}/{position:05d}.png": encoded(Image.fromarray(images[position]), "PNG", optimize=True)
        for label, name in enumerate(FASHION_CLASSES)
        for position in np.flatnonzero(labels == label)[:per_class].tolist()
    }


def emoji_images(assets: Path, emoji_json: Path) -> dict[str, bytes]:
    """``category/codepoints.webp`` to webp bytes, one an emoji, on white."""
    files = {code_points(path.stem): path for path in sorted(assets.glob("*.webp"))}
    images = {}
    for record in json.loads(emoji_json.read_text("utf-8")):
        key = code_points(record["unified"])
        if record["category"] in EMOJI_CLASSES and key in files:
            name = f"{EMOJI_CLASSES[record['category']]}/{key}.webp"
            images[name] = encoded(on_white_square(files[key]), "WEBP", quality=85, method=6)
    return images


def code_points(name: str) -> str:
    """``1F441-FE0F`` and ``1f441`` name the same emoji: fe0f only asks for the coloured form."""
    parts = name.lower().replace("_", "-").split("-")
    return "-".join(part.lstrip("0") for part in parts if part != "fe0f")


def on_white_square(path: Path) -> Image.Image:
    """RGB of EMOJI_SIZE squared; a few sources are a little taller than wide, hence the square."""
    with Image.open(path) as opened:
        image = opened.convert("RGBA")
    side = max(image.size)
    square = Image.new("RGBA", (side, side), "white")
    square.alpha_composite(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square.convert("RGB").resize((EMOJI_SIZE, EMOJI_SIZE), Image.Resampling.BOX)


def encoded(image: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def write_zip(path: Path, images: dict[str, bytes]) -> None:
    """Sorted, stored, dated 1980: a rebuild gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, content in sorted(images.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    print(f"{path.name}: {len(images)} images, {path.stat().st_size / 1e6:.2f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fashion", type=Path, nargs="?", const=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--per-class", type=int, default=500)
    parser.add_argument("--emoji", type=Path)
    parser.add_argument("--emoji-data", type=Path)
    parser.add_argument("--out", type=Path, default=BUILTIN)
    options = parser.parse_args()
    if (options.emoji is None) != (options.emoji_data is None):
        parser.error("--emoji and --emoji-data go together")
    if options.fashion is None and options.emoji is None:
        parser.error("nothing to build: give --fashion, or --emoji and --emoji-data")
    if options.fashion is not None:
        write_zip(options.out / "fashion-mnist-mini.zip", fashion_images(options.fashion, options.per_class))
    if options.emoji is not None:
        images = emoji_images(options.emoji / "assets", options.emoji_data / "emoji.json")
        write_zip(options.out / "emoji.zip", images)


if __name__ == "__main__":
    main()
