"""The settings that hold where nothing else is asked for."""

import dataclasses
import subprocess
import sys

import pytest

from ganguard.networks.presets import CGAN_DEFAULTS, default_width


def test_they_are_plain_data_that_cannot_change():
    with pytest.raises(dataclasses.FrozenInstanceError):
        CGAN_DEFAULTS.width = 1


def test_an_accelerator_gets_a_wider_network():
    assert default_width("cpu") == CGAN_DEFAULTS.width
    assert default_width("cuda") == default_width("mps") > CGAN_DEFAULTS.width


def test_they_are_known_without_torch():
    code = "import sys, ganguard.networks.presets; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
