"""A driver that sees a card which torch does not is said in the first line. The driver's library is a stand-in."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from typed import GAN, TINY, run

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("gcc") or torch.cuda.is_available(),
    reason="needs a C compiler, and a torch without a card",
)

NVML = """
#include <string.h>
int nvmlInit_v2(void) { return 0; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) { *handle = (void *)(index + 1L); return 0; }
int nvmlDeviceGetName(void *handle, char *name, unsigned length) {
  strncpy(name, "NVIDIA GeForce RTX 3060", length);
  return 0;
}
"""


@pytest.fixture
def driver(tmp_path):
    """The environment of a machine whose driver sees one card."""
    source = tmp_path / "nvml.c"
    source.write_text(NVML)
    library = tmp_path / "libnvidia-ml.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_LIBRARY_PATH": f"{tmp_path}:{os.environ.get('LD_LIBRARY_PATH', '')}"}


def test_the_first_line_names_the_card_and_what_to_install(driver, tmp_path):
    done = run(GAN, *TINY, "--epochs", 1, cwd=tmp_path, env=driver)
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    assert "NVIDIA GeForce RTX 3060" in first
    assert "https://pytorch.org/get-started/locally/" in first


def test_without_a_driver_nothing_is_said(tmp_path):
    done = run(GAN, *TINY, "--epochs", 1, cwd=tmp_path)
    assert "driver" not in done.stdout
