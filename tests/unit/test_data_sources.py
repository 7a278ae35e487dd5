"""Sources: folders, zips and the built-in sets are one listing."""

import pickle
import zipfile
from pathlib import Path

import pytest
from systems import needs_links

from ganguard.data import finding
from ganguard.data.finding import BUILTIN_NAMES, default_channels
from ganguard.data.listing import balanced_subset, list_classes, list_flat
from ganguard.data.sources import digest, safe_name
from ganguard.errors import DataError


def fill(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return folder


def find_source(data):
    return finding.find_source(data, root=Path("nowhere"), say=print)


def listing_of(path):
    return list_classes(find_source(str(path)))


def names(listing):
    return [entry.name for entry in listing.entries]


def test_classes_are_sorted_and_images_ordered_by_class_and_name(tmp_path):
    listing = listing_of(fill(tmp_path, "b/2.png", "b/1.JPG", "a-b/1.png", "a/1.png"))
    assert listing.label_names == ("a", "a-b", "b")
    assert names(listing) == ["a/1.png", "a-b/1.png", "b/1.JPG", "b/2.png"]
    assert [entry.label for entry in listing.entries] == [0, 1, 2, 2]
    assert listing.notices == ()


def test_nested_files_belong_to_their_top_folder(tmp_path):
    listing = listing_of(fill(tmp_path, "cats/2024/may/1.png", "cats/2.png", "dogs/1.png"))
    assert listing.label_names == ("cats", "dogs")
    assert names(listing)[:2] == ["cats/2.png", "cats/2024/may/1.png"]


def test_hidden_files_and_other_suffixes_are_left_out_and_the_latter_told(tmp_path):
    listing = listing_of(
        fill(tmp_path, "a/.1.png", ".b/1.png", "a/.c/1.png", "a/1.png", "a/notes.txt", "a/2.heic", "d/1.png")
    )
    assert names(listing) == ["a/1.png", "d/1.png"]
    assert len(listing.notices) == 1
    assert "2 files" in listing.notices[0]
    assert ".heic" in listing.notices[0]


def test_loose_images_beside_class_folders_are_told(tmp_path):
    listing = listing_of(fill(tmp_path, "a/1.png", "b/1.png", "1.png", "2.png"))
    assert names(listing) == ["a/1.png", "b/1.png"]
    assert "2 images lie directly in" in listing.notices[0]


def test_a_split_folder_is_asked_about(tmp_path):
    listing = listing_of(fill(tmp_path, "train/a/1.png", "test/a/1.png"))
    assert any("did you mean" in notice for notice in listing.notices)


def test_one_class_is_an_error_that_says_what_to_do(tmp_path):
    with pytest.raises(DataError, match=r"All 2 images in .* are of one class, cats.*folder of its own.*progan_local"):
        listing_of(fill(tmp_path, "cats/1.png", "cats/2.png"))


def test_a_folder_around_the_class_folders_is_gone_through_and_told(tmp_path):
    listing = listing_of(fill(tmp_path, "my set/inner/cats/1.png", "my set/inner/dogs/a/1.png"))
    assert listing.label_names == ("cats", "dogs")
    assert names(listing) == ["my set/inner/cats/1.png", "my set/inner/dogs/a/1.png"]
    assert any("cats, dogs" in notice for notice in listing.notices)


@pytest.mark.parametrize("stray", ["my set/cover.png", "cover.png"])
def test_a_stray_image_beside_the_class_folders_changes_nothing(tmp_path, stray):
    folder = fill(tmp_path, *(f"my set/{name}/{number}.png" for name in ("cats", "dogs") for number in range(3)), stray)
    listing = listing_of(folder)
    assert listing.label_names == ("cats", "dogs")
    assert len(listing.entries) == 6
    assert any("1 image lies directly in" in notice for notice in listing.notices)


def test_a_class_with_folders_within_is_one_class(tmp_path):
    with pytest.raises(DataError, match="of one class, cats"):
        listing_of(fill(tmp_path, "cats/1.png", "cats/2.png", "cats/3.png", "cats/2023/1.png", "cats/2024/1.png"))


def test_one_class_beside_empty_folders_names_them(tmp_path):
    folder = fill(tmp_path, "cats/1.png", "dogs/notes.txt")
    (folder / "birds").mkdir()
    with pytest.raises(DataError, match=r"The only image in .* is of one class, cats \(no image lies in birds, dogs\)"):
        listing_of(folder)


def test_folders_without_an_image_are_told_and_no_classes(tmp_path):
    folder = fill(tmp_path, "a/1.png", "b/1.png", "notes/1.txt")
    (folder / "empty").mkdir()
    listing = listing_of(folder)
    assert listing.label_names == ("a", "b")
    assert any("No image lies in empty, notes" in notice for notice in listing.notices)


def test_a_flat_listing_takes_images_from_everywhere(tmp_path):
    listing = list_flat(find_source(str(fill(tmp_path, "b/c/1.png", "a/1.png", "1.png", "2.txt"))))
    assert names(listing) == ["1.png", "a/1.png", "b/c/1.png"]
    assert {entry.label for entry in listing.entries} == {0}
    assert len(listing.notices) == 1


def test_channels_that_a_set_has_of_its_own(tmp_path):
    fill(tmp_path, "set/train-images-idx3-ubyte.gz", "photos/a/1.png")
    assert [default_channels(name) for name in ("mnist", "fashion-mnist", "fashion-mnist-mini")] == [1, 1, 1]
    assert [default_channels(name) for name in ("emoji", "cifar10", str(tmp_path / "photos"), "nowhere")] == [3] * 4
    assert default_channels(str(tmp_path / "set")) == 1


def test_images_without_class_folders(tmp_path):
    with pytest.raises(DataError, match=r"no class folders.*cats"):
        listing_of(fill(tmp_path, "1.png", "2.png"))


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match=r"no images\. Expected are images, for gan\.py in class folders"):
        listing_of(tmp_path)


def test_class_folders_without_images(tmp_path):
    with pytest.raises(DataError, match=r"only other files \(2 \.txt\)"):
        listing_of(fill(tmp_path, "a/1.txt", "b/2.txt"))


def test_a_missing_path_names_the_built_in_sets(tmp_path):
    with pytest.raises(DataError, match="emoji, fashion-mnist-mini"):
        find_source(str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("emojis", "emoji"), ("Fashion-MNIST", "fashion-mnist"), ("fashion-mnist-min", "fashion-mnist-mini")],
)
def test_a_misspelt_built_in_name_is_recognised(typed, meant):
    with pytest.raises(DataError, match=f"Did you mean '{meant}'"):
        find_source(typed)


def test_a_file_that_is_no_zip(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="neither a folder nor a zip"):
        find_source(str(tmp_path / "a.png"))


def test_a_zip_without_its_end_is_not_whole(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a/1.png", bytes(1000))
    whole = (tmp_path / "photos.zip").read_bytes()
    (tmp_path / "photos.zip").write_bytes(whole[:600])
    with pytest.raises(DataError, match=r"not a whole zip file.*Copy it again"):
        find_source(str(tmp_path / "photos.zip"))


@needs_links
def test_links_are_followed_and_never_in_circles(tmp_path):
    elsewhere = fill(tmp_path / "elsewhere", "1.png")
    data = fill(tmp_path / "data", "a/1.png")
    (data / "b").symlink_to(elsewhere, target_is_directory=True)
    (data / "a" / "up").symlink_to(data, target_is_directory=True)
    (data / "a" / "gone.png").symlink_to(tmp_path / "nothing")
    assert names(listing_of(data)) == ["a/1.png", "b/1.png"]


def test_a_zip_lists_as_the_folder_does(tmp_path):
    folder = fill(tmp_path / "data", "b/1.png", "a/x/1.png", "a/.2.png", "__MACOSX/a/._1.png")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    unpacked, packed = listing_of(folder), listing_of(tmp_path / "data.zip")
    assert names(packed) == names(unpacked) == ["a/x/1.png", "b/1.png"]
    assert packed.label_names == unpacked.label_names
    source = find_source(str(tmp_path / "data.zip"))
    assert source.name == "data"
    assert source.read("b/1.png") == b"b/1.png"
    assert pickle.loads(pickle.dumps(source)).read("b/1.png") == b"b/1.png"


def test_a_torn_zip(tmp_path):
    fill(tmp_path, "a.zip").joinpath("a.zip").write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(DataError):
        listing_of(tmp_path / "a.zip")


@pytest.mark.parametrize(("name", "classes", "images"), [("fashion-mnist-mini", 10, 5000), ("emoji", 7, 1376)])
def test_built_in_sets(name, classes, images):
    source = find_source(name)
    listing = list_classes(source)
    assert source.name == name
    assert len(listing.label_names) == classes
    assert len(listing.entries) == images
    if name == "fashion-mnist-mini":
        labels = [entry.label for entry in listing.entries]
        assert {labels.count(label) for label in range(10)} == {500}


def test_built_in_sets_are_small_and_carry_their_licences():
    folder = find_source("emoji").path.parent
    assert sum(path.stat().st_size for path in folder.iterdir()) < 6_000_000
    notice = (folder / "NOTICE.md").read_text("utf-8")
    for name in BUILTIN_NAMES:
        assert f"{name}.zip" in notice
    for holder in ("Zalando SE", "Microsoft Corporation", "LobeHub", "Permission is hereby granted"):
        assert holder in notice


def test_a_limit_is_balanced_and_repeatable(tmp_path):
    many = [f"{name}/{index}.png" for name in "abc" for index in range(20)]
    listing = listing_of(fill(tmp_path, *many, "d/1.png", "d/2.png"))
    chosen = balanced_subset(listing, 23)
    labels = [entry.label for entry in chosen.entries]
    assert [labels.count(label) for label in range(4)] == [7, 7, 7, 2]
    assert list(chosen.entries) == [entry for entry in listing.entries if entry in set(chosen.entries)]
    assert balanced_subset(listing, 23) == chosen
    assert balanced_subset(listing, 10_000).entries == listing.entries


def test_a_limit_below_the_number_of_classes(tmp_path):
    with pytest.raises(DataError, match="less than the 2 classes"):
        balanced_subset(listing_of(fill(tmp_path, "a/1.png", "b/1.png")), 1)


def test_the_digest_follows_every_field(tmp_path):
    entries = listing_of(fill(tmp_path, "a/1.png", "b/1.png")).entries
    first, *rest = entries
    variants = [
        ("x", entries),
        ("y", entries),
        ("x", (first._replace(name="a/2.png"), *rest)),
        ("x", (first._replace(label=1), *rest)),
        ("x", (first._replace(size=9), *rest)),
        ("x", (first._replace(stamp=9), *rest)),
        ("x", tuple(rest)),
        ("x", ()),
    ]
    assert len({digest(*variant) for variant in variants}) == len(variants)


@pytest.mark.parametrize(
    ("name", "safe"), [("my cats/é:", "my_cats_é"), ("..", "images"), ("a.b", "a.b"), ("", "images")]
)
def test_safe_names(name, safe):
    assert safe_name(name) == safe
