"""progan_local.py as a person types it: what it says, what it answers to mistakes, what it leaves on disk."""

import re
import shutil
import signal
import subprocess
import sys
from dataclasses import fields

import pytest
import torch
from PIL import Image
from systems import STOP
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from typed import PROGAN, REPOSITORY, run, run_and_signal

import ganguard as ganguard_package
from ganguard.cli import progan
from ganguard.cli.main import main as ganguard
from ganguard.networks.progressive import ProgressiveCritic, ProgressiveGenerator
from ganguard.training.progan_config import ProganConfig
from ganguard.training.progan_step import make_optimizers

TINY = [
    "--limit-images", "40", "--in-channels", "4", "--z-dim", "4", "--batch-sizes", "8,8,8",
    "--progressive-epochs", "1,2,1", "--threads", "1", "--device", "cpu",
]  # fmt: skip
STEPS = 3 + 2 * 3 + 3


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a short finished run, and what it said; tests must not change it."""
    folder = tmp_path_factory.mktemp("trained")
    done = run(PROGAN, *TINY, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder, done.stdout


@pytest.fixture
def answer(tmp_path, monkeypatch, capfd):
    """Runs the command in this process, which is quicker; gives (exit code, what was printed)."""
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.chdir(tmp_path)

    def ask(*words, constants=None, command=progan.main):
        extra = {} if constants is None else {"constants": constants}
        try:
            code = command([str(word) for word in words], **extra)
        except SystemExit as left:
            code = left.code
        finally:
            signal.signal(signal.SIGINT, before)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return ask


def first_picture(folder):
    (path,) = folder.glob("00000*.png")
    return path


def newest(folder):
    return folder / "weights" / "generator_emoji_local.pth"


def test_a_start_tells_what_is_to_come(trained):
    _, text = trained
    assert "    size   epochs     images  fading in" in text
    assert re.search(r"^    8 px +2 +80 +40 +8x2 +~ .*(kB|MB)$", text, re.MULTILINE)
    assert "Altogether about" in text
    assert "4, 8, 16 px will see fewer than 100,000 images (the paper: 1.2 million)" in text


SIZES = {"bytes": 1, "kB": 1e3, "MB": 1e6}


def in_bytes(text):
    number, unit = text.split()
    return float(number) * SIZES[unit]


def test_a_start_tells_the_disk_that_is_taken_in_one_figure_and_truly(trained):
    folder, text = trained
    asked = re.findall(r"[Cc]heckpoints.* up to ([\d.]+ (?:bytes|kB|MB))", text)
    assert len(asked) == 1
    files = {path: path.stat().st_size for path in (folder / "weights").rglob("*.pth")}
    newest = sum(size for path, size in files.items() if "_local" in path.name)
    assert sum(files.values()) + 3 * newest <= in_bytes(asked[0]) <= sum(files.values()) + 6 * newest
    for row, epoch in (("4", 1), ("8", 3), ("16", 4)):
        told = in_bytes(re.search(rf"^ +{row} px .*  ([\d.]+ [kM]?B)$", text, re.MULTILINE)[1])
        taken = sum(size for path, size in files.items() if f"epoch_{epoch:03d}" in path.name)
        assert 0.9 < told / taken < 1.1


def test_it_grows_through_its_levels_with_a_grid_at_each(trained):
    folder, text = trained
    assert [line for line in text.splitlines() if " px begins: " in line] == [
        "4 px begins: epochs 1 to 1.", "8 px begins: epochs 2 to 3.", "16 px begins: epochs 4 to 4.",
    ]  # fmt: skip
    assert sorted(path.name for path in folder.glob("samples/progan_emoji_*/*.png")) == [
        "epoch_0001_0004px.png", "epoch_0002_0008px.png", "epoch_0003_0008px.png", "epoch_0004_0016px.png",
        "real_0004px.png", "real_0008px.png", "real_0016px.png",
    ]  # fmt: skip
    loaded = torch.load(newest(folder), weights_only=True)
    assert loaded["progress"]["step"] == STEPS
    assert loaded["progress"]["images"] == 160
    assert loaded["config"]["network"] == "progan"


def test_a_finished_run_says_so_and_its_settings_need_not_be_typed_again(trained, answer, tmp_path):
    shutil.copytree(trained[0], tmp_path, dirs_exist_ok=True)
    code, text = answer("--device", "cpu")
    assert code == 0
    assert "The training is finished, up to 16 px; nothing is left to do." in text


def test_generate_makes_images_a_grid_and_a_strip(trained, answer, tmp_path):
    code, text = answer("generate", "--checkpoint", newest(trained[0]), "--count", 5, "--interpolate", 6, "--out", "a")
    assert code == 0, text
    assert len(list((tmp_path / "a").glob("0*.png"))) == 5
    with Image.open(first_picture(tmp_path / "a")) as picture:
        assert picture.size == (16, 16)
    assert (tmp_path / "a" / "grid.png").exists()
    assert (tmp_path / "a" / "strip.png").exists()
    words = ["generate", "--checkpoint", newest(trained[0]), "--count", 1, "--seed", 3]
    for out, more in (("b", ["--truncation", "0.5"]), ("c", []), ("d", ["--size", 4])):
        assert answer(*words, *more, "--out", out)[0] == 0
    pictures = [first_picture(tmp_path / out).read_bytes() for out in "abcd"]
    assert len(set(pictures)) == 4
    with Image.open(first_picture(tmp_path / "d")) as picture:
        assert picture.size == (4, 4)


def test_options_may_stand_before_generate(trained, answer, tmp_path):
    threads = torch.get_num_threads()
    try:
        code, text = answer("--threads", 1, "--weights-dir", trained[0] / "weights", "generate", "--count", 1)
        assert (code, torch.get_num_threads()) == (0, 1), text
    finally:
        torch.set_num_threads(threads)
    assert (tmp_path / "generated" / "grid.png").exists()


def test_generators_are_found_by_their_bare_names_and_by_their_folder(trained, answer):
    folder = trained[0] / "weights"
    words = ["generate", "--weights-dir", folder, "--count", 1]
    code, text = answer(*words, "--checkpoint", "generator_emoji_epoch_001.pth", "--out", "first")
    assert code == 0, text
    code, text = answer(*words, "--checkpoint", "generator_emoji_epoch_009.pth", "--out", "none")
    assert code == 3
    assert "There is no file" in text
    assert ganguard_package.load_generator(folder).image_size == 16


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--batch-sizes", "16,0"], 2, "BATCH_SIZES (--batch-sizes) takes 1 to 9 numbers of at least 1"),
        (["--batch-sizes", "many"], 2, "invalid list of whole numbers value"),
        (["--img-size", "48"], 2, "invalid choice"),
        (["--resume", "--branch"], 2, "--branch"),
        (["--batch-size", "3"], 2, "Did you mean --batch-sizes?"),
        (["--data-dir", "no/such/folder"], 2, "no/such/folder"),
        (["--load-model"], 3, "no checkpoint"),
        (["--checkpoint-gen", "weights/misspelt.pth"], 3, "misspelt.pth"),
        (["--config", "missing.toml"], 2, "missing.toml"),
        (["--device", "toaster"], 2, "--device toaster"),
        (["generate"], 3, "weights"),
        (["generate", "--count", "0"], 2, "--count must be at least 1"),
        (["generate", "--truncation", "0"], 2, "--truncation must be above 0"),
        (["generate", "--checkpoint", "nothing.pth"], 3, "nothing.pth"),
        (["generate", "--checkpoint", "."], 2, "is a folder"),
    ],
)
def test_a_mistake_gets_one_message_and_the_right_code(answer, tmp_path, words, code, message):
    found, text = answer(*words)
    assert found == code, text
    assert message in text
    assert "Traceback" not in text
    assert not list(tmp_path.glob("**/*.pth"))


@pytest.mark.parametrize("bare", [False, True], ids=["with optimizers", "bare"])
def test_older_pairs_are_trained_on_and_what_they_do_not_hold_is_told(answer, tmp_path, bare):
    """Written by plain torch.save; their size is START_TRAIN_AT_IMG_SIZE."""
    shape = {"image_size": 16, "channels": 3, "width": 4}
    networks = ProgressiveGenerator(**shape, latent_size=4), ProgressiveCritic(**shape)
    for name, network, optimizer in zip("gc", networks, make_optimizers(*networks, learning_rate=1e-3), strict=True):
        weights = network.state_dict()
        torch.save(weights if bare else {"state_dict": weights, "optimizer": optimizer.state_dict()}, f"{name}.pth")
    words = [*TINY, "--checkpoint-gen", "g.pth", "--checkpoint-critic", "c.pth", "--start-train-at-img-size", 8]
    code, text = answer(*words)
    assert code == 0, text
    optimizers = ", no state of its optimizer" if bare else " and the state of its optimizer"
    assert f"of generator it holds the weights{optimizers}. It holds no digest, no position and no random" in text
    assert "8 px begins: epochs 1 to 2." in text
    assert torch.load(newest(tmp_path), weights_only=True)["progress"]["images"] == 120
    assert "nothing is left to do" in answer(*words)[1]


def test_help_names_every_setting_with_its_default(answer):
    code, text = answer("--help")
    assert code == 0
    for item in fields(ProganConfig):
        assert "--" + item.name.replace("_", "-") in text
    assert "(default: 16,16,12,8,6,4,3,2,1)" in " ".join(text.split())
    assert "generate --help" in text


def test_ctrl_c_and_the_same_command_with_constants_edited_in_the_file(tmp_path):
    """LOAD_MODEL = False starts afresh; the command that the stop prints goes on all the same."""
    script = (REPOSITORY / "progan_local.py").read_text(encoding="utf-8")
    for name, value in {
        "IN_CHANNELS": "4", "Z_DIM": "4", "BATCH_SIZES": "[8, 8, 8]", "PROGRESSIVE_EPOCHS": "[1, 2, 1]",
        "LOAD_MODEL": "False", "AUTO_SAVE_EVERY_N_BATCHES": "2",
    }.items():  # fmt: skip
        script, count = re.subn(rf"^{name} = [^#\n]*", f"{name} = {value}", script, flags=re.MULTILINE)
        assert count == 1
    (tmp_path / "mine.py").write_text(script, encoding="utf-8")
    words = ["--limit-images", "40", "--threads", "1", "--device", "cpu"]
    code, text = run_and_signal([sys.executable, "mine.py"], *words, cwd=tmp_path, at="batch_00002")
    assert code == 128 + STOP, text
    command = text.split("To go on: ")[1].splitlines()[0]
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "resumed from step" in done.stdout
    assert torch.load(newest(tmp_path), weights_only=True)["progress"]["images"] == 160
    (logs,) = tmp_path.glob("logs/progan_emoji_*")
    assert Image.open(logs / "curves.png").size[0] == 900
    shown = EventAccumulator(str(logs / "tensorboard")).Reload()
    assert [event.step for event in shown.Scalars("epoch/loss_d")] == [3, 6, 9, 12]
    assert [event.step for event in shown.Images("samples")] == [3, 6, 9, 12]
    done = run([sys.executable, "mine.py"], *words, "--progressive-epochs", "1,0,0", cwd=tmp_path)
    assert "Set aside in" in done.stdout
    assert "resumed from step" not in done.stdout


def test_ganguard_progan_is_the_same_command(answer):
    code, text = answer("progan", "generate", "--count", "0", command=ganguard)
    assert code == 2
    assert "--count must be at least 1" in text
    assert answer("progan", "--help", command=ganguard)[1].startswith("usage: ganguard progan")


def test_lists_stand_in_a_config_file_as_lists(answer, tmp_path):
    (tmp_path / "my.toml").write_text("batch_sizes = [16, 16]\nprogressive-epochs = [5, 5, 5]\n")
    code, text = answer("--config", "my.toml")
    assert code == 2
    assert "BATCH_SIZES (--batch-sizes) has 2 numbers for the 3 sizes up to 16 px" in text


def test_a_run_begun_from_another_folders_file_leaves_that_alone_and_goes_on(tmp_path):
    """The other run's pair gets none of this one's fixed names; nothing of ganguard's own counts as foreign."""
    for name in ("retina", "lunge"):
        (tmp_path / name).mkdir()
        for number in range(12):
            Image.new("RGB", (40, 40), (20 * number, len(name), 90)).save(tmp_path / name / f"{number}.png")
    words = ["--in-channels", "4", "--z-dim", "4", "--threads", "1", "--device", "cpu", "--batch-sizes", "4,4"]
    done = run(PROGAN, *words, "--progressive-epochs", "1,1", "--data-dir", "retina", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    before = (tmp_path / "weights/generator_retina_local.pth").read_bytes()
    lunge = [*words, "--data-dir", "lunge"]
    named = ["--checkpoint-gen", "generator_retina_local.pth"]
    for more in (["--progressive-epochs", "1,1", *named], [], ["--progressive-epochs", "1,2"]):
        done = run(PROGAN, *lunge, *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "it is kept as" not in done.stdout
    assert "saved weights/history/generator_lunge_epoch_003.pth" in done.stdout
    assert (tmp_path / "weights/generator_retina_local.pth").read_bytes() == before
    assert (tmp_path / "weights/generator_lunge_local.pth").exists()


def test_settings_that_do_not_fit_are_refused_before_the_images_are_decoded(trained, answer, tmp_path):
    shutil.copytree(trained[0] / "weights", tmp_path / "weights")
    code, text = answer("--in-channels", "8")
    assert (code, "in_channels: 8 here, 4 in the checkpoint" in text) == (3, True), text
    assert "start afresh (the old run is set aside, not lost): --no-checkpoint" in text
    code, text = answer("--in-channels", "8", "--checkpoint-path", max((tmp_path / "weights/history").glob("gen*.pth")))
    assert (code, "in_channels: 8 here, 4 in the checkpoint" in text) == (3, True), text
    assert "To train without it, do not name it." in text  # --no-checkpoint beside a named file would be refused
    assert not (tmp_path / "cache").exists()


def test_batch_sizes_for_the_sizes_of_the_checkpoint_are_enough(trained, answer, tmp_path):
    """A smaller batch is what helps against heat and full memory: a list as long as the run's own must do."""
    shutil.copytree(trained[0] / "weights", tmp_path / "weights")
    shutil.copytree(trained[0] / "cache", tmp_path / "cache")
    code, text = answer("--batch-sizes", "4,4,4", constants={"BATCH_SIZES": [8, 8, 8]})
    assert (code, "batch_sizes is [4, 4, 4] now" in text) == (0, True), text
    code, text = answer("--progressive-epochs", "1,2,1,5")
    assert "this run's networks end at 16 px: what is beyond does nothing" in text
    code, text = answer("--progressive-epochs", "1,2")
    assert "the training ends at 8 px" in text
