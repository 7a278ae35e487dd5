"""Sources: folders, zips and the built-in sets are one listing."""

import errno
import os
import pickle
import re
import sys
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from systems import needs_links

from ganguard.data import finding
from ganguard.data.finding import BUILTIN_NAMES, default_channels
from ganguard.data.listing import balanced_subset, list_classes, list_flat
from ganguard.data.sources import digest, safe_name
from ganguard.errors import DataError, DoesNotFit
from ganguard.reports.pictures import save_png


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


def test_a_path_that_escapes_have_changed_is_explained():
    with pytest.raises(DataError, match=r"'C:\\new\\temp'.* a backslash begins an escape: write C:/photos"):
        find_source("C:\new\temp")


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


@pytest.mark.parametrize("name", ["n" * 240, "数据" * 40])
def test_a_long_name_is_shortened_and_stays_its_own(name):
    assert len(safe_name(name).encode()) <= 160
    assert safe_name(name) != safe_name(name[:-1])


NFC, NFD = "café", "cafe\u0301"


def picture(path, made_by_ganguard=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (8, 8), "red")
    save_png(image, path) if made_by_ganguard else image.save(path)


def after_a_training(folder):
    """What gan.py and progan_local.py leave below a folder that they were started in."""
    fill(folder, "checkpoints/run.json", "checkpoints/checkpoint_epoch_001.pth", "weights/history/generator_x.pth")
    fill(folder, "cache/x-32px-rgb-1/cache.json", "cache/x-32px-rgb-1/images.npy", "models/cgan_1/best_generator.pth")
    for name in ("logs/cgan_1/curves.png", "samples/cgan_1/epoch_0001.png", "out/00000_cats.png", "out/grid.png"):
        picture(folder / name)
    (folder / "logs/cgan_1/journal.jsonl").write_text('{"step":1,"epoch":1}\n')


def test_what_a_training_wrote_below_its_images_is_left_out_and_told_in_one_line(tmp_path):
    data = fill(tmp_path / "data", "cats/1.png", "dogs/1.png")
    before, flat_before = listing_of(data), list_flat(find_source(str(data)))
    after_a_training(data)
    after, flat_after = listing_of(data), list_flat(find_source(str(data)))
    assert (after.label_names, after.entries) == (before.label_names, before.entries)
    assert flat_after.entries == flat_before.entries
    for notices in (after.notices, flat_after.notices):
        (line,) = notices
        assert "4 images belong to trainings: left out" in line
        assert "1 in logs/cgan_1, beside journal.jsonl" in line
        assert "2 in out, made by ganguard" in line
        assert "put what ganguard made among other images" in line


def test_a_training_is_told_by_what_lies_in_its_folder_and_a_class_may_have_its_name(tmp_path):
    data = fill(tmp_path, "logs/oak.png", "samples/1.png", "models/a/1.png", "runs/1.png", "cats/journal.jsonl")
    picture(data / "cats" / "1.png", made_by_ganguard=False)
    after_a_training(data)
    listing = listing_of(data)
    assert listing.label_names == ("cats", "logs", "models", "runs", "samples")
    assert len(listing.entries) == 5


@pytest.mark.parametrize(
    ("record", "of_the_training", "data"),
    [
        ("runs/1/events.out.tfevents.17.host", ["runs/1/a.png", "runs/1/deep/b.png"], ["runs/c.png"]),
        ("gan/generator.pth", ["gan/fakes.png"], ["gan/photos/c.png"]),
        ("gan/last.ckpt", ["gan/fakes.jpg"], ["gan/photos/c.png"]),
    ],
)
def test_pictures_of_other_trainings_are_left_out_and_the_file_that_tells_is_named(
    tmp_path, record, of_the_training, data
):
    listing = listing_of(fill(tmp_path, "cats/1.png", record, *of_the_training, *data))
    assert names(listing) == ["cats/1.png", *data]
    (line,) = listing.notices
    assert f"beside {Path(record).name}" in line
    assert "To train on them, put them into a folder without such files." in line


def test_checkpoints_beside_the_images_that_were_named_leave_nothing_out(tmp_path):
    fill(tmp_path, "1.png", "generator.pth", "events.out.tfevents.1", "a/2.png")
    assert names(list_flat(find_source(str(tmp_path)))) == ["1.png", "a/2.png"]


def test_generated_images_among_others_were_put_there_by_somebody(tmp_path):
    data = fill(tmp_path, "cats/1.png", "dogs/1.jpg")
    picture(data / "dogs" / "00000_dogs.png")
    assert names(listing_of(data)) == ["cats/1.png", "dogs/00000_dogs.png", "dogs/1.jpg"]


def test_generated_images_alone_are_what_was_asked_for_and_it_is_said(tmp_path):
    for name in ("out/cats/00000.png", "out/dogs/00000.png"):
        picture(tmp_path / name)
    listing = listing_of(tmp_path / "out")
    assert listing.label_names == ("cats", "dogs")
    assert "made by ganguard" in listing.notices[0]
    assert "made by ganguard" in list_flat(find_source(str(tmp_path / "out" / "cats"))).notices[0]


def test_generated_images_are_still_asked_for_where_a_system_left_a_thumbnail_among_them(tmp_path):
    for name in ("cats/00000.png", "dogs/00000.png"):
        picture(tmp_path / name)
    fill(tmp_path, "cats/@eaDir/00000.png/SYNOPHOTO_THUMB_M.jpg")
    listing = listing_of(tmp_path)
    assert names(listing) == ["cats/00000.png", "dogs/00000.png"]
    assert any("@eaDir" in notice for notice in listing.notices)


def test_a_training_whose_images_are_gone_does_not_go_on_with_its_own_pictures(tmp_path):
    after_a_training(tmp_path)
    for listed in (list_classes, list_flat):
        with pytest.raises(DataError, match=r"holds no images(.|\n)*4 images belong to trainings"):
            listed(find_source(str(tmp_path)))


@pytest.mark.parametrize(
    "folder",
    [
        "@eaDir/1.png",
        "cats/@eaDir",
        "$RECYCLE.BIN/S-1-5",
        ".Trash-1000/files",
        "lost+found",
        "__MACOSX/cats",
        "#recycle",
    ],
)
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_what_systems_keep_is_counted_and_no_class(tmp_path, folder, zipped):
    data = fill(tmp_path / "data", "cats/1.png", "dogs/1.png", f"{folder}/thumb.jpg", f"{folder}/notes.txt")
    listing = listing_of(packed(data) if zipped else data)
    assert names(listing) == ["cats/1.png", "dogs/1.png"]
    (line,) = listing.notices
    assert "1 image lies in folders that systems keep" in line
    assert folder.split("/")[folder.startswith("cats")] in line


def packed(folder):
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, path.relative_to(folder))
    return target


def test_an_empty_folder_of_the_system_is_not_worth_a_word(tmp_path):
    fill(tmp_path, "cats/1.png", "dogs/1.png")
    (tmp_path / "lost+found").mkdir()
    assert listing_of(tmp_path).notices == ()


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_links_that_lead_nowhere_are_counted_and_told(tmp_path):
    data = fill(tmp_path / "data", "cats/1.png", "dogs/1.png")
    (data / "cats" / "gone.png").symlink_to("/nowhere/4.png")
    (data / "owls").symlink_to("/nowhere/owls")
    (data / "dogs" / "itself.png").symlink_to("itself.png")
    (data / "dogs" / "through.png").symlink_to("1.png/2.png")
    listing = listing_of(data)
    assert names(listing) == ["cats/1.png", "dogs/1.png"]
    (line,) = listing.notices
    assert "4 links lead nowhere: left out (cats/gone.png, dogs/itself.png, dogs/through.png, owls)" in line


@pytest.mark.skipif(sys.platform == "win32", reason="needs links")
def test_links_alone_are_the_reason_why_nothing_is_there(tmp_path):
    (tmp_path / "cats").mkdir()
    (tmp_path / "cats" / "a.png").symlink_to("../.git/annex/a.png")
    with pytest.raises(DataError, match=r"holds no images(.|\n)*1 link leads nowhere"):
        listing_of(tmp_path)


def refusing(monkeypatch, closed, error):
    """Scanning a folder that is called ``closed`` fails."""
    scandir = os.scandir

    def scan(path):
        if Path(path).name == closed:
            raise OSError(error, os.strerror(error))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)


def test_a_folder_without_permission_is_told_and_the_others_are_taken(tmp_path, monkeypatch):
    fill(tmp_path, "cats/1.png", "dogs/1.png", "owls/1.png")
    refusing(monkeypatch, "owls", errno.EACCES)
    listing = listing_of(tmp_path)
    assert listing.label_names == ("cats", "dogs")
    assert "1 file or folder can't be read: left out (owls)" in listing.notices[0]
    refusing(monkeypatch, "dogs", errno.EACCES)
    with pytest.raises(DataError, match=r"of one class, cats(.|\n)*can't be read: left out \(dogs, owls\)"):
        listing_of(tmp_path)


def test_a_folder_on_a_failing_drive_stops_the_start(tmp_path, monkeypatch):
    """What lies there nobody knows, and it may be most of the images."""
    fill(tmp_path, "cats/1.png", "dogs/1.png", "owls/1.png")
    refusing(monkeypatch, "owls", errno.EIO)
    with pytest.raises(DataError, match=r"owls can't be read"):
        listing_of(tmp_path)
    refusing(monkeypatch, tmp_path.name, errno.EACCES)
    with pytest.raises(DataError, match=rf"{tmp_path.name} can't be read"):
        listing_of(tmp_path)


@pytest.mark.parametrize("written", ["{}\\{}", "./{}/{}", "../{}/{}", "C:\\data\\{}\\{}", "/{}/{}", "x/../{}//{}"])
def test_names_in_zips_that_some_programs_write(tmp_path, written):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for folder in ("cats", "dogs"):
            member = zipfile.ZipInfo()
            member.filename = written.format(folder, "1.png")
            archive.writestr(member, folder)
    source = find_source(str(tmp_path / "photos.zip"))
    listing = list_classes(source)
    assert listing.label_names == ("cats", "dogs")
    assert [source.read(name) for name in names(listing)] == [b"cats", b"dogs"]
    assert [pickle.loads(pickle.dumps(source)).read(name) for name in names(listing)] == [b"cats", b"dogs"]


def test_a_zip_with_a_password(tmp_path):
    whole = bytearray(packed(fill(tmp_path / "photos", "cats/1.png", "dogs/1.png")).read_bytes())
    for signature, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        for place in (found.start() for found in re.finditer(re.escape(signature), bytes(whole))):
            whole[place + flags] |= 1
    (tmp_path / "photos.zip").write_bytes(whole)
    with pytest.raises(DataError, match="needs a password"):
        listing_of(tmp_path / "photos.zip")


def test_two_unicode_forms_are_one_class(tmp_path):
    data = fill(tmp_path, f"{NFC}/1.png", "the/1.png")
    fill(data, f"{NFD}/2.png")
    listing = listing_of(data)
    assert listing.label_names == (NFC, "the")
    assert [entry.label for entry in listing.entries] == [0, 0, 1]
    if len(list(data.iterdir())) == 3:  # macOS takes them for one itself
        assert "in two Unicode forms: they are one class" in listing.notices[0]


@pytest.mark.parametrize("other", ["Cats", "cats ", "CATS."])
@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="takes them for one itself")
def test_classes_that_another_system_takes_for_one_are_told(tmp_path, other):
    listing = listing_of(fill(tmp_path, "cats/1.png", f"{other}/1.png", "dogs/1.png"))
    assert len(listing.label_names) == 3
    assert "one folder on Windows" in listing.notices[0]


def test_the_classes_of_a_checkpoint_keep_their_places(tmp_path):
    """Whatever form the file system gives back, and in whatever order they were sorted once."""
    data = fill(tmp_path, f"{NFC}/1.png", "cafz/1.png")
    listing = list_classes(find_source(str(data)), (NFD, "cafz"))
    assert listing.label_names == (NFD, "cafz")
    assert names(listing) == [f"{NFC}/1.png", "cafz/1.png"]
    assert list_classes(find_source(str(data))).label_names == ("cafz", NFC)


def test_a_run_that_took_two_forms_for_two_classes_goes_on_so(tmp_path):
    data = fill(tmp_path, f"{NFD}/1.png", f"{NFC}/2.png")
    if len(list(data.iterdir())) == 2:  # macOS takes them for one itself
        listing = list_classes(find_source(str(data)), (NFD, NFC))
        assert [(entry.name, entry.label) for entry in listing.entries] == [(f"{NFD}/1.png", 0), (f"{NFC}/2.png", 1)]


def test_other_classes_than_the_checkpoints_are_named(tmp_path):
    data = fill(tmp_path, "The/1.png", "new/1.png", "cats/1.png")
    with pytest.raises(DoesNotFit) as refused:
        list_classes(find_source(str(data)), ("cats", "the", "wolves"))
    text = str(refused.value)
    assert "not there: the, wolves" in text
    assert "not known: The, new" in text
    assert "'the' and 'The' differ in letter case or a blank only" in text
    assert "--no-checkpoint" in text


def test_the_digest_is_the_same_for_every_unicode_form(tmp_path):
    entry = listing_of(fill(tmp_path, "a/1.png", "b/1.png")).entries[0]
    assert digest("x", [entry._replace(name=NFC)]) == digest("x", [entry._replace(name=NFD)])
