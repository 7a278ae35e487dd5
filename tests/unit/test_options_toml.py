"""TOML files as people's editors leave them: read, or refused with what to do."""

import codecs

import pytest

from ganguard.cli import cgan
from ganguard.cli.options import read_toml
from ganguard.training.cgan_config import CganConfig
from ganguard.training.progan_config import ProganConfig


@pytest.mark.parametrize("before", [b"", codecs.BOM_UTF8])
@pytest.mark.parametrize("ending", [b"\n", b"\r\n"])
def test_a_byte_order_mark_and_windows_line_ends_are_nothing(tmp_path, before, ending):
    path = tmp_path / "my.toml"
    path.write_bytes(before + ending.join([b"# caf\xc3\xa9", b"epochs = 3", b"data = 'C:\\Users\\me\\photos'", b""]))
    assert read_toml(path, CganConfig) == {"epochs": 3, "data": r"C:\Users\me\photos"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rb'data = "C:\Users\me"', r"single quotes, such as 'C:\Users\me\photos', or with forward slashes"),
        (rb'data = "D:\photos"', "a backslash begins an escape"),
        (rb'data = "D:\fotos\"', "a backslash begins an escape"),
        (b'epochs = 3\ndata = "D:\\new\\temp"\n', r"data is 'D:\new\temp', with a control character in it. Between"),
        ("epochs = 3\n".encode("utf-16"), "is saved as UTF-16. Save it as UTF-8"),
        (b"epochs = 3\ndata = 'caf\xe9'\n", "is not UTF-8 text in line 2. Save it as UTF-8"),
        (b"epochs = \n", "not TOML: Invalid value (at line 1, column 10).\n"),
    ],
)
def test_what_cannot_be_read_is_explained(tmp_path, capsys, content, message):
    path = tmp_path / "my.toml"
    path.write_bytes(content)
    assert cgan.main(["--config", str(path)]) == 2
    assert message in capsys.readouterr().err


def test_lists_of_the_progressive_gan(tmp_path):
    path = tmp_path / "my.toml"
    path.write_bytes(codecs.BOM_UTF8 + b"batch-sizes = [8, 4]\ndata_dir = 'photos'\n")
    assert read_toml(path, ProganConfig) == {"batch_sizes": (8, 4), "data_dir": "photos"}
