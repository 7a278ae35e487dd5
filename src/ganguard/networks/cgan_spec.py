"""What is needed to build a conditional GAN's networks again: plain data, no torch needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from ganguard.errors import DoesNotFit
from ganguard.store import plain

_LARGEST = 1 << 20  # of any number in it


def _is_number(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _LARGEST


_CHECKS: dict[str, plain.Check] = {
    **dict.fromkeys(("image_size", "channels", "width", "latent_size"), _is_number),
    "label_names": plain.list_of(plain.is_text),
    "multi_label": lambda value: isinstance(value, bool),
}


@dataclass(frozen=True, kw_only=True)
class CganSpec:
    """Goes into every checkpoint's settings, and into the JSON beside the best generator."""

    image_size: int
    """Width and height, px."""
    channels: int
    """1 for grayscale, 3 for RGB."""
    width: int
    """Feature channels at full image size."""
    latent_size: int
    """Numbers in a latent."""
    label_names: tuple[str, ...]
    """One name for each number of the label vector."""
    multi_label: bool
    """Whether the label vector holds independent 0 and 1, rather than a single 1 for the class."""

    def describe(self, label_vector: Sequence[float]) -> str:
        """A label vector in words: the class, or the attributes that are 1."""
        present = [name for name, value in zip(self.label_names, label_vector, strict=True) if value]
        return ", ".join(present) or "none"

    def to_config(self) -> dict[str, Any]:
        """Plain values that JSON can carry."""
        return {**asdict(self), "label_names": list(self.label_names)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> CganSpec:
        """The inverse of ``to_config``; other keys are left out.

        Raises:
            DoesNotFit: a value is missing, so it is not the settings of a conditional GAN.
        """
        names = [item.name for item in fields(cls)]
        if lacking := [name for name in names if name not in config]:
            raise DoesNotFit(f"It does not tell {', '.join(lacking)}: it was not written by gan.py.")
        if wrong := [name for name in names if not _CHECKS[name](config[name])]:
            raise DoesNotFit(f"Its {' and '.join(wrong)} cannot be: it was not written by gan.py.")
        return cls(**{**{name: config[name] for name in names}, "label_names": tuple(config["label_names"])})
