"""Settings of the progressive GAN: what is accepted, what wins over what, what a start tells of them."""

import ast
from dataclasses import fields
from itertools import islice
from pathlib import Path

import pytest
from typed import REPOSITORY

from ganguard.cli import options, progan
from ganguard.cli.constants import edited
from ganguard.errors import NoCheckpoint, UsageError
from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator
from ganguard.store import resume
from ganguard.store.resume import Request
from ganguard.store.shelf import Shelf
from ganguard.training import run_names
from ganguard.training.cgan_config import CganConfig
from ganguard.training.progan import schedule_of
from ganguard.training.progan_config import Numbers, ProganConfig
from ganguard.training.progan_schedule import in_epochs
from ganguard.training.progan_start import in_use, largest_in_all, pair_bytes, table
from ganguard.training.progan_step import Growth


def constants():
    """What stands at the top of progan_local.py."""
    tree = ast.parse((REPOSITORY / "progan_local.py").read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    scope = {"Path": Path}
    exec(compile(ast.Module(assigned, []), "constants", "exec"), scope)
    return {name: value for name, value in scope.items() if name.isupper()}


def test_the_settings_that_people_edit_are_all_there():
    assert set(constants()) == {
        "DATA_DIR", "RUN_NAME", "WEIGHTS_DIR", "OUTPUT_DIR", "LOGS_DIR", "START_TRAIN_AT_IMG_SIZE", "BATCH_SIZES",
        "PROGRESSIVE_EPOCHS", "LEARNING_RATE", "Z_DIM", "IN_CHANNELS", "CHANNELS_IMG", "CRITIC_ITERATIONS", "LAMBDA_GP",
        "GRADIENT_ACCUMULATION_STEPS", "AUTO_SAVE_EVERY_N_BATCHES", "SAVE_MODEL", "LOAD_MODEL", "CHECKPOINT_GEN",
        "CHECKPOINT_CRITIC", "CHECKPOINT_GEN_SAVE", "CHECKPOINT_CRITIC_SAVE", "PIXEL_RANGE",
    }  # fmt: skip
    assert set(map(str.lower, constants())) <= {item.name for item in fields(ProganConfig)}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("DATA_DIR", 3, "takes text, not 3"),
        ("DATA_DIR", None, "takes text, not None"),
        ("WEIGHTS_DIR", "", "takes text, not ''"),
        ("OUTPUT_DIR", 7, "takes text, not 7"),
        ("START_TRAIN_AT_IMG_SIZE", None, "takes a whole number, not None"),
        ("START_TRAIN_AT_IMG_SIZE", "8", "takes a whole number, not '8'"),
        ("LEARNING_RATE", "1e-3", "takes a number, not '1e-3'"),
        ("LEARNING_RATE", float("nan"), "takes a number, not nan"),
        ("LAMBDA_GP", float("inf"), "takes a number, not inf"),
        ("Z_DIM", 2.5, "takes a whole number, not 2.5"),
        ("CRITIC_ITERATIONS", True, "takes a whole number, not True"),
        ("AUTO_SAVE_EVERY_N_BATCHES", None, "takes a whole number, not None"),
        ("SAVE_MODEL", "no", "takes True or False, not 'no'"),
        ("LOAD_MODEL", "yes", "takes True or False, not 'yes'"),
        ("CHECKPOINT_GEN_SAVE", 5, "takes text, not 5"),
        ("BATCH_SIZES", 16, "takes a list of whole numbers, one a size, such as [16, 16, 12], not 16"),
        ("PROGRESSIVE_EPOCHS", [0, 0], "trains nothing"),
    ],
)
def test_a_value_that_cannot_be_gets_a_sentence_with_its_name(name, value, message):
    with pytest.raises(UsageError, match=f"{name} .*") as refused:
        ProganConfig(**{name.lower(): value})
    assert message in str(refused.value)


def test_numbers_may_be_written_another_way():
    """``256 / 2`` is 128.0, and 0 a usual way to write False."""
    config = ProganConfig(in_channels=256 / 2, lambda_gp=10, load_model=0, save_model=1)
    assert (config.in_channels, config.lambda_gp, config.load_model, config.save_model) == (128, 10.0, False, True)
    assert [type(v) for v in (config.in_channels, config.lambda_gp, config.load_model)] == [int, float, bool]


def test_a_constant_that_is_no_setting_is_named_with_the_one_that_was_meant():
    with pytest.raises(UsageError, match=r"BATCH_SIZE at .* Did you mean BATCH_SIZES"):
        edited({"BATCH_SIZE": 3})


def test_a_file_that_is_typed_is_gone_on_from_although_the_constant_starts_afresh():
    afresh = ProganConfig(load_model=False, checkpoint_gen="old.pth")
    assert progan._request(afresh, {}, branch=False).afresh
    typed = progan._request(afresh, {"checkpoint_gen": "old.pth"}, branch=False)
    assert (typed.file, typed.afresh) == (Path("weights/old.pth"), False)
    with pytest.raises(UsageError, match="--checkpoint-gen"):
        progan._request(afresh, {"checkpoint_gen": "old.pth", "load_model": False}, branch=False)


def test_as_they_are_shipped_none_counts_as_edited():
    assert edited(constants()) == {}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATA_DIR", "scans"),
        ("BATCH_SIZES", [4, 4]),
        ("PROGRESSIVE_EPOCHS", (5, 5)),
        ("LOAD_MODEL", False),
        ("LOAD_MODEL", True),
        ("SAVE_MODEL", False),
        ("LEARNING_RATE", 0.002),
        ("CHECKPOINT_GEN", "weights/my.pth"),
    ],
)
def test_an_edited_constant_counts(name, value):
    assert edited({**constants(), name: value}) == {name.lower(): value}


def test_command_line_wins_over_constant_over_file_over_checkpoint_over_default():
    config = options.merge(
        ProganConfig,
        {"z_dim": 1},
        {"z_dim": 2, "in_channels": 2},
        {"in_channels": 3, "seed": 3},
        {"seed": 4, "lambda_gp": 4.0},
    )
    assert (config.z_dim, config.in_channels, config.seed, config.lambda_gp, config.critic_iterations) == (
        1,
        2,
        3,
        4,
        1,
    )


def test_a_constant_that_is_no_setting_is_named():
    with pytest.raises(UsageError, match="EPOCHS_PER_LEVEL"):
        edited({"EPOCHS_PER_LEVEL": 3})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_sizes": [16, 0]}, r"BATCH_SIZES \(--batch-sizes\) takes 1 to 9 numbers of at least 1"),
        ({"batch_sizes": [16, 16]}, "BATCH_SIZES .* has 2 numbers for the 9 sizes up to 1024 px"),
        ({"batch_sizes": 16}, "takes a list of whole numbers"),
        ({"progressive_epochs": []}, "PROGRESSIVE_EPOCHS"),
        ({"progressive_epochs": [20] * 10}, "1 to 9 numbers"),
        ({"progressive_epochs": [1.5]}, "whole numbers"),
        ({"start_train_at_img_size": 12}, "is one of 4, 8, 16"),
        ({"start_train_at_img_size": 64, "img_size": 32}, "but the last size is 32 px"),
        ({"img_size": 100}, "IMG_SIZE"),
        ({"channels_img": 2}, "is one of 1, 3"),
        ({"learning_rate": 0}, "LEARNING_RATE"),
        ({"critic_iterations": 0}, "at least 1"),
        ({"fade_kimg": 3.0}, "STABILIZE_KIMG"),
    ],
)
def test_what_cannot_be_is_named_as_people_know_it(settings, message):
    with pytest.raises(UsageError, match=message):
        ProganConfig(**settings)


def test_the_last_size_follows_from_the_epochs_unless_it_is_given():
    assert ProganConfig().image_size == 1024
    assert ProganConfig(progressive_epochs=[5] * 4).image_size == 32
    assert ProganConfig(img_size=64).levels == 5
    assert ProganConfig(img_size=64, progressive_epochs=[5] * 4).levels == 4
    assert ProganConfig(stabilize_kimg=600.0).levels == 9


def test_every_level_of_the_networks_has_a_batch_size():
    assert ProganConfig(img_size=64, progressive_epochs=[1, 1], batch_sizes=[9, 5]).pieces == [9, 5, 5, 5, 5]
    assert ProganConfig(img_size=8).pieces == [16, 16]


def test_numbers_are_read_as_they_are_typed():
    assert Numbers("16,8 4") == Numbers([16, 8, 4]) == (16, 8, 4)
    assert str(Numbers("1, 2")) == "1,2"
    with pytest.raises(ValueError, match="invalid literal"):
        Numbers("16;8")


def test_thousands_of_images_are_the_papers_form():
    schedule = schedule_of(ProganConfig(stabilize_kimg=600.0), Growth(), images=70_000, seen=0)
    assert tuple(schedule.at(900_000)) == (1, 0.5)
    assert tuple(schedule.at(2_400_000)) == (2, 1)
    fast = schedule_of(ProganConfig(stabilize_kimg=600.0, fade_kimg=100.0, img_size=8), Growth(), images=9, seen=0)
    assert tuple(fast.at(650_000)) == (1, 0.5)
    assert fast.total == 1_300_000


def test_beginning_at_a_larger_size_is_frozen_once_it_has_begun():
    growth = Growth()
    growth.enter(in_epochs([1, 1, 1], images=10, first_level=1).phases[0])
    config = ProganConfig(progressive_epochs=[1, 1, 1], start_train_at_img_size=4)
    assert tuple(schedule_of(config, growth, images=10, seen=3).at(3)) == (1, 1)


def test_the_default_run_up_to_1024_px_keeps_below_4_gigabytes():
    """Kept at the most: 2 newest, 9 levels' ends, the best, one being written, one emergency."""
    settings = ProganConfig()
    shape = {"image_size": settings.image_size, "channels": settings.channels_img, "width": settings.in_channels}
    generator = ProgressiveGenerator(**shape, latent_size=settings.z_dim)
    critic = ProgressiveCritic(**shape)
    pairs = [pair_bytes(generator, critic, level) for level in range(9)]
    assert sum(pairs) + 5 * pairs[-1] < 4e9
    assert numbers(in_use(generator, 8)) < numbers(generator.parameters())


def numbers(parameters):
    return sum(p.numel() for p in parameters)


def test_moments_are_counted_where_there_will_be_some():
    """4 px uses the base and one layer to the image; a level more adds its block and its layer."""
    generator = ProgressiveGenerator(image_size=16, channels=3, width=8, latent_size=4)
    base = (4 * 8 * 16 + 8 * 16) + (8 * 8 * 9 + 8)
    to_image, block = 8 * 3 + 3, 2 * (8 * 8 * 9 + 8)
    assert [numbers(in_use(generator, level)) for level in range(3)] == [
        base + to_image, base + 2 * to_image + block, base + 2 * to_image + 2 * block,
    ]  # fmt: skip


def test_the_start_tells_images_epochs_time_and_disk_and_warns_of_few_images():
    schedule = in_epochs([20, 20, 20], images=6_000)
    pairs = {0: 5_000_000, 1: 6_000_000, 2: 7_000_000}
    lines = list(
        table(
            schedule,
            images=6_000,
            batch_sizes=(16, 16, 12),
            accumulation=2,
            seconds={0: 0.001, 1: 0.01, 2: 0.1},
            pairs=pairs,
            kept=largest_in_all(schedule, pairs, aliases_are_copies=False),
            free=9_000_000_000,
            seen=180_000,
        )
    )
    assert [line.split() for line in lines[1:3]] == [
        ["8", "px", "10", "60,000", "0", "16x2", "~", "10", "min", "6.0", "MB"],
        ["16", "px", "20", "120,000", "60,000", "12x2", "~", "3.3", "h", "7.0", "MB"],
    ]
    assert "about 3.5 h" in lines[3]
    assert "up to 53.0 MB in all" in lines[4]  # 5 + 6 + 7, and five of the largest
    assert largest_in_all(schedule, pairs, aliases_are_copies=True) == 60_000_000
    assert len(lines) == 5
    few = list(
        table(
            in_epochs([20], images=50),
            images=50,
            batch_sizes=(16,),
            accumulation=1,
            seconds={},
            pairs={0: 1},
            kept=6_000_000,
            free=5_000_000,
            seen=0,
        )
    )
    assert "4 px will see fewer than 100,000 images (the paper: 1.2 million)" in few[-1]
    assert "?" in few[1]
    assert "only 5.0 MB are free" in few[-2]


def test_fixed_names_may_be_written_with_their_folder():
    config = ProganConfig(data_dir="scans/DRUSEN", checkpoint_gen_save="weights/g.pth", checkpoint_critic_save="c.pth")
    assert config.layout.aliases == ("c.pth", "g.pth")
    assert ProganConfig(data_dir="scans/DRUSEN").layout.aliases[1] == "generator_DRUSEN_local.pth"
    assert ProganConfig(data_dir="scans/DRUSEN.zip").layout.name == "DRUSEN"
    with pytest.raises(UsageError, match="bare file name"):
        _ = ProganConfig(checkpoint_gen_save="elsewhere/g.pth").layout


def test_a_named_file_is_gone_on_from_and_the_newest_ones_fixed_name_means_the_newest(tmp_path, monkeypatch):
    """People leave CHECKPOINT_GEN at the file that is saved to: the first start must not demand it."""
    monkeypatch.chdir(tmp_path)
    for name in ("generator_emoji_local.pth", "weights/generator_emoji_local.pth"):
        config = ProganConfig(checkpoint_gen=name)
        shelf = Shelf(Path("weights"), config.layout)
        assert resume.plan(shelf, progan._request(config, {}, branch=False)).start is None
        with pytest.raises(NoCheckpoint, match="one is demanded"):
            resume.plan(shelf, progan._request(config, {"checkpoint_gen": name}, branch=False))
    named = ProganConfig(checkpoint_gen="other/g.pth", checkpoint_critic="other/c.pth", load_model=True)
    expected = Request(required=True, file=Path("other/g.pth"), companion=Path("other/c.pth"))
    assert progan._request(named, {}, branch=False) == expected
    in_weights = ProganConfig(checkpoint_gen="EMERGENCY_generator_1.pth")
    assert progan._request(in_weights, {}, branch=False).file == Path("weights/EMERGENCY_generator_1.pth")
    afresh = ProganConfig(checkpoint_gen="other/g.pth", load_model=False)
    assert progan._request(afresh, {}, branch=False) == Request(afresh=True)


@pytest.mark.parametrize("settings", [ProganConfig, CganConfig])
def test_a_pixel_range_is_one_text_or_a_sentence(settings):
    assert settings().pixel_range == "auto"
    assert settings(pixel_range=" 0 : 4095.0").pixel_range == "0:4095"
    assert settings(pixel_range="-1000:3e3").pixel_range == "-1000:3000"
    with pytest.raises(UsageError, match=r"--pixel-range.*two numbers from black to white, such as 0:4095, not '4095'"):
        settings(pixel_range="4095")
    with pytest.raises(UsageError, match="--max-pixels"):
        settings(max_pixels=0)


@pytest.mark.parametrize(
    ("folder", "name", "longer"),
    [
        ("cats/train", "cats", "cats_train"),
        ("data/OCT2017/train/DRUSEN", "DRUSEN", "train_DRUSEN"),
        ("data/OCT2017/train", "OCT2017", "OCT2017_train"),
        ("OCT2017/Test/images", "OCT2017", "OCT2017_Test_images"),
        ("gatos/validação/imágenes", "gatos", "gatos_validação_imágenes"),
        ("scans/fotos.zip", "scans", "scans_fotos"),
        ("training_cats", "training_cats", "ana_training_cats"),
        ("data/images", "images", "data_images"),  # no name in the home folder: none of these tells, nor the person's
    ],
)
def test_a_run_is_called_after_the_innermost_folder_with_a_name_that_tells(tmp_path, monkeypatch, folder, name, longer):
    home = tmp_path / "ana"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    place = home / folder
    (place.parent if place.suffix else place).mkdir(parents=True)
    if place.suffix:
        place.touch()
    assert ProganConfig(data_dir=str(place)).layout.name == name
    first, second, third = islice(run_names.possible_names(str(place)), 3)
    assert (first, second) == (name, longer)
    assert third not in (first, second)
    monkeypatch.chdir(place.parent)
    assert ProganConfig(data_dir=place.name).layout.name == name
    assert ProganConfig(data_dir=str(place), run_name="mine").layout.name == "mine"
    with pytest.raises(UsageError, match="cannot be a part of file names"):
        _ = ProganConfig(run_name="a/b").layout
