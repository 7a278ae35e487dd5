"""decode: real image files of every kind in, exact pixels out."""

import contextlib
import io
import struct
import subprocess
import sys
import warnings
import zlib

import numpy as np
import pytest
from deep_images import chunk, class_folders
from PIL import Image, PngImagePlugin

from ganguard.data import memory, open_images
from ganguard.data.decode import DamagedImage, NoRoom, decode

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def noise(height, width, channels=3, seed=0):
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def quadrants(size=8):
    """Red, green above blue, white: tells every rotation and flip from the others."""
    pixels = np.zeros((size, size, 3), np.uint8)
    half = size // 2
    pixels[:half, :half], pixels[:half, half:] = RED, GREEN
    pixels[half:, :half], pixels[half:, half:] = BLUE, WHITE
    return pixels


def chw(pixels):
    return pixels.transpose(2, 0, 1)


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_box_filter_is_the_mean_of_the_covered_pixels(factor):
    pixels = noise(16 * factor, 16 * factor)
    expected = pixels.reshape(16, factor, 16, factor, 3).astype(np.float64).mean((1, 3))
    result = decode(encoded(Image.fromarray(pixels)), 16, 3)
    assert result.shape == (3, 16, 16)
    assert result.dtype == np.uint8
    assert result.flags.c_contiguous
    assert np.abs(result - chw(expected)).max() <= 1  # rounded once a direction


def test_grayscale_box_filter_is_the_mean_too():
    pixels = noise(64, 64, channels=1)
    expected = pixels.reshape(16, 4, 16, 4).astype(np.float64).mean((1, 3))
    result = decode(encoded(Image.fromarray(pixels)), 16, 1)
    assert result.shape == (1, 16, 16)
    assert np.abs(result[0] - expected).max() <= 1


def test_same_size_is_left_untouched():
    pixels = noise(32, 32)
    assert np.array_equal(decode(encoded(Image.fromarray(pixels)), 32, 3), chw(pixels))


@pytest.mark.parametrize(("height", "width"), [(16, 40), (41, 16)])
def test_the_centre_is_cut_out(height, width):
    pixels = noise(height, width)
    top, left = (height - 16) // 2, (width - 16) // 2
    expected = pixels[top : top + 16, left : left + 16]
    assert np.array_equal(decode(encoded(Image.fromarray(pixels)), 16, 3), chw(expected))


def test_cut_and_reduced_together():
    pixels = noise(32, 50)
    expected = pixels[:, 9:41].reshape(8, 4, 8, 4, 3).astype(np.float64).mean((1, 3))
    assert np.abs(decode(encoded(Image.fromarray(pixels)), 8, 3) - chw(expected)).max() <= 1


def test_enlarging_is_smooth():
    ramp = np.tile(np.linspace(0, 248, 8).astype(np.uint8), (8, 1))
    result = decode(encoded(Image.fromarray(ramp)), 64, 1)[0]
    assert result.shape == (64, 64)
    assert len(np.unique(result[0])) > 30  # steps of nearest neighbours would be 8
    assert (np.diff(result[0].astype(int)) >= 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_28_pixels_get_a_frame_of_2_and_keep_their_own(channels):
    pixels = noise(28, 28, channels)
    result = decode(encoded(Image.fromarray(pixels)), 32, channels)
    planes = pixels[None] if channels == 1 else chw(pixels)
    assert np.array_equal(result[:, 2:30, 2:30], planes)
    assert np.array_equal(result[:, 0, 2:30], planes[:, 0])
    assert np.array_equal(result[:, 2:30, 31], planes[:, :, 27])


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation):
    """Against the definition: which corner of what is stored the person sees at the top left."""
    upright = quadrants()
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1),
        7: np.rot90(upright, 2).transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    assert np.array_equal(decode(content, 8, 3), chw(upright))


def test_a_rotated_jpeg():
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = Image.fromarray(np.ascontiguousarray(np.rot90(quadrants(32), 1)))
    content = encoded(stored, "JPEG", quality=95, subsampling=0, exif=exif)
    assert np.abs(decode(content, 32, 3)[:, 4:12, 4:12].astype(int) - np.array(RED)[:, None, None]).max() < 12


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_cost_the_image():
    pixels = noise(16, 16)
    content = encoded(Image.fromarray(pixels), "PNG", exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    assert np.array_equal(decode(content, 16, 3), chw(pixels))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(kind):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (255, 0, 0, 255)
    pixels[:, 4:] = (0, 0, 0, 0)
    options = {"lossless": True} if kind == "WEBP" else {}
    result = decode(encoded(Image.fromarray(pixels), kind, **options), 8, 3)
    assert (result[:, 0, 0] == RED).all()
    assert (result[:, 0, 7] == WHITE).all()


def test_half_transparent_gray():
    pixels = np.zeros((8, 8, 2), np.uint8)
    pixels[..., 1] = 128
    result = decode(encoded(Image.fromarray(pixels, "LA")), 8, 1)
    assert abs(int(result[0, 0, 0]) - 127) <= 1


def test_a_palette_with_a_transparent_entry():
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (0, 0, 4, 8))
    result = decode(encoded(image, "PNG", transparency=0), 8, 3)
    assert tuple(result[:, 0, 0]) == (200, 100, 50)
    assert tuple(result[:, 0, 7]) == WHITE
    opaque = decode(encoded(image, "GIF"), 8, 3)
    assert tuple(opaque[:, 0, 7]) == (10, 20, 30)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bits_keep_their_upper_8(kind):
    wide = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
    result = decode(encoded(Image.fromarray(wide), kind), 8, 1)
    assert np.array_equal(result[0], wide >> 8)
    assert np.array_equal(decode(encoded(Image.fromarray(wide), kind), 8, 3), np.stack([wide >> 8] * 3))


def test_cmyk():
    content = encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=95)
    red, green, blue = decode(content, 16, 3)[:, 8, 8]
    assert red > 240
    assert max(green, blue) < 15


def test_one_bit():
    image = Image.new("1", (8, 8), 1)
    assert (decode(encoded(image), 8, 1) == 255).all()


def test_colours_to_grayscale_by_luma():
    result = decode(encoded(Image.fromarray(quadrants())), 8, 1)[0]
    assert [int(result[0, 0]), int(result[0, 7]), int(result[7, 0]), int(result[7, 7])] == [76, 150, 29, 255]


def test_of_an_animation_the_first_frame():
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE)]
    content = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert tuple(decode(content, 8, 3)[:, 0, 0]) == RED


PICTURE = noise(16, 16)
PNG = encoded(Image.fromarray(PICTURE))


def with_texts(*texts, **options):
    info = PngImagePlugin.PngInfo()
    for number, text in enumerate(texts):
        info.add_text(f"key {number}", text, **options)
    return encoded(Image.fromarray(PICTURE), pnginfo=info)


def with_chunk(*parts, at=33, **options):
    """A chunk after the header (33) or elsewhere."""
    return PNG[:at] + chunk(*parts, **options) + PNG[at:]


SOUND = {
    "3 MB of compressed text": with_texts("x" * 3_000_000, zip=True),
    "3 MB of text": with_texts("x" * 3_000_000),
    "80 texts of 1 MB": with_texts(*["x" * 1_000_000] * 80, zip=True),
    "long text after the pixels": with_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(3_000_000)), at=-12),
    "a text with a wrong checksum": with_chunk(b"tEXt", b"a\0b", checksum=1),
    "a text that does not decompress": with_chunk(b"zTXt", b"a\0\0no zlib"),
    "a broken profile": with_chunk(b"iCCP", b"name\0\0no zlib"),
    "a profile with a wrong checksum": with_chunk(b"iCCP", b"name\0\0" + zlib.compress(b"x"), checksum=1),
    "a broken EXIF block": with_chunk(b"eXIf", b"garbage!", checksum=1),
    "an unknown chunk": with_chunk(b"prVt", b"123", checksum=1),
}


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("case", SOUND)
def test_what_lies_beside_the_pixels_of_a_png_does_not_cost_the_image(case):
    assert np.array_equal(decode(SOUND[case], 16, 3), chw(PICTURE))


def test_broken_texts_leave_transparency_and_orientation():
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:, :4] = (255, 0, 0, 255)
    exif = Image.Exif()
    exif[0x0112] = 2  # mirrored
    content = encoded(Image.fromarray(pixels), exif=exif)
    broken = content[:33] + chunk(b"tEXt", b"a\0b", checksum=1) + content[33:]
    result = decode(broken, 8, 3)
    assert tuple(result[:, 0, 7]) == RED
    assert tuple(result[:, 0, 0]) == WHITE


def one_color_png(side):
    """A gray image of any size, made at once: its rows are all zeros."""
    packed = zlib.compressobj(1)
    row = bytes(side + 1) * 100
    data = b"".join(packed.compress(row) for _ in range(side // 100)) + packed.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return PNG[:8] + chunk(b"IHDR", header) + chunk(b"IDAT", data) + PNG[-12:]


@pytest.fixture(scope="module")
def scan():
    """182 million pixels: more than Pillow opens."""
    return one_color_png(13_500)


def test_a_scan_above_pillows_limit_is_read_without_a_warning(scan):
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = decode(scan, 32, 1)
    assert result.shape == (1, 32, 32)
    assert not result.any()
    assert before == Image.MAX_IMAGE_PIXELS  # whoever else decodes in this process keeps the protection


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts memory in kilobytes")
def test_a_large_jpeg_takes_the_memory_of_a_small_one():
    content = encoded(Image.new("L", (13_500, 13_500), 90), "JPEG")
    code = (
        "import resource, sys; from ganguard.data.decode import decode;"
        "content = sys.stdin.buffer.read(); before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "pixels = decode(content, 32, 1); after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "print(int(pixels.mean()), after - before < 50_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=content, capture_output=True, check=True)
    assert done.stdout.split() == [b"90", b"True"]


def test_what_is_larger_than_asked_for_is_left_out_with_the_option(tmp_path):
    data = class_folders(tmp_path / "data", [PNG, PNG, one_color_png(200)])
    told = []
    options = {"image_size": 16, "channels": 3, "cache_dir": tmp_path / "cache", "say": told.append}
    found = open_images(str(data), max_pixels=39_999, **options)
    assert found.skipped == ("a/2.png",)
    assert "  a/2.png: too large: 200 x 200 pixels; --max-pixels 40000 takes it" in told
    assert open_images(str(data), max_pixels=40_000, **options).skipped == ()
    assert open_images(str(data), **options).skipped == ()


LITTLE_MEMORY = """
import resource, sys
from pathlib import Path
from ganguard.data import open_images
from ganguard.errors import DataError
resource.setrlimit(resource.RLIMIT_AS, (1_000_000_000, resource.RLIM_INFINITY))
try:
    open_images(sys.argv[1], image_size=16, channels=3, cache_dir=Path(sys.argv[2]), say=lambda text: None)
except DataError as error:
    print(error)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits of memory")
def test_too_little_memory_is_said_before_it_is_taken(scan, tmp_path):
    data = class_folders(tmp_path / "data", [PNG, PNG, scan])
    command = [sys.executable, "-c", LITTLE_MEMORY, str(data), str(tmp_path / "cache")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "a/2.png: its 13,500 x 13,500 pixels take 0.9 GB to decode" in done.stdout, done.stderr
    assert "--max-pixels 182249999 leaves it out" in done.stdout


@pytest.mark.parametrize("progressive", [False, True])
def test_a_huge_jpeg_needs_no_more_memory_than_it_is_decoded_at(monkeypatch, progressive):
    """At an eighth of its size; a progressive one holds all its coefficients."""
    huge = encoded(Image.new("RGB", (14_000, 13_000)), "JPEG", progressive=progressive, quality=20)
    monkeypatch.setattr(memory, "available", lambda: 200_000_000)
    if progressive:
        with pytest.raises(NoRoom, match=r"its 14,000 x 13,000 pixels take 1\.1 GB"):
            decode(huge, 64, 3)
    else:
        assert decode(huge, 64, 3).shape == (3, 64, 64)


LEFT_OUT = {
    "nothing": (b"", "empty file"),
    "a text": (b"this is a text, whatever its name says", "not an image"),
    "half a JPEG": (encoded(Image.fromarray(noise(64, 64)), "JPEG")[:900], "truncated JPEG"),
    "the start of a JPEG": (encoded(Image.fromarray(noise(64, 64)), "JPEG")[:30], "truncated JPEG"),
    "half a PNG": (encoded(Image.fromarray(noise(64, 64)))[:5000], "truncated PNG"),
    "the start of a PNG": (PNG[:12], "truncated PNG"),
    "half a WebP": (encoded(Image.fromarray(noise(64, 64)), "WEBP", lossless=True)[:3000], "truncated WebP"),
    "half a GIF": (encoded(Image.fromarray(noise(64, 64)), "GIF")[:2000], "truncated GIF"),
    "a web page": (b"\xef\xbb\xbf\n<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "a pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "git lfs pull"),
    "zeros": (bytes(5000), "5,000 zeros"),
    "HEIC": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC, which is not read"),
    "SVG": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG, which is not read"),
    "PDF": (b"%PDF-1.7 ...", "PDF, which is not read"),
    "fractions": (encoded(Image.fromarray(noise(8, 8, 1).astype(np.float32)), "TIFF"), "floating"),
    "32 bits": (encoded(Image.fromarray(np.full((8, 8), 1 << 20, np.int32)), "TIFF"), "32-bit"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_what_cannot_be_used_is_left_out_with_the_true_reason(case):
    content, reason = LEFT_OUT[case]
    with pytest.raises(DamagedImage, match=reason):
        decode(content, 32, 3)


def test_any_flipped_byte_decodes_or_is_damage_but_never_another_error():
    content = encoded(Image.fromarray(noise(16, 16)), "PNG")
    generator = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(content)
        broken[generator.integers(len(broken))] ^= 1 << int(generator.integers(8))
        with contextlib.suppress(DamagedImage):
            assert decode(bytes(broken), 8, 3).shape == (3, 8, 8)
