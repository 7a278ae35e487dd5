"""A command that a message prints is typed: it does what was said, or leads on, and never prints itself for ever."""

import ast
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch
from systems import remove, remove_tree
from typed import REPOSITORY

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import damage, save, save_on_shelf, start

from ganguard.cli import cgan, cgan_pictures, checkpoints, progan, progan_pictures
from ganguard.errors import GanguardError
from ganguard.store import backup
from ganguard.store.catalog import Catalog
from ganguard.store.pair import Pair
from ganguard.store.shelf import Shelf

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="shlex splits as other systems do")
PARSERS = [
    cgan.parser("g"), cgan_pictures.generate_parser("g"), cgan_pictures.compare_parser("g"), progan.parser("p"),
    progan_pictures.parser("p"), checkpoints.parser("m"),
]  # fmt: skip
OF_OTHERS = {"--help", "--version", "--nproc-per-node", "--shm-size", "--ipc"}


def printed(text, option="--checkpoint-path"):
    """The words of the only command that a text prints with an option."""
    found = re.findall(rf"{option} .*$", text, re.MULTILINE)
    assert len(found) == 1, text
    return shlex.split(found[0])


def obey(where, words):
    """Begin as the options say; returns what is gone on from, and what is told."""
    pair = isinstance(where, Shelf)
    asked = (progan if pair else cgan).parser("x").parse_args(words)
    file = asked.checkpoint_gen if pair else asked.checkpoint_path
    second = getattr(asked, "checkpoint_critic", None)
    plan, path, told = start(where, file=Path(file), companion=second and Path(second), branch=asked.branch)
    return plan, path, "\n".join(told)


def refusal(where, **asked):
    with pytest.raises(GanguardError) as refused:
        start(where, **asked)
    return str(refused.value)


def of_another_script(path, value=1.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    remove(path, missing_ok=True)
    torch.save({"state_dict": {"weight": torch.full((2,), value)}}, path)


@pytest.fixture
def folder(tmp_path):
    """With a space in its name, as people's folders have."""
    return tmp_path / "my run" / "checkpoints"


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "my run" / "weights", Pair(name="DRUSEN"))


def begun(where, epochs=2):
    run = start(where)[0].run
    keep = save_on_shelf if isinstance(where, Shelf) else save
    for epoch in range(1, epochs + 1):
        extra = {} if isinstance(where, Shelf) else {"alias": True}
        keep(where, epoch, run=run.run, **extra)
    return run


def test_of_older_files_under_the_fixed_names(shelf):
    """The command names both; typed again before the first save, and after it, it means the same run."""
    for value, name in enumerate(shelf.pair.aliases):
        of_another_script(shelf.folder / name, value)
    words = printed(refusal(shelf))
    plan, path, _ = obey(shelf, words)
    assert torch.load(path, weights_only=True)["state_dict"]["weight"][0] == 1
    assert len(plan.companions) == 1
    again, path, _ = obey(shelf, words)
    assert torch.load(path, weights_only=True)["state_dict"]["weight"][0] == 1
    assert (len(again.companions), again.run.run) == (1, plan.run.run)
    unnamed = start(shelf)[0]
    assert (len(unnamed.companions), unnamed.run.run) == (1, plan.run.run)
    save_on_shelf(shelf, 1, run=plan.run.run, origin=plan.origin)
    assert obey(shelf, words)[0].start.summary.epoch == 1


def test_of_an_older_file_under_the_fixed_name(folder):
    of_another_script(folder / "latest_checkpoint.pth")
    words = printed(refusal(folder))
    plan, path, _ = obey(folder, words)
    assert torch.load(path, weights_only=True)["state_dict"]["weight"][0] == 1
    assert obey(folder, words)[1] == path
    save(folder, 1, run=plan.run.run, alias=True, origin=plan.origin)
    assert obey(folder, words)[0].start.summary.epoch == 1


@pytest.mark.parametrize("kind", ["single", "pair"])
def test_of_an_older_file_that_took_a_fixed_name_since(folder, shelf, kind):
    """The start that tells of it moves it out of the way: the command names where it lies then."""
    where = folder if kind == "single" else shelf
    begun(where)
    for name in ["latest_checkpoint.pth"] if kind == "single" else shelf.pair.aliases:
        of_another_script((folder if kind == "single" else shelf.folder) / name, 7.0)
    _, _, told = start(where)
    plan, path, _ = obey(where, printed("\n".join(told)))
    assert torch.load(path, weights_only=True)["state_dict"]["weight"][0] == 7
    assert len(plan.companions) == (kind == "pair")


def test_of_another_runs_checkpoint_under_the_fixed_name(shelf, tmp_path):
    """It gets its own name back, and the command names it by that."""
    other = Shelf(tmp_path / "other", shelf.pair)
    begun(other, epochs=5)
    begun(shelf)
    for name in shelf.pair.aliases:
        remove(shelf.folder / name)
        shutil.copy(other.folder / name, shelf.folder / name)
    _, _, told = start(shelf)
    offered = [line for line in told if "Of another run" in line]
    assert obey(shelf, printed(offered[0]))[0].start.summary.epoch == 5


def test_of_several_runs_of_which_none_is_on_record(folder):
    for epoch, run in ((1, "a"), (2, "b")):
        save(folder, epoch, run=run)
    text = refusal(folder)
    assert "--checkpoint-path FILE" in text
    newest = re.search(r"run b: newest (.*)$", text, re.MULTILINE)[1]
    assert obey(folder, ["--checkpoint-path", newest])[0].start.summary.epoch == 2


def test_where_all_are_damaged_and_a_backup_lies_elsewhere(folder):
    begun(folder)
    backup.back_up(folder / "checkpoint_epoch_002.pth", folder.parent / "checkpoint_backups")
    for path in [entry.path for entry in Catalog.of(folder).entries]:
        damage(path)
    text = refusal(folder)
    assert "To start afresh, setting them aside:  --no-checkpoint" in text
    assert obey(folder, printed(text))[0].start.summary.epoch == 2


def test_to_really_go_back(folder):
    begun(folder, epochs=3)
    words = ["--checkpoint-path", str(folder / "checkpoint_epoch_001.pth")]
    _, _, told = obey(folder, words)
    assert "add --branch" in told
    assert obey(folder, [*words, "--branch"])[0].start.summary.epoch == 1


def test_back_to_the_newest_by_its_fixed_name(shelf):
    begun(shelf)
    words = ["--checkpoint-path", str(shelf.folder / shelf.pair.aliases[1]), "--branch"]
    assert obey(shelf, words)[0].run.branch == 1


def test_a_damaged_fixed_name_means_the_newest_good_one(folder):
    begun(folder)
    remove(folder / "latest_checkpoint.pth")
    (folder / "latest_checkpoint.pth").write_bytes(b"torn")
    assert obey(folder, ["--checkpoint-path", str(folder / "latest_checkpoint.pth")])[0].start.summary.epoch == 2


@pytest.mark.parametrize("program", ["ganguard checkpoints", "python checkpoint_manager.py"])
def test_a_file_that_is_not_there(folder, capsys, monkeypatch, tmp_path, program):
    """The manager is told as it can be started here: the file only where it lies."""
    monkeypatch.chdir(tmp_path if program.startswith("ganguard") else REPOSITORY)
    folder.mkdir(parents=True)
    _, _, *words = printed(refusal(folder, file=folder / "typo.pth"), program)
    assert checkpoints.main(words) == 0
    assert "There are no checkpoints in" in capsys.readouterr().out
    save(folder, 1)
    meant = refusal(folder, file=folder / "checkpoint_epoch_01.pth")
    assert obey(folder, ["--checkpoint-path", re.search(r"Did you mean (.*)\?$", meant)[1]])[1]
    assert "Nor is there a folder" in refusal(folder, file=folder / "nowhere" / "x.pth")


def test_what_the_manager_prints(folder, capsys):
    def manage(*words, code=0):
        assert checkpoints.main([str(word) for word in words]) == code
        return "".join(capsys.readouterr())

    begun(folder, epochs=1)
    above = manage("--list", "--checkpoint-dir", folder.parent)
    assert "epoch_001" in manage("--list", *printed(above, "--checkpoint-dir"))
    here = ["--checkpoint-dir", folder]
    text = manage(*here, "--delete", "checkpoint_epoch_001.pth", code=2)
    assert "Back it up first with --backup, or add --force" in text
    manage(*here, "--backup", "checkpoint_epoch_001.pth")
    left = manage(*here, "--delete", "checkpoint_epoch_001.pth")
    assert obey(folder, printed(left))[0].start.summary.epoch == 1
    assert "no checkpoints in" in manage("--list", "--checkpoint-dir", folder.parent.parent)


def string_constants():
    """Whatever the package's modules say in strings that are not documentation."""
    for path in sorted((REPOSITORY / "src").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        told = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
                yield path.name, node.value


def test_every_option_that_a_message_names_exists():
    known = {option for parser in PARSERS for option in parser._option_string_actions} | OF_OTHERS
    named = {(o, file) for file, text in string_constants() for o in re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)}
    assert {(option, file) for option, file in named if option not in known} == set()


TINY = [
    "--limit-images", "12", "--in-channels", "4", "--z-dim", "4", "--batch-sizes", "6,6", "--threads", "1",
    "--progressive-epochs", "1,1", "--sample-every", "0", "--weights-dir", "my weights",
]  # fmt: skip


@pytest.fixture
def train(tmp_path, monkeypatch, capfd):
    """progan_local.py in this process; gives (exit code, what was printed)."""
    monkeypatch.chdir(tmp_path)

    def answer(*words):
        code = progan.main([*TINY, *words])
        signal.signal(signal.SIGINT, signal.default_int_handler)
        captured = capfd.readouterr()
        return code, captured.out + captured.err

    return answer


def test_progan_goes_on_from_older_files_under_its_fixed_names_by_the_command_it_prints(train, capfd):
    """The whole way: refused, the printed command typed, typed again, and without the names."""
    weights = Path("my weights")
    assert train()[0] == 0
    for word in ("generator", "critic"):
        held = torch.load(weights / f"{word}_emoji_local.pth", weights_only=True)
        torch.save({key: held[key] for key in ("state_dict", "optimizer")}, f"{word}.pth")
    remove_tree(weights)
    weights.mkdir()
    for word in ("generator", "critic"):
        shutil.move(f"{word}.pth", weights / f"{word}_emoji_local.pth")
    making = ["generate", "--data-dir", "emoji", "--weights-dir", str(weights), "--count", "1", "--threads", "1"]
    assert progan.main(making) == 3
    text = capfd.readouterr().err
    assert "--checkpoint-path" not in text
    assert "--no-checkpoint" not in text
    assert progan.main([*making, *printed(text, "--checkpoint")]) == 0
    code, text = train()
    assert code == 3
    words = printed(text)
    code, text = train(*words)
    assert code == 0, text
    assert "of critic it holds the weights and the state of its optimizer" in text
    for again in (words, []):
        code, text = train(*again)
        assert (code, "nothing is left to do" in text) == (0, True), text
