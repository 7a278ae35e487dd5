"""What a person says of labels → label vectors, which images take in turn: image i has row i % rows."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor

from ganguard.errors import UsageError
from ganguard.reports.console import counted

Labels = int | str | Sequence[int | str] | Tensor | None


def label_rows(labels: Labels, names: Sequence[str], *, multi_label: bool) -> Tensor:
    """Label vectors (rows, names), float32.

    Args:
        labels: None: every class, or no attribute and then each alone. A class by name or number (from 0), or several;
            the letter case of a name counts only where two differ in nothing else.
            Attributes by name: those in one image; an empty list for none. A tensor: label vectors (names,) or
            (rows, names), or class numbers (rows,).
        names: of the classes or attributes; none where the generator knows no labels.
        multi_label: whether they are attributes.

    Raises:
        UsageError: there is no such class or attribute.
    """
    if not names:
        if labels is not None:
            raise UsageError("This generator knows no labels; leave them out.")
        return torch.zeros(1, 0)
    if isinstance(labels, Tensor):
        return _of_tensor(labels, names, multi_label=multi_label)
    every = torch.eye(len(names))
    if labels is None:
        return torch.cat([torch.zeros(1, len(names)), every]) if multi_label else every
    asked = [labels] if isinstance(labels, int | str) or not isinstance(labels, Iterable) else list(labels)
    if multi_label:
        return every[[_attribute(item, names) for item in asked]].sum(0, keepdim=True).clamp(max=1)
    if not asked:
        raise UsageError(f"Name at least one class; there are {_some(names)}.")
    return every[[_class(item, names) for item in asked]]


def _of_tensor(labels: Tensor, names: Sequence[str], *, multi_label: bool) -> Tensor:
    labels = labels.detach().cpu()
    if labels.ndim == 1 and not labels.is_floating_point() and not multi_label:
        return torch.eye(len(names))[[_class(number, names) for number in labels.tolist()]]
    rows = labels.float().reshape(1, -1) if labels.ndim == 1 else labels.float()
    if rows.ndim != 2 or not rows.numel() or rows.shape[1] != len(names):
        raise UsageError(
            f"Label vectors have {counted(len(names), 'number')} each here, not the shape {tuple(labels.shape)}."
        )
    return rows


def _class(asked: int | str, names: Sequence[str]) -> int:
    if isinstance(asked, str):
        return _place(asked, names, "class")
    if not is_whole(asked):
        raise UsageError(f"A class is a name or a number, not {asked!r}; there are {_some(names)}.")
    if not 0 <= asked < len(names):
        raise UsageError(f"There is no class {asked}: the {len(names)} classes count from 0 to {len(names) - 1}.")
    return asked


def _attribute(asked: int | str, names: Sequence[str]) -> int:
    if not isinstance(asked, str):
        raise UsageError(f"This generator knows attributes, not classes; name some of {_some(names)}.")
    return _place(asked, names, "attribute")


def _place(asked: str, names: Sequence[str], what: str) -> int:
    for form in (str, _composed, _folded):
        alike = [place for place, name in enumerate(names) if form(name) == form(asked)]
        if len(alike) == 1:
            return alike[0]
    folded = {_folded(name): name for name in names}
    close = difflib.get_close_matches(_folded(asked), folded, n=1)
    hint = f"Did you mean {folded[close[0]]}?" if close else f"There are {_some(names)}."
    raise UsageError(f"There is no {what} {asked}. {hint}")


def _composed(name: str) -> str:
    """é is one character or two, by keyboard and file system."""
    return unicodedata.normalize("NFC", name)


def _folded(name: str) -> str:
    return _composed(_composed(name).casefold())


def is_whole(value: object) -> bool:
    """Whether this is a whole number; True and False are none."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:20]) + (f" and {len(names) - 20} more" if len(names) > 20 else "")
