"""The guides say what happens: each of their commands is run, and what they quote is printed."""

import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import guides
import pytest
from guides import Place, small_disk
from systems import needs_posix
from typed import REPOSITORY

from ganguard.cli import cgan, cgan_pictures, checkpoints, progan, progan_pictures
from ganguard.training.cgan_config import CganConfig
from ganguard.training.progan_config import ProganConfig

MANAGER_PARSER = checkpoints.parser("checkpoint_manager.py")
GUIDES = {
    "guia-cgan.pt.md": (
        CganConfig,
        [cgan.parser("g"), cgan_pictures.generate_parser("g"), cgan_pictures.compare_parser("g"), MANAGER_PARSER],
    ),
    "guia-progan.es.md": (ProganConfig, [progan.parser("p"), progan_pictures.parser("p"), MANAGER_PARSER]),
}
ROOT = sys.platform == "linux" and os.geteuid() == 0


def text_of(guide):
    return (REPOSITORY / "docs" / guide).read_text(encoding="utf-8")


def shares(fences):
    """Fences to go through one after the other, and those that belong to commands on a disk of their own."""
    ordinary, on_disk = [], []
    share = ordinary
    for fence in fences:
        if fence.kind == "sh":
            share = on_disk if fence.disk else ordinary
        share.append(fence)
    return ordinary, on_disk


def go_through(folder, fences):
    place = Place(folder)
    for fence in fences:
        place.do(fence)


def go_through_on_a_small_disk(folder, fences):
    name, size = fences[0].disk
    with small_disk(folder / name, size):
        go_through(folder, fences)


@pytest.fixture(scope="module")
def small_disks(tmp_path_factory):
    """What the guides do on full disks, under way: most of it is waiting."""
    with ThreadPoolExecutor() as pool:
        on_disk = {guide: shares(guides.read(text_of(guide)))[1] for guide in GUIDES} if ROOT else {}
        yield {
            guide: pool.submit(go_through_on_a_small_disk, tmp_path_factory.mktemp("disk"), fences)
            for guide, fences in on_disk.items()
            if fences
        }


@needs_posix("Ctrl+C to one other process")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("guide", GUIDES)
def test_a_guides_commands_do_what_it_says(guide, tmp_path, small_disks):
    go_through(tmp_path, shares(guides.read(text_of(guide)))[0])


@pytest.mark.timeout(900)
@pytest.mark.skipif(not ROOT, reason="mounting needs root on Linux")
@pytest.mark.parametrize("guide", GUIDES)
def test_a_full_disk_is_as_a_guide_says(guide, small_disks):
    small_disks[guide].result()


@pytest.mark.parametrize("guide", GUIDES)
def test_commands_within_sentences_stand_in_a_block_too(guide):
    text = text_of(guide)
    assert set(guides.inline_commands(text)) - set(guides.commands(guides.read(text))) == set()


@pytest.mark.parametrize("guide", GUIDES)
def test_every_option_that_a_guide_names_exists(guide):
    known = {option for parser in GUIDES[guide][1] for option in parser._option_string_actions}
    assert guides.options(text_of(guide)) - known == set()


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guides_table_of_options_is_whole_and_its_defaults_are_the_programs(guide):
    rows = re.findall(r"^\| `--([a-z0-9-]+)` \| (?:`([^`]*)`)?[^|]*\| .* \|$", text_of(guide), re.MULTILINE)
    defaults = {item.name.replace("_", "-"): item.default for item in fields(GUIDES[guide][0])}
    assert [name for name, _ in rows] == list(defaults)
    for name, shown in rows:
        expected = defaults[name]
        if expected is not None:
            assert shown == str(expected), name


@pytest.mark.parametrize("guide", GUIDES)
def test_links_lead_somewhere(guide):
    for link in re.findall(r"\]\(([^)#]+)", text_of(guide)):
        assert (REPOSITORY / "docs" / link).exists(), link


@pytest.mark.parametrize(
    "text",
    [
        "```\npython gan.py\n```",
        "```bash\npython gan.py\n```",
        "<!-- test: exit -->\n```sh\npython gan.py\n```",
        "<!-- test: skip -->\n```sh\npython gan.py\n```",
        "<!-- test: exit 3 -->\n\n```sh\npython gan.py\n```",
        "```sh\npython gan.py\n",
    ],
)
def test_what_would_not_be_tested_is_refused(text):
    with pytest.raises(ValueError):  # noqa: PT011  # int() and guides.read() word it differently
        guides.read(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```sh\nrm -rf x\n```", "nothing runs"),
        ("```sh\npython -c 1\n```\n```text\nit said so\n```", "was not printed"),
        ("```sh\npython -c print(1);print(2)\n```\n```text\n2\n1\n```", "was not printed"),
        ("```sh\npython -c exit(3)\n```", "ended with 3, not 0"),
        ("<!-- test: exit 3 -->\n```sh\npython -c 1\n```", "ended with 0, not 3"),
        ("<!-- test: tree -->\n```\nnowhere/…  a file\n```", "is not there"),
    ],
)
def test_what_a_guide_says_wrongly_is_noticed(text, message, tmp_path):
    with pytest.raises(AssertionError, match=message):
        go_through(tmp_path, guides.read(text))
