"""Numbers with their nouns."""

import pytest

from ganguard.reports.console import counted


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (1, ["file"], "1 file"),
        (0, ["file"], "0 files"),
        (2, ["epoch"], "2 epochs"),
        (3, ["batch"], "3 batches"),
        (12_000, ["class"], "12,000 classes"),
        (1, ["image of it is", "images of it are"], "1 image of it is"),
        (2, ["image of it is", "images of it are"], "2 images of it are"),
    ],
)
def test_one_is_one_and_several_are_several(number, words, text):
    assert counted(number, *words) == text
