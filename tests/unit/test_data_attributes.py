"""Attributes from a table: CelebA's own form and CSV, and what cannot be matched."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ganguard.data import AttributeTable, LabelledImages, open_images
from ganguard.errors import DataError, DoesNotFit

CELEBA = """4
5_o_Clock_Shadow Smiling Male
000001.jpg -1  1 -1
000002.jpg -1 -1  1
000003.jpg  1 -1 -1
000004.jpg -1  1  1
"""
SMILING_MALE = [[1, 0], [0, 1], [0, 0], [1, 1]]


@pytest.fixture
def data(tmp_path):
    """Four images of one colour each, so that each can be told from the others."""
    folder = tmp_path / "celeba" / "img_align_celeba"
    folder.mkdir(parents=True)
    for number in range(1, 5):
        Image.new("RGB", (30, 40), (50 * number, 0, 0)).save(folder / f"{number:06}.jpg", quality=95)
    return folder.parent


def opened(data, tmp_path, table=None, names=("Smiling", "Male"), **options):
    lines = options.pop("told", [])
    options = {"image_size": 16, "channels": 3, "say": lines.append, **options}
    attributes = AttributeTable(table, tuple(names))
    return open_images(str(data), cache_dir=tmp_path / "cache", attributes=attributes, **options)


def written(path, text):
    path.write_text(text, encoding="utf-8", newline="")
    return path


def test_celebas_own_table(data, tmp_path):
    found = opened(data, tmp_path, written(tmp_path / "list_attr_celeba.txt", CELEBA))
    assert found.attributes
    assert found.label_names == ("Smiling", "Male")
    assert (found.labels.dtype, found.labels.tolist()) == (np.uint8, SMILING_MALE)
    images, labels = next(iter(DataLoader(found, batch_size=3, collate_fn=LabelledImages.collate)))
    assert (labels.dtype, labels.tolist()) == (torch.uint8, SMILING_MALE[:3])
    assert [int(red) // 45 for red in images[:, 0, 8, 8]] == [1, 2, 3]
    single = LabelledImages.collate([found[index] for index in range(3)])
    assert torch.equal(single[0], images)
    assert torch.equal(single[1], labels)
    assert single[1].dtype == torch.uint8


def rows(separator, yes="1", no="-1", prefix="", header="image_id", ending="\n"):
    """Smiling and Male as in ``CELEBA``."""
    lines = [separator.join((header, "Smiling", "Male"))]
    for number, values in enumerate(SMILING_MALE, 1):
        lines.append(separator.join((f"{prefix}{number:06}.jpg", *(yes if value else no for value in values))))
    return ending.join(lines) + ending


TABLES = {
    "comma": rows(","),
    "semicolon": rows(";"),
    "tab": rows("\t"),
    "bar": rows("|"),
    "zero and one": rows(",", "1", "0"),
    "true and false": rows(",", "True", "FALSE"),
    "floats": rows(",", "1.0", "0.0"),
    "byte order mark": "\ufeff" + rows(",", header=""),
    "Windows lines": rows(",", ending="\r\n"),
    "quoted": rows(",").replace("000001.jpg", '"000001.jpg"'),
    "blank lines": rows(",") + "\n\n",
    "with the folder": rows(",", prefix="img_align_celeba/"),
    "with more folders": rows(",", prefix="./old/celeba/img_align_celeba/"),
    "with backslashes": rows(",", prefix="img_align_celeba\\"),
    "other order": "\n".join([rows(",").splitlines()[0], *reversed(rows(",").splitlines()[1:])]),
    "blanks, no count": "\n".join(CELEBA.splitlines()[1:]),
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
@pytest.mark.parametrize("given", ["above", "itself"])
def test_forms_of_a_table(data, tmp_path, text, given):
    folder = data if given == "above" else data / "img_align_celeba"
    found = opened(folder, tmp_path, written(tmp_path / "table", text))
    assert found.labels.tolist() == SMILING_MALE


def test_other_encodings(data, tmp_path):
    (tmp_path / "t.csv").write_bytes(rows(",").replace("Male", "Género").encode("latin-1"))
    assert opened(data, tmp_path, tmp_path / "t.csv", ["género"]).label_names == ("Género",)


def test_names_in_any_case_and_order(data, tmp_path):
    found = opened(data, tmp_path, written(tmp_path / "t.txt", CELEBA), ["male", "5 o clock shadow"])
    assert found.label_names == ("Male", "5_o_Clock_Shadow")
    assert found.labels.tolist() == [[0, 0], [1, 0], [0, 1], [1, 0]]


def test_no_names_mean_all(data, tmp_path):
    found = opened(data, tmp_path, written(tmp_path / "t.txt", CELEBA), [])
    assert found.label_names == ("5_o_Clock_Shadow", "Smiling", "Male")


def test_images_in_a_zip(data, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in data.rglob("*.jpg"):
            archive.write(path, path.relative_to(data))
    assert opened(tmp_path / "set.zip", tmp_path, written(tmp_path / "t", CELEBA)).labels.tolist() == SMILING_MALE


@pytest.mark.parametrize("place", ["in it", "beside it"])
def test_the_sets_own_table_is_found(data, tmp_path, place):
    written(data / "list_attr_celeba.txt", CELEBA)
    folder = data if place == "in it" else data / "img_align_celeba"
    told = []
    assert opened(folder, tmp_path, told=told).labels.tolist() == SMILING_MALE
    assert any(str(data / "list_attr_celeba.txt") in line for line in told)


def test_without_any_table(data, tmp_path):
    with pytest.raises(DataError, match=r"no list_attr_celeba.txt in it or beside it\. Give the table"):
        opened(data, tmp_path)


def test_other_attributes_use_the_same_cache_and_are_another_set(data, tmp_path):
    table, told = written(tmp_path / "t", CELEBA), []
    first = opened(data, tmp_path, table)
    second = opened(data, tmp_path, table, ["Male"], told=told)
    third = opened(data, tmp_path, written(tmp_path / "t", CELEBA.replace("1 -1\n000002", "1 1\n000002")), told=told)
    assert not any("Decoding" in line for line in told)
    assert len({first.fingerprint, second.fingerprint, third.fingerprint}) == 3
    assert opened(data, tmp_path, written(tmp_path / "t", CELEBA)).fingerprint == first.fingerprint


def test_images_without_a_row_and_rows_without_an_image_are_told(data, tmp_path):
    (data / "img_align_celeba" / "000004.jpg").unlink()
    text = "".join(line for line in CELEBA.splitlines(True)[1:] if "000003" not in line) + "9.jpg 1 1 1\n"
    told = []
    found = opened(data, tmp_path, written(tmp_path / "t", text), told=told)
    assert found.labels.tolist() == SMILING_MALE[:2]
    assert [line for line in told if "1 image has no row" in line and "000003.jpg" in line]
    assert [line for line in told if "2 rows of" in line and "not there" in line]


def test_a_damaged_image_takes_its_row_along(data, tmp_path):
    (data / "img_align_celeba" / "000002.jpg").write_text("a text")
    for limit in (10**9, 0):
        found = opened(data, tmp_path, written(tmp_path / "t", CELEBA), cache_limit=limit)
        assert found.labels.tolist() == [SMILING_MALE[row] for row in (0, 2, 3)]


def test_a_limit(data, tmp_path):
    found = opened(data, tmp_path, written(tmp_path / "t", CELEBA), limit=2)
    images, labels = found.__getitems__([0, 1])
    for image, label in zip(images, labels.tolist(), strict=True):
        assert label == SMILING_MALE[int(image[0, 8, 8]) // 45 - 1]


def test_an_attribute_that_all_share_is_told(data, tmp_path):
    told = []
    opened(data, tmp_path, written(tmp_path / "t", CELEBA.replace("1\n", "0\n").replace("-0", "0")), told=told)
    assert any("alike in Male: nothing can be learned" in line for line in told)


def test_on_the_fly_an_image_that_is_gone_is_replaced_by_one_with_its_attributes(data, tmp_path):
    text = CELEBA.replace("000004.jpg -1  1  1", "000004.jpg -1  1 -1")
    found = opened(data, tmp_path, written(tmp_path / "t", text), cache_limit=0)
    (data / "img_align_celeba" / "000001.jpg").unlink()
    with pytest.warns(RuntimeWarning, match="000001.jpg"):
        image, label = found[0]
    assert (label.tolist(), int(image[0, 8, 8]) // 45) == ([1, 0], 4)


DUPLICATE = CELEBA.replace("4\n", "5\n", 1) + "000001.jpg 1 1 1\n"
ERRORS = {
    "no such column": (CELEBA, ("Smilling",), r"no column 'Smilling'\. Did you mean 'Smiling'\? It has: 5_o_C.*Male"),
    "nothing like it": (CELEBA, ("xyz",), r"no column 'xyz'\. It has: 5_o_Clock_Shadow, Smiling, Male"),
    "asked for twice": (CELEBA, ("Male", "male"), "'male' is named twice"),
    "two columns": (CELEBA.replace("Smiling", "male"), ("Male",), "2 columns named 'Male'"),
    "another value": (CELEBA.replace("000003.jpg  1 -1", "000003.jpg  1 2"), ("Smiling",), "Line 5 .*'2' for Smiling"),
    "no value": (rows(",").replace("3.jpg,-1", "3.jpg,"), ("Smiling",), "Line 4 .*'' for Smiling"),
    "both noes": (CELEBA.replace("000003.jpg  1 -1", "000003.jpg  1 0"), ("Smiling",), "Smiling .* both -1 and 0"),
    "a field too few": (CELEBA.replace("000003.jpg  1", "000003.jpg"), ("Male",), "Line 5 .* 3 fields"),
    "cut off": (CELEBA[: CELEBA.index("000004")], ("Male",), "announces 4 rows and has 3.*not whole"),
    "twice the same file": (DUPLICATE, ("Male",), "more than one row for 000001.jpg, the second in line 7"),
    "only a header": ("image,Male\n", ("Male",), "holds no rows"),
    "empty": ("", ("Male",), "holds no rows"),
    "no text": ("image,Male\n\0\0", ("Male",), "no table of text"),
    "other images": (
        rows(",", prefix="x"),
        ("Male",),
        r"None of the 4 rows .*first row is for x000001.jpg, the first im",
    ),
    "all alike": (
        CELEBA.replace("  1", " -1").replace(" 1", "-1"),
        ("Male", "Smiling"),
        "alike in Male, Smiling; .*progan",
    ),
    "no attributes": ("image\n000001.jpg\n", (), "no attributes: its header is 'image'"),
    "a folder": (None, ("Male",), "can't be read"),
}


@pytest.mark.parametrize(("text", "names", "message"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_used_is_a_clear_error(data, tmp_path, text, names, message):
    table = tmp_path if text is None else written(tmp_path / "t", text)
    with pytest.raises(DataError, match=message):
        opened(data, tmp_path, table, names)


def test_a_table_that_is_not_there(data, tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv can't be read"):
        opened(data, tmp_path, tmp_path / "gone.csv")


def test_a_row_for_two_images_and_an_image_with_two_rows(data, tmp_path):
    (data / "other").mkdir()
    (data / "other" / "000001.jpg").write_bytes((data / "img_align_celeba" / "000001.jpg").read_bytes())
    with pytest.raises(DataError, match=r"row 000001.jpg .* fits 2 images: img_align_celeba/000001.jpg, other"):
        opened(data, tmp_path, written(tmp_path / "t", CELEBA))
    with pytest.raises(DataError, match=r"image 000001.jpg fits 2 rows .*: a/000001.jpg, b/000001.jpg"):
        opened(
            data / "other", tmp_path, written(tmp_path / "t", "f,Male,Smiling\na/000001.jpg,1,1\nb/000001.jpg,1,1\n")
        )


def test_the_whole_path_comes_before_its_end(data, tmp_path):
    """The same name in two folders, both in the table with their folders."""
    (data / "other").mkdir()
    (data / "other" / "000001.jpg").write_bytes((data / "img_align_celeba" / "000002.jpg").read_bytes())
    text = rows(",", prefix="img_align_celeba/") + "other/000001.jpg,-1,-1\n"
    assert opened(data, tmp_path, written(tmp_path / "t", text)).labels.tolist() == [*SMILING_MALE, [0, 0]]


def test_a_folder_without_an_image(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no images"):
        opened(tmp_path / "empty", tmp_path, written(tmp_path / "t", CELEBA))


def test_a_table_and_files_in_different_unicode_forms(data, tmp_path):
    """And a byte order mark, which Excel writes."""
    images = data / "img_align_celeba"
    (images / "000001.jpg").rename(images / "jos\u00e9.jpg")
    table = tmp_path / "table.csv"
    text = "\ufeffimage_id,Smiling,S\u00e9rio\njose\u0301.jpg,1,-1\n000002.jpg,-1,1\n000003.jpg,-1,-1\n000004.jpg,1,1\n"
    table.write_text(text, encoding="utf-8")
    found = opened(data, tmp_path, table, names=("Smiling", "Se\u0301rio"))
    assert len(found) == 4
    assert sorted(found.labels.tolist()) == [[0, 0], [0, 1], [1, 0], [1, 1]]


def test_attributes_keep_the_order_that_a_checkpoint_knows(data, tmp_path):
    table = written(tmp_path / "list_attr_celeba.txt", CELEBA)
    found = opened(data, tmp_path, table, label_names=("Male", "Smiling"))
    assert found.label_names == ("Male", "Smiling")
    assert found.labels.tolist() == [row[::-1] for row in SMILING_MALE]
    with pytest.raises(DoesNotFit, match=r"The attributes are others(.|\n)*not there: Young\n  not known: Smiling"):
        opened(data, tmp_path, table, label_names=("Male", "Young"))
