"""decode: real image files of every kind in, exact pixels out."""

import contextlib
import io

import numpy as np
import pytest
from PIL import Image

from ganguard.data.decode import DamagedImage, decode

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


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"this is a text, whatever its name says", "not an image"),
        (encoded(Image.fromarray(noise(64, 64)), "JPEG")[:900], "truncated"),
        (encoded(Image.fromarray(noise(64, 64)))[:5000], "truncated"),
        (encoded(Image.fromarray(noise(64, 64)), "WEBP", lossless=True)[:3000], "."),
        (encoded(Image.fromarray(noise(8, 8, 1).astype(np.float32)), "TIFF"), "floating"),
        (encoded(Image.fromarray(np.full((8, 8), 1 << 20, np.int32)), "TIFF"), "32-bit"),
    ],
    ids=["empty", "text", "half a jpeg", "half a png", "half a webp", "float", "32 bits"],
)
def test_damaged_files_are_said_to_be(content, reason):
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
