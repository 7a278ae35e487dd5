"""Files that never end hang no command; what names and values hold is obeyed by no terminal."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from pathlib import Path

import pytest
from torch import nn

sys.path.append(str(Path(__file__).parents[1] / "helpers"))
from stores import rewrite, save, save_on_shelf, start

from ganguard import Guard
from ganguard.cli import cgan, checkpoints, main, options, progan
from ganguard.data.attributes import _lines
from ganguard.errors import DataError, NoCheckpoint, UsageError
from ganguard.reports import console
from ganguard.store import reading
from ganguard.store.pair import Pair
from ganguard.store.shelf import Shelf
from ganguard.training.cgan_config import CganConfig

needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no named pipes in folders")
TRICK = "a\n\x1b[2Jgood\x9b31m\u202e.pth"


def manage(folder: Path, *words: object) -> int:
    return checkpoints.main(["--checkpoint-dir", str(folder), *map(str, words)])


@needs_pipes
@pytest.mark.timeout(60)
def test_a_named_pipe_hangs_no_command(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    pipe = folder / "checkpoint_epoch_002.pth"
    os.mkfifo(pipe)
    assert manage(folder, "--list") == 0
    assert manage(folder, "--show", pipe) == 0
    assert manage(folder, "--verify", pipe) == 3
    assert manage(folder, "--backup", pipe) in (2, 6)
    assert "a named pipe and no regular file" in capsys.readouterr().err
    pipe.unlink()
    os.mkfifo(folder / "run.json")
    assert cgan.main(["--run-dir", str(tmp_path)]) == 3
    assert "run.json cannot be read: it is a named pipe" in capsys.readouterr().err
    os.mkfifo(tmp_path / "settings.toml")
    assert cgan.main(["--config", str(tmp_path / "settings.toml")]) == 2
    assert progan.main(["--config", str(tmp_path / "settings.toml")]) == 2
    os.mkfifo(tmp_path / "table.csv")
    with pytest.raises(DataError, match="named pipe"):
        list(_lines(tmp_path / "table.csv"))


@needs_pipes
@pytest.mark.timeout(60)
def test_a_named_pipe_in_the_journals_place_is_told_and_the_run_goes_on(tmp_path):
    said = []
    os.mkfifo(tmp_path / "journal.jsonl")
    with Guard(tmp_path, {"net": nn.Linear(1, 1)}, say=said.append) as guard:
        for _ in guard.steps(2):
            guard.log(loss=1.0)
    assert sum("journal.jsonl" in line and "a named pipe" in line for line in said) >= 1
    assert list(tmp_path.glob("checkpoint_*.pth"))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no endless device")
@pytest.mark.timeout(60)
@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null"])
def test_an_endless_file_behind_a_link_is_refused(tmp_path, device, capsys):
    link = tmp_path / "settings.toml"
    link.symlink_to(device)
    assert cgan.main(["--config", str(link)]) == 2
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    (folder / "run.json").symlink_to(device)
    assert cgan.main(["--run-dir", str(tmp_path)]) == 3
    assert capsys.readouterr().err.count("a device and no regular file") == 2


def test_a_file_that_is_read_whole_has_a_bound(tmp_path):
    path = tmp_path / "run.json"
    path.write_bytes(b"x" * 1001)
    assert reading.read_whole(path, 1001) == path.read_bytes()
    with pytest.raises(OSError, match="larger than the 1,000 bytes"):
        reading.read_whole(path, 1000)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"run": ' + "1" * 5000 + "}", '{"a":' * 5000, "\xff"])
def test_json_that_is_nested_or_numbered_beyond_reason_is_none(tmp_path, text, capsys):
    folder = tmp_path / "checkpoints"
    save(folder, 1)
    (folder / "run.json").write_text(text, encoding="latin-1")
    assert manage(folder, "--list") == 0
    (tmp_path / "settings.toml").write_text(f"epochs = {text}", encoding="latin-1")
    assert cgan.main(["--config", str(tmp_path / "settings.toml")]) == 2
    assert re.search(r"is not (TOML|UTF-8 text)", capsys.readouterr().err)


def test_a_huge_branch_in_run_json_takes_no_memory(tmp_path):
    """A new branch would hold an entry for each of those before it."""
    first = save(tmp_path, 1, run="r")
    save(tmp_path, 2, run="r")
    (tmp_path / "run.json").write_text(json.dumps({"run": "r", "branch": 10**12, "lineage": [], "pending_files": []}))
    plan, _, _ = start(tmp_path, file=first.path, branch=True)
    assert plan.run.branch == 1


# What names and values hold.


def assert_harmless(text: str, lines: int | None = None) -> None:
    assert not set(text) & {"\x1b", "\x9b", "\u202e", "\r", "\x07", "\x00"}
    assert lines is None or text.count("\n") == lines, text


@pytest.mark.skipif(os.name == "nt", reason="Windows takes no such names")
def test_names_of_files_add_no_line_and_reach_no_terminal_raw(tmp_path, capsys):
    folder = tmp_path / "checkpoints"
    entry = save(folder, 1, host=TRICK, means={"loss\n\x1b[31m": 1.0}, config={TRICK: TRICK})
    (folder / TRICK).write_bytes(entry.path.read_bytes())
    manage(folder, "--list")
    assert_harmless(listed := capsys.readouterr().out, 5)
    assert "a\\n\\x1b[2Jgood\\x9b31m\\u202e.pth" in listed
    for words in (["--show", folder / TRICK], ["--verify"], ["--backup", folder / TRICK], ["--delete", folder / TRICK]):
        manage(folder, *words)
        assert_harmless("".join(capsys.readouterr()))
    manage(tmp_path / TRICK, "--verify")
    assert_harmless(capsys.readouterr().err, 1)
    (folder / "run.json").unlink(missing_ok=True)
    save(folder, 2, run="other\n")
    assert cgan.main(["--run-dir", str(tmp_path)]) == 3
    assert_harmless(capsys.readouterr().err, 4)


def test_what_is_typed_and_keys_of_toml_are_shown_and_not_obeyed(tmp_path, capsys):
    (tmp_path / "a.toml").write_text('"\\u001b[31m\\nepochs" = 1\n')
    assert cgan.main(["--config", str(tmp_path / "a.toml")]) == 2
    assert_harmless(capsys.readouterr().err, 1)
    with pytest.raises(SystemExit):
        cgan.main(["--epochs", TRICK])
    assert_harmless(capsys.readouterr().err, 1)
    with pytest.raises(SystemExit):
        cgan.main([f"--{TRICK}"])
    assert_harmless(capsys.readouterr().err, 1)


def test_an_error_has_the_lines_it_was_given_and_no_more():
    error = NoCheckpoint(f"There is no file {TRICK}.", "  second line")
    assert str(error).count("\n") == 1
    assert_harmless(str(error))
    assert str(UsageError(f"class {TRICK}")).count("\n") == 0


def test_what_reads_as_text_stays_as_it_is(capsys):
    for text in ("Ação não concluída", "日本語", "עברית", "नमस्ते", "\U0001f469\u200d\U0001f680", "a\u0301"):
        console.say(text)
        assert capsys.readouterr().out == f"{text}\n"


@pytest.mark.parametrize("encoding", ["ascii", "cp437", "cp850", "cp1252", "utf-8"])
@pytest.mark.parametrize(
    "words",
    [
        ["cgan", "--help"],
        ["cgan", "generate", "--help"],
        ["cgan", "compare", "--help"],
        ["progan", "--help"],
        ["progan", "generate", "--help"],
        ["checkpoints", "--help"],
        ["--help"],
        ["--version"],
    ],
    ids=" ".join,
)
def test_help_is_printed_whatever_the_terminal_can_show(words, encoding, monkeypatch):
    """The sentence of an option has an ellipsis, which cp850 and ASCII lack."""
    output = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr(sys, "stdout", output)
    try:
        code = main.main(words)
    except SystemExit as left:
        code = left.code
    assert code in (0, None)
    output.flush()
    assert len(output.buffer.getvalue()) > 4


def test_a_pair_whose_summary_lies_about_names_is_listed(tmp_path, capsys):
    shelf = Shelf(tmp_path / "weights", Pair(name="DRUSEN"))
    entry = save_on_shelf(shelf, 1, host="\x1b]0;owned\x07")
    rewrite(entry.path, entry.path.read_bytes())
    assert manage(shelf.folder, "--show", entry.path) == 0
    assert_harmless(capsys.readouterr().out)


def test_options_of_a_config_file_are_read_as_before(tmp_path):
    (tmp_path / "a.toml").write_bytes("epochs = 3\r\ndata = 'Ação'\r\n".encode())
    assert options.read_toml(tmp_path / "a.toml", CganConfig) == {"epochs": 3, "data": "Ação"}
