"""ganguard.load_generator, and what it returns."""

import math
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from generators import CLASSES, networks, save_cgan, spec
from stores import damage, flip, save_pair
from systems import not_under_wine, remove

import ganguard
from ganguard.errors import (
    CheckpointError,
    DamagedCheckpoint,
    DoesNotFit,
    NoCheckpoint,
    RefusedCheckpoint,
    UnreadableCheckpoint,
    UsageError,
)
from ganguard.networks.label_rows import label_rows
from ganguard.networks.latents import draw_latents
from ganguard.networks.loaded import GeneratorOrigin, LoadedGenerator
from ganguard.training.best import BestPair


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return ganguard.load_generator(save_cgan(tmp_path_factory.mktemp("one"), 3))


@pytest.fixture
def attributes(tmp_path):
    path = save_cgan(tmp_path, 1, of=spec(label_names=("Smiling", "Male"), multi_label=True))
    return ganguard.load_generator(path)


def pair(folder, seed=1, **fields):
    BestPair(folder).write(
        *networks(seed, spec()),
        spec=spec(),
        **{"epoch": seed, "step": 10 * seed, "score": {"name": "fid", "value": 2.5}, **fields},
    )
    return folder / "best_generator.pth"


def same(generator, module):
    here, there = generator.module.state_dict(), module.state_dict()
    return list(here) == list(there) and all(torch.equal(here[key], there[key]) for key in here)


def test_a_checkpoint_gives_its_average_in_evaluation_mode(loaded):
    assert same(loaded, networks(3, spec())[0])
    assert not loaded.module.training
    assert not any(parameter.requires_grad for parameter in loaded.module.parameters())
    assert loaded.spec == spec()
    assert loaded.label_names == CLASSES
    assert loaded.device == torch.device("cpu")


def test_the_origin_tells_the_position_the_score_and_the_losses(tmp_path):
    score = {"name": "fid", "value": 31.5, "about": {"extractor": "x"}}
    origin = ganguard.load_generator(save_cgan(tmp_path, 4, score=score)).origin
    assert (origin.epoch, origin.step, origin.score, origin.position) == (4, 40, score, "epoch 4")
    assert origin.means == {"loss_d": 1.5, "loss_g": 0.5}


def test_an_alias_is_the_file_that_it_stands_for(tmp_path):
    path = save_cgan(tmp_path, 2, alias=True)
    assert ganguard.load_generator(tmp_path / "latest_checkpoint.pth").origin.file == path


def test_a_folder_gives_its_newest_good_checkpoint(tmp_path):
    folder = tmp_path / "checkpoints"
    for epoch in (1, 2, 3):
        newest = save_cgan(folder, epoch)
    assert ganguard.load_generator(folder).origin.epoch == 3
    assert ganguard.load_generator(tmp_path).origin.epoch == 3  # a run's folder
    damage(newest)
    before = sorted(folder.rglob("*"))
    assert ganguard.load_generator(folder).origin.epoch == 2
    assert sorted(folder.rglob("*")) == before


def test_a_folder_without_a_good_checkpoint_says_why(tmp_path):
    with pytest.raises(NoCheckpoint, match="no checkpoint of ganguard in"):
        ganguard.load_generator(tmp_path)
    damage(save_cgan(tmp_path, 1))
    with pytest.raises(NoCheckpoint, match=r"no good checkpoint[^$]*checkpoint_epoch_001.pth is damaged"):
        ganguard.load_generator(tmp_path)


def test_a_folder_of_two_runs_asks_for_a_file(tmp_path):
    save_cgan(tmp_path, 1)
    save_cgan(tmp_path, 2, run="run-b")
    with pytest.raises(NoCheckpoint, match="checkpoints of 2 runs"):
        ganguard.load_generator(tmp_path)


@pytest.mark.parametrize("name", ["best_generator.pth", "best_generator.json", "."])
def test_a_best_pair_is_rebuilt_from_its_json(tmp_path, name):
    pair(tmp_path, 7)
    got = ganguard.load_generator(tmp_path / name)
    assert same(got, networks(7, spec())[0])
    assert (got.origin.epoch, got.origin.step) == (7, 70)
    assert got.origin.score == {"name": "fid", "value": 2.5}
    assert got.spec == spec()


def test_a_pair_that_was_copied_under_another_name(tmp_path):
    path = pair(tmp_path)
    for suffix in (".pth", ".json"):
        shutil.copy(path.with_suffix(suffix), tmp_path / f"mine{suffix}")
    assert same(ganguard.load_generator(tmp_path / "mine.pth"), networks(1, spec())[0])


def test_a_generator_beside_the_json_of_another_is_not_believed(tmp_path):
    path = pair(tmp_path / "a", 1)
    shutil.copy(pair(tmp_path / "b", 2), path)
    with pytest.raises(DamagedCheckpoint, match=r"is not the file that best_generator.json tells of"):
        ganguard.load_generator(path)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.97])
@pytest.mark.parametrize("kind", ["checkpoint", "pair"])
def test_one_flipped_bit_is_found(tmp_path, kind, share):
    path = pair(tmp_path) if kind == "pair" else save_cgan(tmp_path, 1)
    flip(path, int(path.stat().st_size * share))
    with pytest.raises(DamagedCheckpoint, match=r"Name another|name a checkpoint"):
        ganguard.load_generator(path)


@pytest.mark.parametrize("kind", ["checkpoint", "pair"])
def test_a_torn_file_is_damaged(tmp_path, kind):
    path = pair(tmp_path) if kind == "pair" else save_cgan(tmp_path, 1)
    content = path.read_bytes()
    remove(path)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedCheckpoint):
        ganguard.load_generator(path)


class Evil:
    def __reduce__(self):
        return (exec, ("raise SystemExit('ran')",))


def older(path, content):
    torch.save(content, path)
    return path


def test_what_cannot_be_used_says_what_it_is_and_what_to_do(tmp_path):
    weights = networks(1, spec())[0].state_dict()
    save_cgan(tmp_path / "c", 1)
    pair(tmp_path / "p")
    (tmp_path / "notes.pth").write_text("no checkpoint")
    lost = older(tmp_path / "lost.pth", torch.load(tmp_path / "c/checkpoint_epoch_001.pth", weights_only=True))
    cases = [
        (tmp_path / "c/checkpoint_epoch_010.pth", NoCheckpoint, "Did you mean .*checkpoint_epoch_001.pth"),
        (tmp_path / "nowhere/x.pth", NoCheckpoint, "There is no file"),
        (older(tmp_path / "bare.pth", weights), DoesNotFit, "no bare.json beside it. Put that back"),
        (older(tmp_path / "old.pth", {"netG_state_dict": weights}), DoesNotFit, "older script .* load them into"),
        (older(tmp_path / "evil.pth", {"a": Evil()}), RefusedCheckpoint, "it was not opened"),
        (lost, DamagedCheckpoint, "has lost its digest"),
        (tmp_path / "p/best_discriminator.pth", DoesNotFit, "Name best_generator.pth beside it"),
        (tmp_path / "notes.pth", DamagedCheckpoint, "is a text"),
    ]
    for path, error, message in cases:
        with pytest.raises(error, match=message):
            ganguard.load_generator(path)


@not_under_wine("torch's refusal of an argument destroys the stack")
def test_checkpoints_without_a_generator_of_ours(tmp_path):
    head = save_pair(tmp_path / "pair", 1).path
    with pytest.raises(DoesNotFit, match="second file"):
        ganguard.load_generator(tmp_path / "pair/critic_epoch_001.pth")
    with pytest.raises(DoesNotFit, match="holds no averaged generator"):
        ganguard.load_generator(head)
    own_loop = save_cgan(tmp_path, 1, body={"config": {"rate": 1}})
    with pytest.raises(DoesNotFit, match=r"checkpoint_epoch_001.pth does not tell how .* image_size"):
        ganguard.load_generator(own_loop)
    nonsense = save_cgan(tmp_path, 2, body={"config": {**spec().to_config(), "width": "wide"}})
    with pytest.raises(DoesNotFit, match="does not tell how"):
        ganguard.load_generator(nonsense)
    other_kind = save_cgan(tmp_path, 3, body={"config": {"network": "new"}})
    with pytest.raises(DoesNotFit, match="of the kind new"):
        ganguard.load_generator(other_kind)
    other_size = save_cgan(tmp_path, 4, body={"ema": networks(1, spec(width=8))[0].state_dict()})
    with pytest.raises(DoesNotFit, match=r"base.weight is 128x16 here and 256x16 in the checkpoint"):
        ganguard.load_generator(other_size)


def test_parameters_that_are_not_finite_are_refused(tmp_path):
    weights = networks(1, spec())[0].state_dict()
    weights["base.bias"][3] = math.nan
    with pytest.raises(CheckpointError, match="not finite"):
        ganguard.load_generator(save_cgan(tmp_path, 1, body={"ema": weights}))


def test_a_newer_format_is_not_called_damaged(tmp_path):
    path = pair(tmp_path)
    json = path.with_suffix(".json")
    json.write_text(json.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(UnreadableCheckpoint, match="newer ganguard"):
        ganguard.load_generator(path)


def test_fixed_latents_come_with_class_numbers_or_vectors(tmp_path):
    vectors = ganguard.load_generator(save_cgan(tmp_path, 1)).fixed
    numbers = {"latents": vectors[0], "labels": torch.arange(3).repeat(8)}
    older_form = ganguard.load_generator(save_cgan(tmp_path, 2, body={"fixed": numbers})).fixed
    assert torch.equal(older_form[1], vectors[1])
    assert ganguard.load_generator(save_cgan(tmp_path, 3, body={"fixed": None})).fixed is None


@pytest.mark.parametrize("truncation", [None, 0.5])
def test_an_image_depends_on_seed_place_and_label_only(loaded, truncation):
    """Bit for bit: not on how many are made, nor from where on."""
    many = loaded.sample(50, seed=4, truncation=truncation)
    assert many.shape == (50, 1, 8, 8)
    assert many.dtype == torch.float32
    assert float(many.abs().max()) <= 1
    for count in (1, 2, 15, 16, 17, 33):
        assert torch.equal(loaded.sample(count, seed=4, truncation=truncation), many[:count])
    for first, count in ((1, 1), (15, 2), (16, 16), (31, 19)):
        assert torch.equal(
            loaded.sample(count, seed=4, truncation=truncation, first=first), many[first : first + count]
        )
    assert not torch.equal(loaded.sample(50, seed=5, truncation=truncation), many)
    assert len({image.numpy().tobytes() for image in many}) == 50


def test_an_image_is_the_networks_own(loaded):
    latents = draw_latents(3, 8, seed=0)
    with torch.no_grad():
        expected = loaded.module(latents, torch.eye(3))
    assert torch.allclose(loaded.sample(3), expected, atol=1e-6)


def test_a_network_without_labels_whose_images_leave_the_range():
    class Loud(LoadedGenerator):
        def _images(self, latents, label_vectors):
            return 3 * torch.sign(self.module(latents)).double()

    generator = Loud(nn.Linear(4, 6), GeneratorOrigin(file=Path("x")), latent_size=4)
    with pytest.raises(UsageError, match="knows no labels"):
        generator.sample(1, labels=0)
    images = generator.sample(20)
    assert images.dtype == torch.float32
    assert set(images.flatten().tolist()) == {-1.0, 1.0}


def test_nothing_draws_from_the_global_random_streams(tmp_path):
    path = save_cgan(tmp_path, 1)
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy()
    ganguard.load_generator(path).sample(5, truncation=0.7)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


@pytest.mark.parametrize("bound", [0.1, 0.7, 2.0, 30.0])
def test_truncated_latents_have_the_variance_of_a_truncated_normal(bound):
    """1 - 2 a phi(a) / (2 Phi(a) - 1) for a standard normal cut off at ± a (Johnson et al. 1994, section 10.1)."""
    latents = draw_latents(400, 100, seed=1, truncation=bound).double()
    density = math.exp(-(bound**2) / 2) / math.sqrt(2 * math.pi)
    expected = 1 - 2 * bound * density / math.erf(bound / math.sqrt(2))
    assert float(latents.abs().max()) <= bound * (1 + 1e-6)
    assert float(latents.var()) == pytest.approx(expected, rel=0.03)
    assert float(latents.mean()) == pytest.approx(0, abs=0.03 * bound)


@pytest.mark.parametrize(
    "words", [{"count": "5"}, {"count": 2.0}, {"count": 1, "seed": "x"}, {"count": 1, "first": None}]
)
def test_numbers_that_are_none_are_refused(loaded, words):
    with pytest.raises(UsageError, match="whole numbers"):
        loaded.sample(**words)


def test_letter_case_counts_where_two_names_differ_in_nothing_else():
    assert label_rows("A", ("a", "A"), multi_label=False).tolist() == [[0, 1]]
    for asked in ("caf\u00e9", "cafe\u0301", "CAFE\u0301"):
        assert label_rows(asked, ("cafe\u0301", "the"), multi_label=False).tolist() == [[1, 0]]
    with pytest.raises(UsageError, match="no class ß"):
        label_rows("ß", ("ss", "SS"), multi_label=False)


def test_a_folder_of_pairs_names_them(tmp_path):
    pair(tmp_path / "models" / "cgan_a")
    with pytest.raises(NoCheckpoint, match=r"cgan_a.best_generator\.pth"):
        ganguard.load_generator(tmp_path / "models")


@pytest.mark.parametrize("truncation", [0, -1, math.nan, math.inf, "x", True])
def test_a_truncation_that_is_none_is_refused(loaded, truncation):
    with pytest.raises(UsageError, match="above 0"):
        loaded.sample(1, truncation=truncation)


@pytest.mark.parametrize(
    ("labels", "rows"),
    [
        (None, [0, 1, 2]),
        ("boot", [1]),
        ("BOOT", [1]),
        (2, [2]),
        (["coat", 0], [2, 0]),
        (torch.tensor([1, 1, 0]), [1, 1, 0]),
        (torch.eye(3)[2], [2]),
        (torch.eye(3)[[2, 0]], [2, 0]),
    ],
)
def test_labels_in_every_form(loaded, labels, rows):
    assert torch.equal(loaded.rows(labels), torch.eye(3)[rows])
    in_turn = [rows[place % len(rows)] for place in range(5)]
    expected = loaded.images_of(draw_latents(5, 8, seed=0), torch.eye(3)[in_turn])
    assert torch.allclose(loaded.sample(5, labels=labels), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("Bot", "no class Bot. Did you mean boot"),
        (1.5, "a name or a number, not 1.5"),
        (["coat", None], "a name or a number, not None"),
        (True, "a name or a number, not True"),
        ("xyz", "There are bag, boot, coat"),
        (3, "count from 0 to 2"),
        (-1, "no class -1"),
        ([], "at least one class"),
        (torch.eye(4), "3 numbers each here, not the shape"),
        (torch.tensor([5]), "no class 5"),
        (torch.zeros(0, 3), "3 numbers each"),
    ],
)
def test_labels_that_there_are_not(loaded, labels, message):
    with pytest.raises(UsageError, match=message):
        loaded.sample(1, labels=labels)


def test_attributes(attributes):
    assert attributes.rows(None).tolist() == [[0, 0], [1, 0], [0, 1]]
    assert attributes.rows(["Male", "Smiling", "Male"]).tolist() == [[1, 1]]
    assert attributes.rows("Male").tolist() == [[0, 1]]
    assert attributes.rows([]).tolist() == [[0, 0]]
    assert attributes.rows(torch.tensor([[1, 0], [1, 1]])).tolist() == [[1, 0], [1, 1]]
    assert attributes.present(torch.tensor([1.0, 1.0])) == ["Smiling", "Male"]
    assert attributes.present(torch.tensor([0.0, 0.0])) == ["none"]
    assert attributes.rows(["male"]).tolist() == [[0, 1]]
    with pytest.raises(UsageError, match=r"no attribute smilling\. Did you mean Smiling"):
        attributes.rows(["smilling"])
    with pytest.raises(UsageError, match="knows attributes, not classes"):
        attributes.rows(1)


@pytest.mark.parametrize(("count", "first"), [(0, 0), (-3, 0), (1, -1)])
def test_counts_that_cannot_be(loaded, count, first):
    with pytest.raises(UsageError, match="At least one image"):
        loaded.sample(count, first=first)


@not_under_wine("torch's refusal of a device's name destroys the stack")
def test_moving_to_a_device(loaded):
    assert loaded.to("cpu") is loaded
    with pytest.raises(UsageError, match="no device toaster"):
        loaded.to("toaster")


def test_importing_ganguard_loads_no_torch():
    code = "import sys, ganguard; sys.exit('torch' in sys.modules or 'load_generator' not in ganguard.__all__)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
